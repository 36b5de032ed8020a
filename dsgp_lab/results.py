"""What a user gets back for a text: predictions, one pruned run, a comparison of two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from dsgp_lab.cost import Macs
from dsgp_lab.errors import LabError
from dsgp_lab.latency_budget import LatencyBudget
from dsgp_lab.mask import Mask
from dsgp_lab.pruner import Timings
from dsgp_lab.report import Report, Reported
from dsgp_lab.sensitivity import Sensitivity
from dsgp_lab.sensitivity.targets import label_margin, margin

if TYPE_CHECKING:
    from dsgp_lab.views.view import View

Text = str | tuple[str, str]
"""A single text, or a pair for the tasks that compare two."""

Masks = Literal["own", "swapped", "only"]
MASK_TITLES = {"own": "", "swapped": ", masks swapped", "only": ", what only one runs"}


@dataclass(frozen=True)
class Prediction:
    """The predicted class: its label and index, the probabilities of all classes, and the logit margin.

    For regression, `label` is the value as text, and there are no probabilities. For multi-label models
    `chosen` holds the indices of all labels above one half, `label` their names, `index` the likeliest one,
    `probabilities` one for each label (they need not add up to 1), and `margin` the sum of all labels'
    distances from their thresholds.
    """

    label: str
    index: int
    probabilities: tuple[float, ...]
    margin: float
    logits: tuple[float, ...]
    chosen: tuple[int, ...] | None = None

    @staticmethod
    def of(logits: Tensor, labels: tuple[str, ...], multi_label: bool = False) -> Prediction:
        """From the logits [labels] of one input; labels () means regression.

        >>> Prediction.of(torch.tensor([0.0, 2.0]), ("negative", "positive"))
        positive (0.881), margin 2.00
        """
        values = tuple(logits.tolist())
        if multi_label:
            chosen = tuple(i for i, value in enumerate(values) if value > 0)
            names = ", ".join(labels[i] for i in chosen) or "no label"
            each = tuple(torch.sigmoid(logits.double()).tolist())
            gap = float(label_margin(logits[None])[0])
            return Prediction(names, int(logits.argmax()), each, gap, values, chosen)
        if len(values) == 1:
            return Prediction(f"{values[0]:.2f}", 0, (), values[0], values)
        index = int(logits.argmax())
        probabilities = tuple(torch.softmax(logits.double(), -1).tolist())
        gap = float(margin(logits[None])[0])
        return Prediction(labels[index], index, probabilities, gap, values)

    def margin_in(self, logits: Tensor) -> float:
        """The margin of this prediction's class, or set of labels, in other logits [labels]; see `margin`.

        >>> found = Prediction.of(torch.tensor([0.0, 2.0]), ("negative", "positive"))
        >>> found.margin_in(torch.tensor([3.0, 2.0]))
        -1.0
        """
        rows = logits.float().cpu()[None]
        if self.chosen is None:
            return float(margin(rows, torch.tensor([self.index]))[0])
        chosen = torch.tensor([[label in self.chosen for label in range(len(logits))]])
        return float(label_margin(rows, chosen)[0])

    def __repr__(self) -> str:
        """Label, probability and margin."""
        if not self.probabilities:
            return self.label
        if self.chosen is not None:
            found = ", ".join(f"{self.probabilities[i]:.3f}" for i in self.chosen)
            found = found or f"at most {max(self.probabilities):.3f}"
            return f"{self.label} ({found}), margin {self.margin:.2f}"
        return f"{self.label} ({self.probabilities[self.index]:.3f}), margin {self.margin:.2f}"


@dataclass(frozen=True, eq=False, repr=False)
class PrunedRun(Reported):
    """One text through the whole line: scores, mask, the cut model's prediction, beside the dense one.

    sensitivity and mask are batches of 1: heads [1, layers, heads], blocks [1, layers, blocks].
    keep is the share of MACs that was allowed, or the latency budget; predicted_ms is what the machine's cost
    table says the cut model takes, None where the machine was not calibrated.
    """

    text: Text
    tokens: tuple[str, ...]
    keep: float | LatencyBudget
    prediction: Prediction
    dense: Prediction
    sensitivity: Sensitivity
    mask: Mask
    macs: Macs
    timings: Timings
    notices: tuple[str, ...] = ()
    predicted_ms: float | None = None

    @property
    def agrees(self) -> bool:
        """Whether the cut model predicts the dense model's class.

        Multi-label: the same set of labels; regression: the same value to two decimals.
        """
        if not self.dense.probabilities:
            return self.prediction.label == self.dense.label
        if self.dense.chosen is not None:
            return self.prediction.chosen == self.dense.chosen
        return self.prediction.index == self.dense.index

    def report(self) -> Report:
        """Everything in one table."""
        text = " / ".join([self.text] if isinstance(self.text, str) else self.text)
        heads, blocks = self.mask.heads, self.mask.blocks
        oracle = ", an oracle: its own cost is not charged" if self.sensitivity.oracle else ""
        own = self.macs.scorer / self.macs.dense
        rows = (
            ("text", text if len(text) <= 60 else text[:57] + "..."),
            ("tokens", str(len(self.tokens))),
            ("dense prediction", repr(self.dense)),
            ("pruned prediction", repr(self.prediction)),
            ("heads that ran", f"{int(heads.sum())} of {heads.numel()}"),
            ("neuron blocks that ran", f"{int(blocks.sum())} of {blocks.numel()}"),
            (
                "encoder MACs that ran",
                f"{self.macs.kept / self.macs.dense:.3f} of dense, budget {_budget(self.keep)}",
            ),
            ("scorer", f"{self.sensitivity.scorer}, {own:.3f} of the dense MACs{oracle}"),
            (
                "time of the cut model",
                f"{self.timings.run:.2f} ms, dense {self.timings.dense:.2f} ms"
                + ("" if self.predicted_ms is None else f", predicted {self.predicted_ms:.2f} ms"),
            ),
            (
                "time of the steps before",
                f"score {self.timings.score:.2f}, plan {self.timings.plan:.2f},"
                f" select {self.timings.select:.2f} ms",
            ),
        )
        return Report("Pruned run", rows, notes=(*self.notices, *self._over()))

    def _over(self) -> tuple[str, ...]:
        """A sentence if the run is above its latency budget by prediction, as a router's may be."""
        if not isinstance(self.keep, LatencyBudget) or self.predicted_ms is None:
            return ()
        scoring = 0.0 if self.sensitivity.oracle else 1e3 * self.sensitivity.seconds
        limit, predicted = self.keep.milliseconds(len(self.tokens)), self.predicted_ms + scoring
        if predicted <= limit * (1 + 1e-9):
            return ()
        return (
            f"Above the budget: {predicted:.2f} ms predicted, scoring included, and {limit:.2f} ms allowed."
            " A router meets a budget on average, not for every input.",
        )


