"""Reference scorers that do not look at the input: a constant mean, and chance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from dsgp_lab.anatomy import Anatomy, Inputs
from dsgp_lab.cost import CostModel
from dsgp_lab.errors import LabError
from dsgp_lab.sensitivity.base import Scorer, Sensitivity, UnitScores


@dataclass(frozen=True, eq=False)
class Constant(Scorer):
    """The mean of another scorer's scores over calibration data: the best a static mask of it can know.

    Source: the static pruning of Michel et al. 2019 (with FirstOrder), Kwon et al. 2022 (with Fisher),
    An et al. 2024 (with WandaSp and Flap). `Constant.fit` makes one.
    Cost: nothing at run time. Limits: the same mask for every input.
    """

    heads: Tensor
    blocks: Tensor
    origin: str
    name: ClassVar[str] = "constant"
    oracle: ClassVar[bool] = False

    @staticmethod
    def fit(anatomy: Anatomy, scorer: Scorer, batches: Iterable[tuple[Inputs, Tensor | None]]) -> Constant:
        """Average `scorer` over calibration batches of (inputs, labels or None)."""
        parts = [scorer(anatomy, inputs, labels) for inputs, labels in batches]
        if not parts:
            raise LabError(
                got="no calibration batch",
                allowed="at least one batch of inputs",
                hint="pass a few dozen texts of the task",
            )
        return Constant.of(Sensitivity.stack(parts))

    @staticmethod
    def of(sensitivity: Sensitivity) -> Constant:
        """The mean over the inputs of a batch of scores."""
        return Constant(sensitivity.heads.mean(0), sensitivity.blocks.mean(0), sensitivity.scorer)

    def unit_scores(self, anatomy: Anatomy, inputs: Inputs, labels: Tensor | None) -> UnitScores:
        """The same scores for every input."""
        batch = len(inputs["input_ids"])
        return UnitScores(self.heads.expand(batch, -1, -1), self.blocks.expand(batch, -1, -1))

    def macs(self, cost: CostModel, length: int) -> int:
        """None."""
        return 0


@dataclass(frozen=True, eq=False)
class Random(Scorer):
    """Uniform random scores: the floor that every method must beat. Use several seeds.

    Cost: nothing. The sequence of calls is determined by the seed. Limits: it knows nothing.
    """

    seed: int = 0
    name: ClassVar[str] = "random"
    oracle: ClassVar[bool] = False
    generator: torch.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Start the random sequence."""
        object.__setattr__(self, "generator", torch.Generator().manual_seed(self.seed))

    def unit_scores(self, anatomy: Anatomy, inputs: Inputs, labels: Tensor | None) -> UnitScores:
        """Fresh random scores for every input."""
        shape = (len(inputs["input_ids"]), anatomy.num_layers)
        heads, blocks = (
            torch.rand(*shape, units, generator=self.generator).to(anatomy.device)
            for units in (anatomy.num_heads, anatomy.num_blocks)
        )
        return UnitScores(heads, blocks)

    def macs(self, cost: CostModel, length: int) -> int:
        """None."""
        return 0
