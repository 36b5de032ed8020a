"""What an exploration is given, and what each of its steps gives."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dsgp_lab.anatomy import Inputs
from dsgp_lab.cost import Macs
from dsgp_lab.edits import Unit
from dsgp_lab.mask import Mask
from dsgp_lab.regimes import Regime
from dsgp_lab.results import Prediction, Text
from dsgp_lab.router import Router
from dsgp_lab.sensitivity import Scorer, Sensitivity


class Cancelled(Exception):
    """Raised inside a measurement that nobody waits for any more."""


@dataclass(frozen=True)
class Choice:
    """Everything a user sets: what is looked at, with which scorer, under which budget and hand-made edits.

    heads, blocks: for every layer how many units run, None = as planned; () = all as planned. flipped: units
    that run against the plan, or do not run against it.
    """

    text: Text
    task: str
    regime: Regime = "frozen"
    scorer: str = "first_order"
    keep: float = 0.6
    heads: tuple[int | None, ...] = ()
    blocks: tuple[int | None, ...] = ()
    flipped: tuple[Unit, ...] = ()

    @property
    def edited(self) -> bool:
        """Whether anything differs from the plan."""
        counts = (*self.heads, *self.blocks)
        return bool(self.flipped) or any(count is not None for count in counts)

    @property
    def plain(self) -> Choice:
        """The same without edits."""
        return replace(self, heads=(), blocks=(), flipped=())

    def toggled(self, unit: Unit) -> Choice:
        """The same with one unit flipped (flipped back, if it was)."""
        flipped = set(self.flipped) ^ {unit}
        return replace(self, flipped=tuple(sorted(flipped)))


@dataclass(frozen=True, eq=False)
class Scored:
    """A text read, run densely and scored: what every later step starts from.

    sensitivity is None for a router, which decides for a budget as the model runs.
    """

    text: Text
    inputs: Inputs
    tokens: tuple[str, ...]
    dense: Prediction
    scorer: Scorer | Router
    sensitivity: Sensitivity | None
    notices: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Planned:
    """A mask within the budget, edits included; the scores it was made from, and its operations."""

    mask: Mask
    sensitivity: Sensitivity
    macs: Macs


@dataclass(frozen=True)
class Toggled:
    """One unit switched off, or on: the estimate beside the truth, all in units of the margin.

    estimate: the slope of the whole model's margin by the unit's gate; alone: how much the whole model's
    margin really drops without the unit; here: how much the cut model's margin drops without the unit, all
    other units as in the mask. For regression, the output stands for the margin.
    """

    unit: Unit
    runs: bool
    estimate: float
    alone: float
    here: float


@dataclass(frozen=True, eq=False)
class Outcome:
    """What the cut model does under a mask.

    difference: largest absolute difference of logits between the gated and the compacted run. margin: of the
    dense model's class under the mask (regression: the output).
    """

    prediction: Prediction
    margin: float
    difference: float
    toggled: Toggled | None
