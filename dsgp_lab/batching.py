"""From texts to batches: encoding, padding, length buckets."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BUCKET_BATCHES = 50  # batches that are sorted by length together: little padding, still well mixed


@dataclass(frozen=True)
class Encoded:
    """Token numbers and segment numbers of one example; ``segments`` is None where the model has none."""

    ids: tuple[int, ...]
    segments: tuple[int, ...] | None


def encode(tokenizer: Any, texts: Sequence[tuple[str, ...]], max_length: int) -> list[Encoded]:
    """Encode single texts or pairs, cut to ``max_length`` tokens (of a pair, the longer text first)."""
    if not texts:
        return []
    columns = [list(column) for column in zip(*texts, strict=True)]
    output = tokenizer(*columns, truncation=True, max_length=max_length)
    segments = output.get("token_type_ids") or [None] * len(texts)
    return [
        Encoded(tuple(ids), None if segment is None else tuple(segment))
        for ids, segment in zip(output["input_ids"], segments, strict=True)
    ]


def collate(
    batch: Sequence[Encoded], pad_id: int | None, device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """Pad a batch on the right: ``input_ids``, ``attention_mask`` (and ``token_type_ids``) [batch, tokens].

    >>> collate([Encoded((5, 6), None), Encoded((7,), None)], 0)["input_ids"]
    tensor([[5, 6],
            [7, 0]])
    """
    length = max(len(item.ids) for item in batch)
    padding = [length - len(item.ids) for item in batch]
    arrays = {
        "input_ids": [
            [*item.ids, *[pad_id or 0] * extra] for item, extra in zip(batch, padding, strict=True)
        ],
        "attention_mask": [
            [1] * len(item.ids) + [0] * extra for item, extra in zip(batch, padding, strict=True)
        ],
    }
    if all(item.segments is not None for item in batch):
        arrays["token_type_ids"] = [
            [*(item.segments or ()), *[0] * extra] for item, extra in zip(batch, padding, strict=True)
        ]
    return {name: torch.tensor(rows, device=device) for name, rows in arrays.items()}


def bucketed_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Positions of one epoch in batches of like length; the same for the same seed and epoch.

    Examples are shuffled, sorted by length within chunks of ``BUCKET_BATCHES`` batches, and the batches
    shuffled.

    >>> bucketed_batches([9, 2, 9, 2], 2, seed=0, epoch=0)
    [[3, 1], [0, 2]]
    """
    rng = random.Random(f"{seed}/{epoch}")
    positions = list(range(len(lengths)))
    rng.shuffle(positions)
    batches = []
    chunk = batch_size * BUCKET_BATCHES
    for start in range(0, len(positions), chunk):
        bucket = sorted(positions[start : start + chunk], key=lambda i: lengths[i])
        batches += [bucket[i : i + batch_size] for i in range(0, len(bucket), batch_size)]
    rng.shuffle(batches)
    return batches
