"""A smaller dense model beside a static mask, measured here: points and time over operations.

The smaller dense model is the cheapest rival of pruning: the same model without its upper layers. Nothing is
retrained; a small model that was trained as such would be a stronger rival. Both methods are judged on one
half of the task's teaching set; the static scores come from the other half.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.dense import to_predictions
from dsgp_lab.evaluate.latency import measure_latency
from dsgp_lab.evaluate.paired import paired_difference
from dsgp_lab.evaluate.pruned import predict_masked, predict_pruned
from dsgp_lab.mask import Mask
from dsgp_lab.tasks import load_teaching
from dsgp_lab.views.curves import Curve, curves_side_by_side
from dsgp_lab.views.view import View

if TYPE_CHECKING:
    from dsgp_lab.lab import Lab

SMALLER, STATIC = "smaller dense", "static mask"
DENSE = "dense"
ROUNDS = 40
TITLE = "Upper layers left out, or a static mask; nothing retrained"


@dataclass(frozen=True)
class MeasuredCurve:
    """Two methods at the same budgets: points gained on the dense model, and time over it.

    points, times: a curve each method over the share of MACs that ran; examples: how many were judged;
    tokens: of the text that was timed.
    """

    points: tuple[Curve, ...]
    times: tuple[Curve, ...]
    examples: int
    tokens: int

    def view(self, title: str = TITLE, mark: float | None = None) -> View:
        """Points on the left, time on the right."""
        return curves_side_by_side(
            {
                f"{self.examples} teaching examples": self.points,
                f"one text of {self.tokens} tokens": self.times,
            },
            title=title,
            y_names=("points against dense", "time over dense"),
            references=(0.0, 1.0),
            mark=mark,
        )


def measured_curve(lab: Lab, rounds: int = ROUNDS) -> MeasuredCurve:
    """Evaluate and time both methods at the budgets that whole layers make: 1/L, 2/L, ... of the operations.

    Cost: some hundred forward runs, under a minute for the embedded model. Limits: teaching examples, no
    GLUE score; one text's time on this machine; static scores by first order.

    Raises:
        LabError: a model of one's own, which has no teaching set.
    """
    if lab.task is None:
        raise LabError(
            got=f"{lab.name!r}, which is no embedded task",
            allowed="a task with a teaching set",
            hint='use an embedded model, for example Lab("sst2")',
        )
    task, layers = lab.task, lab.anatomy.num_layers
    taught = load_teaching(task.name)
    calibration, held_out = taught.split_off(len(taught) // 2)
    static = lab.calibrate("first_order", calibration)
    full = predict_masked(lab.subnetwork, lab.tokenizer, held_out, Mask.full(lab.anatomy), lab.max_tokens)
    dense = to_predictions(task, full.logits)
    middle = int(full.lengths.argsort()[len(held_out) // 2])
    columns = held_out.texts[middle]
    inputs = lab.encode([columns[0] if len(columns) == 1 else (columns[0], columns[1])])

    found: dict[str, list[tuple[float, float, float, float]]] = {SMALLER: [], STATIC: []}
    timed: dict[str, Callable[[], object]] = {DENSE: lambda: lab.subnetwork.dense(inputs)}
    shares: dict[str, float] = {}
    for kept in range(1, layers):
        mask = lower_layers(lab, kept)
        judged = {
            SMALLER: predict_masked(lab.subnetwork, lab.tokenizer, held_out, mask, lab.max_tokens),
            STATIC: predict_pruned(
                lab.subnetwork, lab.tokenizer, held_out, static, kept / layers, lab.max_tokens
            ),
        }
        for name, result in judged.items():
            gain = paired_difference(task, to_predictions(task, result.logits), dense, held_out.labels)
            share = float(result.shares.mean())
            found[name].append((share, 100 * gain.value, 100 * gain.low, 100 * gain.high))
            one = Mask(result.masks.heads[middle : middle + 1], result.masks.blocks[middle : middle + 1])
            selected = lab.subnetwork.select(one)
            timed[f"{name} {kept}"] = partial(lab.subnetwork.run, inputs, selected)
            shares[f"{name} {kept}"] = float(result.shares[middle])
    table = measure_latency(timed, DENSE, rounds=rounds, warmup=2)
    times: dict[str, list[tuple[float, float, float, float]]] = {SMALLER: [], STATIC: []}
    for row in table.rows:
        if row.variant != DENSE:
            values = (shares[row.variant], row.ratio, row.ci_low, row.ci_high)
            times[row.variant.rsplit(" ", 1)[0]].append(values)
    return MeasuredCurve(_curves(found), _curves(times), len(held_out), inputs["input_ids"].shape[1])


def lower_layers(lab: Lab, kept: int) -> Mask:
    """The mask of a model with its `kept` lowest layers: nothing above them runs."""
    mask = Mask.full(lab.anatomy)
    above = torch.arange(lab.anatomy.num_layers) >= kept
    mask.heads[:, above], mask.blocks[:, above] = False, False
    return mask


def _curves(points: dict[str, list[tuple[float, float, float, float]]]) -> tuple[Curve, ...]:
    return tuple(Curve(name, *np.array(sorted(rows)).T) for name, rows in points.items())
