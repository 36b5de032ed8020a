"""GRIFFIN: what the prompt's own activations say about which neurons its continuation needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dsgp_lab.anatomy import Anatomy, Inputs
from dsgp_lab.cost import CostModel
from dsgp_lab.gates import captured
from dsgp_lab.sensitivity.base import Scorer, Sensitivity, UnitScores, real_tokens


@dataclass(frozen=True)
class Griffin(Scorer):
    """sum over tokens t of Z_tj^2 / sum_k Z_tk^2: the unit's share of the layer's activation, token by token.

    Source: GRIFFIN (Dong et al. 2024, arXiv 2404.01365), whose statistic is the square root of this one and
    ranks neurons alike; squares add up over the neurons of a block and the channels of a head. There only
    neurons are cut; here contexts of heads (or KV groups) are scored in the same way beside them.
    Cost: one forward over the prompt. Limits: knows nothing of the weights that follow, and assumes that
    the continuation uses the neurons that the prompt used.
    """

    name: ClassVar[str] = "griffin"

    @torch.no_grad()
    def unit_scores(self, anatomy: Anatomy, inputs: Inputs, labels: Tensor | None) -> UnitScores:
        """Shares of heads, blocks and neurons."""
        with captured(anatomy) as captures:
            anatomy.logits(inputs)
        real = real_tokens(inputs)

        def shares(units: Tensor) -> Tensor:
            """Squares [batch, tokens, units] -> their shares, summed over real tokens [batch, units]."""
            return (units / units.sum(-1, keepdim=True).clamp(min=1e-30) * real).sum(1)

        heads = [shares(context.float().square().sum(-1)) for context in captures.contexts]
        neurons = torch.stack([shares(active.float().square()) for active in captures.activations], dim=1)
        return UnitScores(torch.stack(heads, dim=1), anatomy.into_blocks(neurons).sum(-1), neurons)

    def macs(self, cost: CostModel, length: int) -> int:
        """One forward."""
        return cost.dense(length)


class ReadShares:
    """GRIFFIN's scores of one prompt as a by-product of reading it: a `Watch` of its prefill.

    Cost: none of a run's own, a few operations a layer. KV groups are not scored: all get 1.
    """

    def __init__(self) -> None:
        self._layers: list[Tensor] = []

    def __call__(self, active: Tensor) -> None:
        """Add up the shares of one layer's activated neurons [tokens, neurons]."""
        squares = active.float().square()
        self._layers.append(squares.sum(-1).clamp(min=1e-30).reciprocal() @ squares)

    def neurons(self) -> Tensor:
        """The sums of shares so far [layers, neurons], block by block."""
        return torch.stack(self._layers)

    def scores(self, anatomy: Anatomy) -> Sensitivity:
        """The scores, once the whole model has read the prompt."""
        neurons = self.neurons()
        blocks = neurons.unflatten(-1, (anatomy.num_blocks, anatomy.block_size)).sum(-1)
        heads = torch.ones(1, anatomy.num_layers, anatomy.num_heads, device=blocks.device)
        return Sensitivity(heads, blocks[None], "griffin", torch.zeros(1, dtype=torch.long), oracle=False)