def _budget(keep: float | LatencyBudget) -> str:
    return f"at most {keep}" if isinstance(keep, LatencyBudget) else f"{keep:g}"


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Reported):
    """Two texts under one budget: how far their masks agree, and what happens when they are swapped.

    overlap is the share of units that both run among those that either runs (Jaccard index);
    rank_correlation is Spearman's, over all units' scores; swapped_a is text a under b's mask.
    """

    a: PrunedRun
    b: PrunedRun
    overlap: float
    rank_correlation: float
    swapped_a: Prediction
    swapped_b: Prediction

    def masks(self, which: Masks = "own") -> tuple[Mask, Mask]:
        """The masks of a and b: their own, each other's ("swapped"), or what "only" one of them runs."""
        a, b = self.a.mask, self.b.mask
        choices = {"own": (a, b), "swapped": (b, a), "only": (a & ~b, b & ~a)}
        if which not in choices:
            raise LabError(got=f"masks={which!r}", allowed=", ".join(choices), hint="use one of these")
        return choices[which]

    def view(self, masks: Masks = "own") -> View:
        """Both texts' scores and masks beside each other, on one scale; `masks` as in the method."""
        from dsgp_lab.views import sensitivity_grid

        runs = (self.a, self.b)
        names = [run.text if isinstance(run.text, str) else " / ".join(run.text) for run in runs]
        scores = [(run.sensitivity.heads[0], run.sensitivity.blocks[0]) for run in runs]
        low = min(float(part.min()) for pair in scores for part in pair)
        share = self.a.keep if isinstance(self.a.keep, float) else self.a.macs.share
        return sensitivity_grid(
            [(name, *pair) for name, pair in zip(names, scores, strict=True)],
            masks=[(mask.heads[0], mask.blocks[0]) for mask in self.masks(masks)],
            title=f"Two texts at {100 * share:.0f} % of the operations{MASK_TITLES[masks]}",
            unit=f"{self.a.sensitivity.scorer.replace('_', ' ')} score",
            signed=low < 0,
        )

    def report(self) -> Report:
        """Both texts side by side."""
        only_a, only_b = self.a.mask & ~self.b.mask, self.b.mask & ~self.a.mask

        def units(mask: Mask) -> str:
            return f"{int(mask.heads.sum())} heads, {int(mask.blocks.sum())} blocks"

        rows = (
            ("dense", repr(self.a.dense), repr(self.b.dense)),
            ("own mask", repr(self.a.prediction), repr(self.b.prediction)),
            ("the other's mask", repr(self.swapped_a), repr(self.swapped_b)),
            ("units only this text runs", units(only_a), units(only_b)),
        )
        notes = (
            f"Overlap of the masks {self.overlap:.2f}; rank correlation of the scores"
            f" {self.rank_correlation:.2f}.",
        )
        return Report("Two texts under one budget", rows, ("", "a", "b"), notes)
