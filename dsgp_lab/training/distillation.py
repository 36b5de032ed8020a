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

from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.dense import predict_logits
from dsgp_lab.models import sha256
from dsgp_lab.pretrained import load_pretrained
from dsgp_lab.tasks import Examples
from dsgp_lab.training.config import FinetuneConfig, computes_in_bf16
from dsgp_lab.training.overlap import squeezed
from dsgp_lab.training.unlabelled import Texts, swapped, texts_of
from dsgp_lab.whole_files import make_folder, whole_file

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

    No added text stands in the task's dev sets or among the held-out examples. The logits are kept in the
    folder `cache`.

    Raises:
        LabError: a teacher that cannot be read or has another number of outputs.
    """
    unseen = frozenset(squeezed(text) for texts in held_out.texts for text in texts)
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
    own = load_pretrained(folder)
    if own.model.config.num_labels != task.num_labels:
        raise LabError(
            got=f"teacher {folder} with {own.model.config.num_labels} outputs",
            allowed=f"a model of {task.name}, with {task.num_labels}",
            hint=f"train one with dsgp-lab train {task.name} --encoder NAME --update full",
        )
    read = repr((asked.texts, config.max_length, _digests(folder))).encode()
    path = cache / f"{task.name}-{hashlib.sha256(read).hexdigest()[:24]}.pt"
    if path.is_file():
        logits: Tensor = torch.load(path, weights_only=True)
        return logits
    model = own.model.to(device)
    with torch.autocast(
        device.type, dtype=torch.bfloat16, enabled=computes_in_bf16(config.precision, device)
    ):
        logits = predict_logits(model, own.tokenizer, asked, max_length=config.max_length, batch_size=BATCH)
    make_folder(cache)
    with whole_file(path) as scratch:
        torch.save(logits, scratch)
    return logits


def _digests(folder: Path) -> list[str]:
    return [sha256(path) for path in sorted(folder.glob("*.safetensors"))]
