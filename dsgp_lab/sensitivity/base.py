"""Sensitivity: how much one input's output needs each unit. Scorer: what computes it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from dsgp_lab.anatomy import Anatomy, Inputs
from dsgp_lab.errors import LabError

if TYPE_CHECKING:
    from dsgp_lab.cost import CostModel


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Scores of one batch; larger = the output needs the unit more.

    heads [batch, layers, heads], blocks [batch, layers, blocks]: one score a unit;
    neurons [batch, layers, neurons] in the model's own order, where the scorer sees single neurons;
    macs [batch]: the scorer's own multiply-accumulate operations; seconds: its measured time for the batch;
    oracle: whether the scorer looked at the full run (an instrument, never a product path).
    """

    heads: Tensor
    blocks: Tensor
    scorer: str
    macs: Tensor
    seconds: float = 0.0
    oracle: bool = True
    neurons: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse scores that no plan can rank."""
        for name, scores in (("heads", self.heads), ("blocks", self.blocks)):
            if scores.dim() != 3 or not torch.isfinite(scores).all():
                kind = f"of shape {list(scores.shape)}" if scores.dim() != 3 else "with NaN or infinity"
                raise LabError(
                    got=f"scores of {name} {kind} from scorer {self.scorer!r}",
                    allowed=f"finite numbers [batch, layers, {name}]",
                    hint="check the model's weights; dsgp-lab doctor checks the embedded model",
                )
        if self.heads.shape[:2] != self.blocks.shape[:2]:
            raise LabError(
                got=f"scores of heads {list(self.heads.shape)} and blocks {list(self.blocks.shape)}",
                allowed="the same batch and layers in both",
                hint="score heads and blocks of the same inputs and model",
            )

    def __len__(self) -> int:
        """Number of inputs."""
        return len(self.heads)

    def __getitem__(self, rows: int | slice | Sequence[int] | Tensor) -> Sensitivity:
        """Scores of some inputs, still as a batch."""
        if isinstance(rows, int):
            rows = [rows]
        neurons = None if self.neurons is None else self.neurons[rows]
        return Sensitivity(
            self.heads[rows],
            self.blocks[rows],
            self.scorer,
            self.macs[rows],
            self.seconds,
            self.oracle,
            neurons,
        )

    def flat(self) -> Tensor:
        """All units of an input in one row: heads of every layer, then blocks [batch, units]."""
        return torch.cat([self.heads.flatten(1), self.blocks.flatten(1)], dim=1)

    @staticmethod
    def stack(parts: Sequence[Sensitivity]) -> Sensitivity:
        """Scores of several batches by one scorer as one batch."""
        neurons = [part.neurons for part in parts if part.neurons is not None]
        return Sensitivity(
            torch.cat([part.heads for part in parts]),
            torch.cat([part.blocks for part in parts]),
            parts[0].scorer,
            torch.cat([part.macs for part in parts]),
            sum(part.seconds for part in parts),
            parts[0].oracle,
            torch.cat(neurons) if len(neurons) == len(parts) else None,
        )

    def __repr__(self) -> str:
        """One line of shapes and origin."""
        batch, layers, heads = self.heads.shape
        kind = "an oracle" if self.oracle else "a product path"
        return (
            f"Sensitivity by {self.scorer} ({kind}): {batch} x {layers} layers"
            f" x ({heads} heads + {self.blocks.shape[-1]} blocks)"
        )


@dataclass(frozen=True, eq=False)
class UnitScores:
    """What a scorer computes before it is timed and labelled: shapes as in Sensitivity."""

    heads: Tensor
    blocks: Tensor
    neurons: Tensor | None = None


class Scorer(ABC):
    """A method that scores every unit for every input of a batch.

    A subclass states source, formula, cost and limits in its docstring, sets `name`, and implements
    `unit_scores` and `macs`. `oracle` is True where it runs the full model to find its scores.
    """

    name: ClassVar[str]
    oracle: ClassVar[bool] = True

    @abstractmethod
    def unit_scores(self, anatomy: Anatomy, inputs: Inputs, labels: Tensor | None) -> UnitScores:
        """Scores of one batch."""

    @abstractmethod
    def macs(self, cost: CostModel, length: int) -> int:
        """The method's own MACs for one input of `length` tokens."""

    def __call__(self, anatomy: Anatomy, inputs: Inputs, labels: Tensor | None = None) -> Sensitivity:
        """Score a batch, timed. `labels` [batch] are used by the scorers that say so."""
        from dsgp_lab.cost import CostModel

        start = time.perf_counter()
        scores = self.unit_scores(anatomy, inputs, labels)
        seconds = time.perf_counter() - start
        cost = CostModel.of(anatomy)
        macs = torch.tensor([self.macs(cost, int(n)) for n in lengths(inputs)])
        return Sensitivity(scores.heads, scores.blocks, self.name, macs, seconds, self.oracle, scores.neurons)


def lengths(inputs: Inputs) -> Tensor:
    """Real tokens of each input, padding not counted [batch].

    >>> lengths({"attention_mask": torch.tensor([[1, 1, 0], [1, 1, 1]])}).tolist()
    [2, 3]
    """
    return inputs["attention_mask"].sum(1)


def real_tokens(inputs: Inputs) -> Tensor:
    """1.0 on real tokens and 0.0 on padding [batch, tokens, 1]."""
    return inputs["attention_mask"][:, :, None].float()
