"""Learning from a larger model: its logits are the target, for texts with labels and without.

Source: Hinton et al. 2015 (arXiv 1503.02531).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from dsgp_lab.evaluate.dense import predict_logits
from dsgp_lab.pretrained import check_length, load_pretrained
from dsgp_lab.tasks import Examples
from dsgp_lab.training.cached_logits import read_logits, write_logits
from dsgp_lab.training.config import FinetuneConfig, computes_in_bf16
from dsgp_lab.training.overlap import dev_texts, names_in, squeezed
from dsgp_lab.training.teacher import weight_digests
from dsgp_lab.training.unlabelled import Texts, swapped, texts_of

BATCH = 128
"""Texts that a teacher reads at a time."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """What teachers say: of the training examples, and of `more` texts that have no labels.

    ``targets`` [examples + more, labels] are their mean logits.
    """

    more: Texts
    targets: Tensor


def distillation(logits: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean divergence of class probabilities from the target's; for one output, half the squared error.

    With a temperature above 1, both distributions are softened and the result is scaled by its square
    (Hinton et al. 2015).

    >>> float(distillation(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.0]])))
    0.0
    """
    if logits.shape[-1] == 1:
        return 0.5 * functional.mse_loss(logits, target)
    log_p, log_q = (functional.log_softmax(x / temperature, -1) for x in (logits, target))
    return functional.kl_div(log_p, log_q, log_target=True, reduction="batchmean") * temperature**2


def take_lesson(
    config: FinetuneConfig, examples: Examples, held_out: Examples, cache: Path, device: torch.device
) -> Lesson:
    """Ask the teachers of a run about its training examples and about the texts that it adds.

    No added text stands in the task's dev sets, in those of ``without_texts_of``, or among the held-out
    examples. The logits are kept in the folder `cache`.

    Raises:
        LabError: a teacher that cannot be read, or reads fewer tokens than ``max_length``.
    """
    unseen = frozenset(squeezed(text) for texts in held_out.texts for text in texts)
    unseen |= dev_texts(names_in(config.without_texts_of))
    more = texts_of(config.more_tasks, examples.task, unseen) if config.more_tasks else ()
    if config.swap_pairs:
        more += swapped(examples.texts + more)
    texts = examples.texts + more
    asked = replace(examples, texts=texts, labels=examples.labels + (0,) * len(more))
    each = [_answers(folder, asked, config, cache, device) for folder in config.teachers]
    return Lesson(more, torch.stack(each).mean(0))


def _answers(
    folder: Path, asked: Examples, config: FinetuneConfig, cache: Path, device: torch.device
) -> Tensor:
    """One teacher's logits [texts, labels]."""
    task = asked.task
    bf16 = computes_in_bf16(config.precision, device)
    read = repr((asked.texts, config.max_length, bf16, weight_digests(folder))).encode()
    path = cache / f"{task.name}-{hashlib.sha256(read).hexdigest()[:24]}.pt"
    known = read_logits(path, len(asked), task.num_labels)
    if known is not None:
        return known
    own = load_pretrained(folder)
    check_length(own, config.max_length)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        logits = predict_logits(
            own.model.to(device), own.tokenizer, asked, max_length=config.max_length, batch_size=BATCH
        )
    write_logits(path, logits)
    return logits
