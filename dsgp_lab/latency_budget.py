"""Budgets in time: "4 ms", "0.6 of dense", kept by the machine's cost table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from dsgp_lab.cost_table import CostTable
from dsgp_lab.errors import LabError
from dsgp_lab.mask import Mask

if TYPE_CHECKING:
    from dsgp_lab.sensitivity.base import Sensitivity

PATTERN = re.compile(r"\s*(?:at most\s+)?([0-9]*\.?[0-9]+)\s*(ms|of dense)\s*")


@dataclass(frozen=True)
class LatencyBudget:
    """At most `amount` milliseconds (unit "ms"), or that share of the dense run's time ("of dense").

    The time is the table's prediction for one input alone, scoring included unless the scorer is an oracle.
    """

    amount: float
    unit: Literal["ms", "of dense"]
    table: CostTable

    @staticmethod
    def parse(text: str, table: CostTable) -> LatencyBudget:
        """From a text such as "4 ms" or "at most 0.6 of dense"; LabError for any other."""
        found = PATTERN.fullmatch(text) if isinstance(text, str) else None
        if found is None or float(found[1]) <= 0 or (found[2] == "of dense" and float(found[1]) > 1):
            raise LabError(
                got=f"a latency budget of {text!r}",
                allowed='a time above 0 such as "4 ms", or a share of at most 1 such as "0.6 of dense"',
                hint='write at_most="0.6 of dense"',
            )
        return LatencyBudget(float(found[1]), "ms" if found[2] == "ms" else "of dense", table)

    def __str__(self) -> str:
        """As it is written."""
        return f"{self.amount:g} {self.unit}"

    def milliseconds(self, tokens: int) -> float:
        """The limit for an input of so many tokens."""
        return self.amount if self.unit == "ms" else self.amount * self.table.dense(tokens)

    def share(self, tokens: int, overhead: float = 0.0) -> float:
        """Share of all units whose time fits after the fixed part and `overhead` ms; for planners of shares.

        Raises:
            LabError: not even a run without any unit fits.
        """
        fixed, dense = self.table.at(1, tokens).fixed, self.table.dense(tokens)
        left = self.milliseconds(tokens) - overhead - fixed
        if left <= 0:
            raise LabError(
                got=f"{self} for {tokens} tokens",
                allowed=f"more than {fixed + overhead:.2f} ms, which a run without any unit takes here"
                f" (dense: {dense:.2f} ms)",
                hint="raise the budget",
            )
        return min(1.0, left / (dense - fixed))


def plan_latency(sensitivity: Sensitivity, budget: LatencyBudget, lengths: Tensor) -> Mask:
    """The mask of each input within a latency budget: units in the order of score per predicted millisecond.

    Units that lie apart cost a product more (`CostPoint.run`): while the prediction is above the limit, the
    kept unit with the lowest score per millisecond is given up.
    """
    overhead = 0.0 if sensitivity.oracle else 1e3 * sensitivity.seconds / len(sensitivity)
    real = enumerate(lengths.tolist())
    return Mask.stack([_plan_row(sensitivity[row], budget, int(n), overhead) for row, n in real])


def _plan_row(sensitivity: Sensitivity, budget: LatencyBudget, tokens: int, overhead: float) -> Mask:
    budget.share(tokens, overhead)  # raises where nothing fits
    limit = (budget.milliseconds(tokens) - overhead) * (1 + 1e-9)
    point = budget.table.at(1, tokens)
    scores = torch.cat([sensitivity.heads[0], sensitivity.blocks[0]], dim=-1).double()
    prices = torch.full_like(scores, max(point.block, 1e-9))
    num_heads = sensitivity.heads.shape[-1]
    prices[:, :num_heads] = max(point.head, 1e-9)
    order = (scores / prices).flatten().argsort(descending=True, stable=True)
    spent = point.fixed + prices.flatten()[order].cumsum(0)
    kept = torch.zeros(scores.numel(), dtype=torch.bool)
    last = int((spent <= limit).sum())
    kept[order[:last]] = True

    def mask() -> Mask:
        by_layer = kept.view(scores.shape)
        return Mask(by_layer[None, :, :num_heads].clone(), by_layer[None, :, num_heads:].clone())

    while last and budget.table.predict(mask(), tokens) > limit:
        last -= 1
        kept[order[last]] = False
    return mask()
