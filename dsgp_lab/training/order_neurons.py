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

from torch import Tensor

from dsgp_lab.anatomy import Anatomy, Inputs
from dsgp_lab.checkpoints import save_neuron_order, update_card
from dsgp_lab.evaluate.distance import output_distance
from dsgp_lab.models import TaskModel, load_task_model
from dsgp_lab.ordering import by_importance, coactivation_order
from dsgp_lab.pruner import DynamicPruner
from dsgp_lab.report import Report
from dsgp_lab.sensitivity import Constant, FirstOrder, Fisher, Scorer, Sensitivity
from dsgp_lab.subnetwork import SubNetwork
from dsgp_lab.tasks import Examples, load_examples, task_folder
from dsgp_lab.training.held_out import hold_out
from dsgp_lab.training.router_data import labelled_batches, long_sample

BUDGETS = (0.7, 0.6, 0.5)


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


def importance_order(own: TaskModel, calibration: Examples) -> Tensor:
    """Neurons by their mean Fisher score over calibration examples [layers, neurons]."""
    plain = Anatomy.of(own.model)
    batches = labelled_batches(own.tokenizer, calibration)
    fisher = Sensitivity.stack([Fisher()(plain, inputs, labels) for inputs, labels in batches])
    if fisher.neurons is None:
        raise AssertionError("Fisher scores every neuron")
    return by_importance(fisher.neurons.mean(0))


def compare_orders(
    own: TaskModel, calibration: Examples, held_out: Examples
) -> tuple[OrderComparison, dict[str, Tensor]]:
    """Compare the three orders; also returns them by name, [layers, neurons] each.

    Cost: for each order, method and budget one pruned run of every held-out example.
    """
    batches = labelled_batches(own.tokenizer, calibration)
    plain = Anatomy.of(own.model)
    orders = {
        "as trained": plain.order,
        "importance": importance_order(own, calibration),
        "coactivation": coactivation_order(plain, (inputs for inputs, _ in batches)),
    }
    distances: dict[tuple[str, str, float], float] = {}
    inputs_list = [inputs for inputs, _ in labelled_batches(own.tokenizer, held_out)]
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
    """``dsgp-lab order TASK [--write] [--by importance]``. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="dsgp-lab order", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("task", help="a task with a checkpoint")
    parser.add_argument("--write", action="store_true", help="store the best order in the checkpoint")
    parser.add_argument("--by", choices=["importance"], help="store this order without comparing")
    options = parser.parse_args(arguments)
    own = load_task_model(options.task)
    settings = (own.card or {})["settings"]
    train = load_examples(options.task, "train")
    rest, held_out = hold_out(train, settings["held_out"], settings["seed"])
    calibration = long_sample(rest)
    folder = task_folder(options.task)
    command = f"dsgp-lab order {options.task}"
    if options.by:
        save_neuron_order(folder, importance_order(own, calibration))
        update_card(
            folder, {"neuron_order": {"order": options.by, "command": f"{command} --by {options.by}"}}
        )
        print(f"Stored the order: {options.by}.")
        return 0
    comparison, orders = compare_orders(own, calibration, held_out)
    print(comparison.report().text())
    if options.write:
        best = comparison.orders[0]
        save_neuron_order(folder, orders[best])
        entry = {"order": best, "command": f"{command} --write"}
        update_card(folder, {"neuron_order": entry | comparison.record()})
        print(f"Stored the order: {best}.")
    return 0


def _distance(pruner: DynamicPruner, batches: Sequence[Inputs]) -> float:
    total, count = 0.0, 0
    for inputs in batches:
        run = pruner(inputs)
        total += float(output_distance(run.logits, run.dense_logits).sum())
        count += len(run.logits)
    return total / count


if __name__ == "__main__":
    raise SystemExit(main())
