"""Any Hugging Face classifier, from a folder or the hub: what is refused, and why.

Only safetensors files are read, never pickles.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from dsgp_lab.checkpoints import load_checkpoint
from dsgp_lab.errors import LabError
from dsgp_lab.hub import hub_access
from dsgp_lab.models import CARD, TaskModel, load_tokenizer, one_line, quiet, refuse_nan, unreadable

OFFSET = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Models whose positions start after the padding id."""


def load_pretrained(path_or_id: str | Path, *, trust_remote_code: bool = False) -> TaskModel:
    """A sequence classifier from a folder or the Hugging Face hub, with the tokenizer found beside it.

    A folder with ``card.json`` is loaded as a task checkpoint. Code that comes with a model runs only with
    ``trust_remote_code=True``.

    Raises:
        LabError: no such model, no safetensors file (pickles are refused), a damaged file, no classification
            head, no tokenizer, NaN weights.
    """
    name = str(path_or_id)
    if name and (Path(name) / CARD).is_file():
        return load_checkpoint(name)
    check_source(name)
    with nullcontext() if Path(name).is_dir() else hub_access():
        _refuse_language_model(name, trust_remote_code)
        model = _classifier(name, trust_remote_code)
        tokenizer = load_tokenizer(name, trust_remote_code=trust_remote_code)
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


def load_encoder(path_or_id: str | Path, labels: tuple[str, ...]) -> TaskModel:
    """An encoder from a folder or the hub with a fresh head for these classes (none: regression).

    Raises:
        LabError: as `load_pretrained`, but for the head, which may be missing.
    """
    from transformers import AutoModelForSequenceClassification

    name = str(path_or_id)
    check_source(name)
    numbers = {label: number for number, label in enumerate(labels)}
    names = {"id2label": dict(enumerate(labels)), "label2id": numbers} if labels else {"num_labels": 1}
    with nullcontext() if Path(name).is_dir() else hub_access():
        _refuse_language_model(name, False)
        model = read_model(
            AutoModelForSequenceClassification,
            name,
            kind="encoder",
            hint="name another encoder",
            headless=True,
            ignore_mismatched_sizes=True,
            problem_type=None,
            **names,
        )
        tokenizer = load_tokenizer(name)
    refuse_nan(model, name)
    for part, module in model.named_children():
        if part != model.base_model_prefix:
            module.apply(_draw_anew)
    return TaskModel(model, tokenizer, labels, name)


def _draw_anew(module: torch.nn.Module) -> None:
    """A linear layer as transformers begins with it, whatever was in it."""
    if isinstance(module, torch.nn.Linear):
        torch.nn.init.normal_(module.weight, std=0.02)
        torch.nn.init.zeros_(module.bias)


def check_length(own: TaskModel, tokens: int) -> None:
    """Refuse inputs longer than a model has positions for: on a GPU they would end the process."""
    most = positions(own.model, own.tokenizer)
    if tokens > most:
        raise LabError(
            got=f"max_length={tokens} for {own.name}",
            allowed=f"at most {most} tokens",
            hint=f"use --max-length {most}",
        )


def positions(model: Any, tokenizer: Any) -> int:
    """Positions a model has, or the tokenizer's limit where that is smaller."""
    config = model.config
    own = int(config.max_position_embeddings)
    if config.model_type in OFFSET:
        own -= int(config.pad_token_id) + 1
    return min(own, int(tokenizer.model_max_length))


def read_model(auto: Any, name: str, *, kind: str, hint: str, headless: bool = False, **options: Any) -> Any:
    """A model in float32 from a folder or hub id through a class of transformers, such as AutoModel.

    With `headless`, what lies outside of the model's encoder may be missing, and is drawn at random.

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
            got=f"model {name!r}, which cannot be loaded ({one_line(error)})",
            allowed=f"a folder or hub id of a {kind.split(',')[0]} with safetensors weights",
            hint="check the name, the network, and that the files are whole",
        ) from None
    encoder = f"{model.base_model_prefix}."
    wrong = {*report["missing_keys"], *(each[0] for each in report["mismatched_keys"])}
    missing = [key for key in wrong if not headless or (key.startswith(encoder) and ".pooler." not in key)]
    if missing:
        raise LabError(
            got=f"model {name!r} without the weights {', '.join(sorted(missing)[:4])}",
            allowed=f"a trained {kind}",
            hint=hint,
        )
    return model
