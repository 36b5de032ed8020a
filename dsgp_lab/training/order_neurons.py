"""Choose the neuron order of a task checkpoint: which neurons share a block.

Three orders are compared on held-out training examples that the model has not seen: the model's own,
by importance (mean Fisher score of each neuron) and by co-activation. An order is better if the pruned
model stays closer to the dense one: mean Kullback-Leibler divergence of the class probabilities
(regression: mean squared difference), averaged over budgets, per-input and static masks alike.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from dsgp_lab.anatomy import Anatomy, Inputs
from dsgp_lab.batching import collate, encode
from dsgp_lab.checkpoints import save_neuron_order, update_card
from dsgp_lab.evaluate.distance import output_distance
from dsgp_lab.models import TaskModel, load_task_model
from dsgp_lab.ordering import by_importance, coactivation_order
from dsgp_lab.pruner import DynamicPruner
from dsgp_lab.report import Report
from dsgp_lab.sensitivity import Constant, FirstOrder, Fisher, Scorer, Sensitivity
from dsgp_lab.subnetwork import SubNetwork
from dsgp_lab.tasks import Examples, data_folder, load_examples
from dsgp_lab.training.held_out import hold_out

BUDGETS = (0.7, 0.6, 0.5)
CALIBRATION_TEXTS = 512


@dataclass(frozen=True)
class OrderComparison:
    """Distance from the dense model by order, method and budget (lower is better), and the best order."""

    distances: dict[tuple[str, str, float], float]
    examples: int

    @property
    def orders(self) -> list[str]:
        """The orders, best first."""
        names = {name for name, _, _ in self.distances}
        return sorted(names, key=lambda name: sum(v for (n, _, _), v in self.distances.items() if n == name))

    def record(self) -> dict[str, Any]:
        """The mean distance of each order, for the card."""
        means = {
            name: round(mean(v for (n, _, _), v in self.distances.items() if n == name), 4)
            for name in self.orders
        }
        return {"mean_distance": means, "held_out": self.examples}

    def report(self) -> Report:
        """One row for each order and method."""
        kinds = sorted({(name, method) for name, method, _ in self.distances})
        rows = tuple(
            (f"{name}, {method}", *(f"{self.distances[name, method, keep]:.4f}" for keep in BUDGETS))
            for name, method in kinds
        )
        header = ("order and method", *(f"keep {keep}" for keep in BUDGETS))
        note = f"{self.examples} held-out training examples. Best: {self.orders[0]}."
        return Report("Mean distance from the dense model's output", rows, header, (note,))


def compare_orders(own: TaskModel, calibration: Examples, held_out: Examples) -> tuple[OrderComparison, dict]:
    """Compare the three orders; also returns them by name, [layers, neurons] each.

    Cost: for each order, method and budget one pruned run of every held-out example.
    """
    batches = [(inputs, labels) for inputs, labels in _batches(own, calibration)]
    plain = Anatomy.of(own.model)
    fisher = Sensitivity.stack([Fisher()(plain, inputs, labels) for inputs, labels in batches])
    if fisher.neurons is None:
        raise AssertionError("Fisher scores every neuron")
    orders = {
        "as trained": plain.order,
        "importance": by_importance(fisher.neurons.mean(0)),
        "coactivation": coactivation_order(plain, (inputs for inputs, _ in batches)),
    }
    distances: dict[tuple[str, str, float], float] = {}
    inputs_list = [inputs for inputs, _ in _batches(own, held_out)]
    for name, order in orders.items():
        sub = SubNetwork(Anatomy.of(own.model, order=order))
        scorers: dict[str, Scorer] = {
            "static Fisher": Constant.fit(sub.anatomy, Fisher(), batches),
            "per-input first order": FirstOrder(),
        }
        for method, scorer in scorers.items():
            for keep in BUDGETS:
                pruner = DynamicPruner(sub, scorer, keep)
                distances[name, method, keep] = _distance(pruner, inputs_list)
    return OrderComparison(distances, len(held_out)), orders


def main(arguments: Sequence[str] | None = None) -> int:
    """``dsgp-lab order TASK [--write]``. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="dsgp-lab order", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("task", help="a task with a checkpoint")
    parser.add_argument("--write", action="store_true", help="store the best order in the checkpoint")
    options = parser.parse_args(arguments)
    own = load_task_model(options.task)
    card = own.card or {}
    rest, held_out = hold_out(
        load_examples(options.task, "train"), card["settings"]["held_out"], card["settings"]["seed"]
    )
    texts = sorted(range(len(rest)), key=lambda i: -sum(len(text) for text in rest.texts[i]))
    calibration = rest.take(texts[: len(texts) // 2]).sample(min(CALIBRATION_TEXTS, len(texts) // 2))
    comparison, orders = compare_orders(own, calibration, held_out)
    print(comparison.report().text())
    if options.write:
        best, folder = comparison.orders[0], data_folder() / "checkpoints" / options.task
        save_neuron_order(folder, orders[best])
        entry = {"order": best, "command": f"dsgp-lab order {options.task} --write"}
        update_card(folder, {"neuron_order": entry | comparison.record()})
        print(f"Stored the order: {best}.")
    return 0


def _batches(own: TaskModel, examples: Examples, size: int = 32) -> list[tuple[Inputs, Tensor]]:
    encoded = encode(own.tokenizer, examples.texts, 128)
    ranked = sorted(range(len(encoded)), key=lambda i: len(encoded[i].ids))
    batches: list[tuple[Inputs, Tensor]] = []
    for start in range(0, len(ranked), size):
        rows = ranked[start : start + size]
        inputs = collate([encoded[i] for i in rows], own.tokenizer.pad_token_id)
        batches.append((inputs, torch.tensor([examples.labels[i] for i in rows])))
    return batches


def _distance(pruner: DynamicPruner, batches: Sequence[Inputs]) -> float:
    total, count = 0.0, 0
    for inputs in batches:
        run = pruner(inputs)
        total += float(output_distance(run.logits, run.dense_logits).sum())
        count += len(run.logits)
    return total / count
