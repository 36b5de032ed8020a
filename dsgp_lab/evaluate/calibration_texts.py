"""The texts that methods are fitted on: never those that they are judged on."""

from __future__ import annotations

from typing import Any

from dsgp_lab.evaluate.cell import TEACHING
from dsgp_lab.evaluate.methods import ON_UNSEEN, Batches
from dsgp_lab.tasks import load_examples, load_teaching
from dsgp_lab.training.router_data import held_out_part, labelled_batches, long_sample


def calibration_batches(task: str, method: str, split: str, tokenizer: Any) -> Batches:
    """Labelled batches for a method, from the task's `split`: its training split or the teaching set.

    `ON_UNSEEN` methods get training examples that no training has seen: on those that a model was trained on
    it is surer than it will be.
    """
    if split == TEACHING:
        examples = load_teaching(task)
    else:
        examples = held_out_part(task) if method in ON_UNSEEN else load_examples(task, split)
    return labelled_batches(tokenizer, examples if method in ON_UNSEEN else long_sample(examples))
