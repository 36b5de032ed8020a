"""Task checkpoints: the project's own trained models, as small differences from the base encoder.

A checkpoint is a folder: a low-rank adapter in peft's format (float16), optionally the order in which neurons
form blocks, and ``card.json``, which names data, seed, command, results, and the SHA-256 of every file beside
it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dsgp_lab.errors import LabError
from dsgp_lab.models import (
    BASE_NAME,
    BASE_SHA256,
    CARD,
    TaskModel,
    load_base,
    load_tokenizer,
    quiet,
    refuse_nan,
    sha256,
    unreadable,
)
from dsgp_lab.tasks import SHARED, get_task, shared_outputs
from dsgp_lab.whole_files import make_folder, whole_file, write_text

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER = "adapter_model.safetensors"
NEURON_ORDER = "neuron_order.safetensors"

# what any version of peft needs to rebuild the adapter; the rest stays at its default
LORA_SETTINGS = (
    "peft_type",
    "task_type",
    "base_model_name_or_path",
    "inference_mode",
    "r",
    "lora_alpha",
    "target_modules",
    "modules_to_save",
    "use_rslora",
    "fan_in_fan_out",
    "bias",
)


def load_checkpoint(folder: Path | str, task_name: str | None = None) -> TaskModel:
    """A model from a task checkpoint's folder; every file is compared with the hash in the card first.

    A checkpoint of the shared encoder gives the model of the task ``task_name``: its part of the classifier.

    Raises:
        LabError: a file that is missing, altered or unreadable, another base, NaN weights, a task that the
            checkpoint is not for.
    """
    from peft import PeftModel

    folder = Path(folder)
    card = verified_card(folder)
    shared = card["task"] == SHARED
    _check_task(card["task"], task_name, folder)
    task = get_task(task_name or card["task"])
    total = max(part.stop for part in shared_outputs().values())
    base = load_base(total if shared else task.num_labels, **({} if shared else _label_names(task.labels)))
    try:
        with quiet():
            model = PeftModel.from_pretrained(base, str(folder)).merge_and_unload()
    except (SafetensorError, ValueError, RuntimeError, KeyError, OSError) as error:
        raise unreadable(folder / ADAPTER, error) from None
    refuse_nan(model, str(folder))
    if shared:
        narrow(model, shared_outputs()[task.name])
        for name, value in _label_names(task.labels).items():
            setattr(model.config, name, value)
    order = _load_order(folder, model) if (folder / NEURON_ORDER).is_file() else None
    return TaskModel(model.eval(), load_tokenizer(), task.labels, task.name, card, order, folder)


def narrow(model: Any, outputs: slice) -> None:
    """Leave a classifier only the outputs of one task."""
    whole = model.classifier
    part = torch.nn.Linear(whole.in_features, outputs.stop - outputs.start)
    with torch.no_grad():
        part.weight.copy_(whole.weight[outputs])
        part.bias.copy_(whole.bias[outputs])
    model.classifier = part
    model.num_labels = model.config.num_labels = part.out_features


def _check_task(own: str, wanted: str | None, folder: Path) -> None:
    allowed = list(shared_outputs()) if own == SHARED else [own]
    if wanted not in (allowed if own == SHARED else [None, own]):
        raise LabError(
            got=f"task {wanted!r} for {folder}",
            allowed=", ".join(allowed),
            hint="name one of these tasks",
        )


def save_checkpoint(
    folder: Path | str, model: Any, card: dict[str, Any], neuron_order: Tensor | None = None
) -> None:
    """Write a peft model as a task checkpoint: adapter in float16, card with the hash of every file.

    ``card`` needs at least ``task``; base and hashes are added. ``neuron_order`` [layers, neurons].
    """
    from peft import get_peft_model_state_dict

    folder = make_folder(Path(folder))
    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    _save_tensors({key: value.detach().to(torch.float16) for key, value in tensors.items()}, folder / ADAPTER)
    config = model.peft_config["default"].to_dict() | {
        "base_model_name_or_path": BASE_NAME,
        "inference_mode": True,
    }
    _write_json(folder / ADAPTER_CONFIG, {key: _plain(config[key]) for key in LORA_SETTINGS})
    if neuron_order is not None:
        _save_tensors({"order": neuron_order.to(torch.int16)}, folder / NEURON_ORDER)
    update_card(folder, card)


def save_neuron_order(folder: Path | str, order: Tensor) -> None:
    """Add or replace a checkpoint's neuron order [layers, neurons] and its hash in the card."""
    folder = Path(folder)
    _save_tensors({"order": order.to(torch.int16)}, folder / NEURON_ORDER)
    update_card(folder, {})


def update_card(folder: Path | str, entries: dict[str, Any]) -> dict[str, Any]:
    """Add entries to a checkpoint's card, hash its files anew, and return the card."""
    folder = Path(folder)
    path = folder / CARD
    card = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    card |= {"base": BASE_NAME, "base_sha256": BASE_SHA256} | entries
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name != CARD and p.suffix != ".tmp")
    card["files"] = {p.name: {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in files}
    _write_json(path, card)
    return card


def verified_card(folder: Path, needed: Iterable[str] = (ADAPTER, ADAPTER_CONFIG)) -> dict[str, Any]:
    """A checkpoint's card, after every file it lists and every needed one was compared with its hash.

    Raises:
        LabError: a file that is missing, altered or unreadable, or another base.
    """
    try:
        card: dict[str, Any] = json.loads((folder / CARD).read_text("utf-8"))
        files, base = card["files"], card["base_sha256"]
        if card["task"] != SHARED:
            get_task(card["task"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise unreadable(folder / CARD, error) from None
    if base != BASE_SHA256:
        raise LabError(
            got=f"{folder}, made for another base (SHA-256 {str(base)[:12]}...)",
            allowed=f"checkpoints of {BASE_NAME} (SHA-256 {BASE_SHA256[:12]}...)",
            hint="train the checkpoint anew on this base with dsgp-lab train",
        )
    for name in sorted({*needed, *files}):
        path = folder / name
        expected = files.get(name, {}).get("sha256")
        if not path.is_file() or sha256(path) != expected:
            raise LabError(
                got=f"{path}, {'altered or damaged' if path.is_file() else 'which does not exist'}",
                allowed=f"the file with SHA-256 {expected}, as {CARD} says",
                hint="fetch the checkpoint again, for example with git checkout",
            )
    return card


def _load_order(folder: Path, model: Any) -> Tensor:
    path = folder / NEURON_ORDER
    try:
        order = load_file(path)["order"].long()
    except (SafetensorError, KeyError, OSError) as error:
        raise unreadable(path, error) from None
    shape = (model.config.num_hidden_layers, model.config.intermediate_size)
    if order.shape != shape or not torch.equal(
        order.sort(dim=1).values, torch.arange(shape[1]).expand(shape)
    ):
        raise LabError(
            got=f"{path} of shape {tuple(order.shape)}",
            allowed=f"a permutation of {shape[1]} neurons for each of {shape[0]} layers",
            hint="make the order anew for this model",
        )
    return order


def _label_names(labels: tuple[str, ...]) -> dict[str, Any]:
    if not labels:
        return {}
    return {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}


def _plain(value: Any) -> Any:
    return sorted(set(value)) if isinstance(value, set | list) else value


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    with whole_file(path) as scratch:
        save_file({key: value.cpu().contiguous() for key, value in tensors.items()}, scratch)
        scratch.chmod(0o644)  # safetensors leaves it readable for its owner alone


def _write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
