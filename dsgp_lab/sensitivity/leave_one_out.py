"""Leave-one-out: remove one unit, look how the output changes. The ground truth for single units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dsgp_lab.anatomy import Anatomy, Inputs
from dsgp_lab.cost import CostModel
from dsgp_lab.gates import Gates, gated
from dsgp_lab.sensitivity.base import Scorer, UnitScores
from dsgp_lab.sensitivity.targets import label_margin, margin


@dataclass(frozen=True)
class LeaveOneOut(Scorer):
    """m(all units) - m(all but this one), m the logit margin of the class the full model predicts
    (multi-label: `label_margin` of the labels it predicts).

    Source: the definition of sensitivity itself. Units are removed in batches: one input is repeated
    under different gate rows. Positive: the unit supports the prediction; negative: it argues against it.
    `signed=False` gives the size of the change.
    Cost: one forward per unit. Limits: what two units do together, and how later layers repair a
    loss only when many units go, is invisible to it.
    """

    signed: bool = True
    rows: int = 48
    """Units removed in one forward pass."""
    name: ClassVar[str] = "leave_one_out"

    @torch.no_grad()
    def unit_scores(self, anatomy: Anatomy, inputs: Inputs, labels: Tensor | None) -> UnitScores:
        """Changes of the margin."""
        batch = len(inputs["input_ids"])
        drops = torch.stack([self._drops(anatomy, _one(inputs, i)) for i in range(batch)])
        if not self.signed:
            drops = drops.abs()
        num_heads = anatomy.num_layers * anatomy.num_heads
        heads, blocks = drops[:, :num_heads], drops[:, num_heads:]
        layers = anatomy.num_layers
        return UnitScores(heads.unflatten(1, (layers, -1)), blocks.unflatten(1, (layers, -1)))

    def _drops(self, anatomy: Anatomy, inputs: Inputs) -> Tensor:
        """Margin lost without each unit [units], for one input."""
        logits = anatomy.logits(inputs)
        many = anatomy.is_multi_label
        chosen = logits > 0 if many else logits.argmax(1)
        distance = label_margin if many else margin
        full = distance(logits)
        num_heads = anatomy.num_layers * anatomy.num_heads
        lost = []
        for removed in torch.arange(anatomy.num_units).split(self.rows):
            flat = torch.ones(len(removed), anatomy.num_units, device=anatomy.device)
            flat[torch.arange(len(removed)), removed] = 0.0
            heads = flat[:, :num_heads].unflatten(1, (anatomy.num_layers, -1))
            blocks = flat[:, num_heads:].unflatten(1, (anatomy.num_layers, -1))
            repeated = {name: values.expand(len(removed), -1) for name, values in inputs.items()}
            with gated(anatomy, Gates.of(anatomy, heads, blocks)):
                without = anatomy.logits(repeated)
            lost.append(full - distance(without, chosen.expand(len(removed), *chosen.shape[1:])))
        return torch.cat(lost)

    def macs(self, cost: CostModel, length: int) -> int:
        """One forward per unit, and the full one."""
        units = cost.num_layers * (cost.num_heads + cost.num_blocks)
        return (units + 1) * cost.dense(length)


def _one(inputs: Inputs, row: int) -> dict[str, Tensor]:
    """One input of a batch, its padding cut away."""
    real = inputs["attention_mask"][row].bool()
    return {name: values[row : row + 1, real] for name, values in inputs.items()}
