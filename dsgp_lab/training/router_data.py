"""Training data of routers: examples that the dense model's held-out part has nothing of, and its logits."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dsgp_lab.anatomy import Inputs
from dsgp_lab.batching import collate, encode
from dsgp_lab.checkpoints import ADAPTER, load_checkpoint
from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.dense import predict_logits
from dsgp_lab.models import CARD, load_tokenizer
from dsgp_lab.tasks import Examples, load_examples, task_folder
from dsgp_lab.training.cached_logits import read_logits, write_logits
from dsgp_lab.training.config import computes_in_bf16
from dsgp_lab.training.held_out import HELD_OUT, hold_out
from dsgp_lab.training.overlap import squeezed, without
from dsgp_lab.training.router_config import RouterConfig
from dsgp_lab.training.router_loop import Source
from dsgp_lab.training.unlabelled import Texts, perturbed, texts_of

CALIBRATION_TEXTS = 512
CPU = torch.device("cpu")


def task_source(
    task: str,
    dense: Path | None,
    config: RouterConfig,
    cache: Path,
    limit: int,
    outputs: slice = slice(None),
    judged: frozenset[str] = frozenset(),
    device: torch.device = CPU,
) -> tuple[Source, Examples, Examples]:
    """At most `limit` training examples with the logits of the dense checkpoint in folder `dense`.

    Also returns the examples themselves and the part held out from the dense model's training. The logits
    are kept in the folder `cache`. Without `dense`, the targets are 0, for training on labels alone. Examples
    with a text among `judged`, squeezed, are left out.

    Raises:
        LabError: no example is as long as ``config.min_tokens``.
    """
    card = json.loads((dense / CARD).read_text("utf-8")) if dense else None
    parts = _training_parts(task, card)
    rest, held = (without(part, judged) if judged else part for part in parts)
    encoded = encode(load_tokenizer(), rest.texts, config.max_length)
    long = [i for i, item in enumerate(encoded) if len(item.ids) >= config.min_tokens]
    if not long:
        raise LabError(
            got=f"min_tokens={config.min_tokens}, and no such example in {task}",
            allowed="a length that some examples reach",
            hint="lower min_tokens",
        )
    chosen = sorted(random.Random(config.seed).sample(long, min(len(long), limit)))
    rest, encoded = rest.take(chosen), [encoded[i] for i in chosen]
    more = _unlabelled(rest, held, config, limit - len(rest))
    targets = torch.zeros(len(rest) + len(more), rest.task.num_labels)
    if dense is not None and card is not None:
        texts = replace(rest, texts=rest.texts + more, labels=rest.labels + (0,) * len(more))
        read = hashlib.sha256(repr((texts.texts, config.max_length)).encode()).hexdigest()
        bf16 = "-bf16" if computes_in_bf16("auto", device) else ""
        name = f"{task}-{card['files'][ADAPTER]['sha256'][:12]}-{read[:12]}{bf16}.pt"
        targets = _dense_logits(cache / name, dense, texts, config, device)
    encoded += encode(load_tokenizer(), more, config.max_length)
    source = Source(rest.task, encoded, rest.labels, targets, outputs, weight=len(rest) ** 0.5)
    return source, rest, held


def held_out_part(task: str) -> Examples:
    """The training examples that neither the task's dense checkpoint nor any router was trained on."""
    return _training_parts(task, _dense_card(task))[1]


def _dense_card(task: str) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((task_folder(task) / CARD).read_text("utf-8"))
    return card


def _training_parts(task: str, card: dict[str, Any] | None) -> tuple[Examples, Examples]:
    """The training split without what a checkpoint held out, and that part; by default without a card.

    A router's checkpoint was trained on what the task's dense one was trained on.
    """
    held_out, seed = HELD_OUT[task], 0
    if card is not None:
        settings = card["settings"] if "held_out" in card["settings"] else _dense_card(task)["settings"]
        held_out, seed = settings["held_out"], settings["seed"]
    return hold_out(load_examples(task, "train"), held_out, seed)


def _unlabelled(own: Examples, held: Examples, config: RouterConfig, limit: int) -> Texts:
    """At most `limit` texts, none of them held out: changed copies of the task's own, then other tasks'."""
    copies = perturbed(own.texts, config.perturbed, config.seed)[: max(0, limit)]
    if not config.more_tasks:
        return copies
    unseen = frozenset(squeezed(text) for texts in held.texts for text in texts)
    fresh = texts_of(config.more_tasks, own.task, unseen)
    left = max(0, min(limit - len(copies), len(fresh)))
    return copies + tuple(random.Random(config.seed).sample(fresh, left))


def _dense_logits(
    path: Path, dense: Path, examples: Examples, config: RouterConfig, device: torch.device
) -> Tensor:
    known = read_logits(path, len(examples), examples.task.num_labels)
    if known is not None:
        return known
    own = load_checkpoint(dense, examples.task.name)
    bf16 = computes_in_bf16("auto", device)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        logits = predict_logits(own.model.to(device), own.tokenizer, examples, max_length=config.max_length)
    write_logits(path, logits)
    return logits


def long_sample(examples: Examples, size: int = CALIBRATION_TEXTS) -> Examples:
    """Examples from the longer half: training texts are often shorter than those of the dev sets."""
    ranked = sorted(range(len(examples)), key=lambda i: -sum(len(text) for text in examples.texts[i]))
    half = ranked[: max(1, len(ranked) // 2)]
    return examples.take(half).sample(min(size, len(half)))


def labelled_batches(
    tokenizer: Any, examples: Examples, max_length: int = 128, size: int = 32, device: torch.device = CPU
) -> list[tuple[Inputs, Tensor]]:
    """Examples as padded batches of like length with their labels."""
    encoded = encode(tokenizer, examples.texts, max_length)
    ranked = sorted(range(len(encoded)), key=lambda i: len(encoded[i].ids))
    batches: list[tuple[Inputs, Tensor]] = []
    for start in range(0, len(ranked), size):
        rows: Sequence[int] = ranked[start : start + size]
        inputs = collate([encoded[i] for i in rows], tokenizer.pad_token_id, device)
        batches.append((inputs, torch.tensor([examples.labels[i] for i in rows], device=device)))
    return batches
