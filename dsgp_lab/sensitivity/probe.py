"""Probe: a few tokens run ahead, and what is known of other texts makes up for those that do not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dsgp_lab.anatomy import Anatomy, Inputs, matrix
from dsgp_lab.cost import CostModel
from dsgp_lab.gates import captured
from dsgp_lab.sensitivity.base import Scorer, UnitScores, lengths, real_tokens

Squares = tuple[Tensor, Tensor]
"""Mean squares of channels: contexts [..., layers, heads * context_dim], neurons [..., layers, neurons]."""


@dataclass(frozen=True, eq=False)
class Probe(Scorer):
    """f_j * sqrt(sum_i W_ij^4), f_j = (p_j^2 + h_j^2) / (p_j + h_j), summed over the unit's channels j.

    Source: Probe Pruning (Le et al. 2025, arXiv 2502.15618): p_j is the mean square of channel j over the
    probe, a few of the input's tokens, h_j over calibration texts (`Probe.fit`); their importance-scaled
    fusion f_j leans to the larger of the two. There each layer is probed with the tokens whose hidden states
    are largest at it, as the model runs; here the whole plan is made first, so the probe goes through the
    whole model: the first `share` of the input's tokens, whose run is that of the whole model's reading.
    Cost: one forward over the probe. Limits: sees the beginning only, and knows nothing of what the output
    does with a channel.
    """

    history: Squares
    share: float = 0.25
    name: ClassVar[str] = "probe"
    oracle: ClassVar[bool] = False

    @staticmethod
    def fit(anatomy: Anatomy, batches: Iterable[Inputs], share: float = 0.25) -> Probe:
        """Measure the mean squares over calibration batches, each input counted alike."""
        rows = [_squares(anatomy, inputs) for inputs in batches]
        contexts, neurons = (torch.cat(part).mean(0) for part in zip(*rows, strict=True))
        return Probe((contexts, neurons), share)

    @torch.no_grad()
    def unit_scores(self, anatomy: Anatomy, inputs: Inputs, labels: Tensor | None) -> UnitScores:
        """Fused squares times weights of each unit."""
        fused = [
            _fused(probe, history)
            for probe, history in zip(_squares(anatomy, self.tokens(inputs)), self.history, strict=True)
        ]
        size = [
            torch.stack([matrix(part).float().pow(4).sum(0).sqrt() for part in parts])
            for parts in zip(*((layer.attention_out, layer.ffn_out) for layer in anatomy.layers), strict=True)
        ]
        heads = (fused[0] * size[0]).unflatten(-1, (anatomy.num_heads, anatomy.context_dim)).sum(-1)
        neurons = fused[1] * size[1]
        return UnitScores(heads, anatomy.into_blocks(neurons).sum(-1), neurons)

    def tokens(self, inputs: Inputs) -> dict[str, Tensor]:
        """The probe: the first tokens of each input, padded on the right."""
        counts = torch.tensor([self._count(int(n)) for n in lengths(inputs)])
        real = inputs["attention_mask"].bool()
        ids = torch.zeros(len(counts), int(counts.max()), dtype=torch.long, device=real.device)
        for row, count in enumerate(counts):
            ids[row, :count] = inputs["input_ids"][row][real[row]][:count]
        kept = torch.arange(ids.shape[1])[None] < counts[:, None]
        return {"input_ids": ids, "attention_mask": kept.long().to(real.device)}

    def macs(self, cost: CostModel, length: int) -> int:
        """One forward over the probe."""
        return cost.dense(self._count(length))

    def _count(self, length: int) -> int:
        return min(length, max(4, round(self.share * length)))


@torch.no_grad()
def _squares(anatomy: Anatomy, inputs: Inputs) -> Squares:
    """Mean squares over each input's real tokens [batch, layers, channels]."""
    with captured(anatomy) as captures:
        anatomy.logits(inputs)
    real = real_tokens(inputs)
    count = real.sum(1)

    def means(layers: list[Tensor]) -> Tensor:
        return torch.stack([(layer.flatten(2).float().square() * real).sum(1) / count for layer in layers], 1)

    return means(captures.contexts), means(captures.activations)


def _fused(probe: Tensor, history: Tensor) -> Tensor:
    """The two weighted by themselves: the larger one counts more.

    >>> _fused(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0])).tolist()
    [1.0, 2.5]
    """
    return (probe.square() + history.square()) / (probe + history).clamp(min=1e-30)
