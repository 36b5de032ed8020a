"""Predictions of a dense model over a split."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dsgp_lab.batching import collate, encode
from dsgp_lab.tasks import Examples, Task


def predict_logits(
    model: Any, tokenizer: Any, examples: Examples, *, max_length: int = 128, batch_size: int = 64
) -> Tensor:
    """Logits [examples, labels] of a model in its own dtype, in the order of the examples.

    Runs in eval mode without gradients, batched by length, on the model's device; the model's mode is
    restored.
    """
    device = next(model.parameters()).device
    encoded = encode(tokenizer, examples.texts, max_length)
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i].ids))
    rows: list[Tensor | None] = [None] * len(order)
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for start in range(0, len(order), batch_size):
                chosen = order[start : start + batch_size]
                batch = collate([encoded[i] for i in chosen], tokenizer.pad_token_id, device)
                for i, row in zip(chosen, model(**batch).logits.float().cpu(), strict=True):
                    rows[i] = row
    finally:
        model.train(training)
    return torch.stack([row for row in rows if row is not None])


def to_predictions(task: Task, logits: Tensor) -> list[int | float]:
    """Class numbers, or numbers for a regression task, from logits [examples, labels].

    >>> from dsgp_lab.tasks import get_task
    >>> to_predictions(get_task("sst2"), torch.tensor([[0.1, 0.9], [2.0, -1.0]]))
    [1, 0]
    """
    return logits.squeeze(-1).tolist() if task.is_regression else logits.argmax(-1).tolist()
