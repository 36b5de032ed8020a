"""Scores from one forward pass: how large a unit's contribution is, or how much it varies."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dsgp_lab.anatomy import Anatomy, Inputs, matrix
from dsgp_lab.cost import CostModel
from dsgp_lab.gates import Captures, captured
from dsgp_lab.sensitivity.base import Scorer, UnitScores, real_tokens


@torch.no_grad()
def _forward(anatomy: Anatomy, inputs: Inputs) -> Captures:
    with captured(anatomy) as captures:
        anatomy.logits(inputs)
    return captures


def _per_channel(
    anatomy: Anatomy, captures: Captures, score: Callable[[Tensor, Tensor, int, str], Tensor]
) -> UnitScores:
    """Scores of channels [batch, channels] by `score`(inputs, weight, layer, part), summed over each unit."""
    heads, neurons = [], []
    for index, layer in enumerate(anatomy.layers):
        context = captures.contexts[index].flatten(2)
        channels = score(context, matrix(layer.attention_out), index, "heads")
        heads.append(channels.unflatten(-1, (anatomy.num_heads, anatomy.context_dim)).sum(-1))
        neurons.append(score(captures.activations[index], matrix(layer.ffn_out), index, "neurons"))
    stacked = torch.stack(neurons, dim=1)
    return UnitScores(torch.stack(heads, dim=1), anatomy.into_blocks(stacked).sum(-1), stacked)


@dataclass(frozen=True)
class ActivationNorm(Scorer):
    """Mean over tokens of the norm of what the unit adds to the residual stream: || c W ||.

    Source: the contribution norm used since Li et al. 2017 for filters; a cheap and strong baseline.
    Cost: one forward, and the products with both output projections once more, unit by unit.
    Limits: size is not use: a large contribution may be ignored or cancelled later.
    """

    name: ClassVar[str] = "activation_norm"

    @torch.no_grad()
    def unit_scores(self, anatomy: Anatomy, inputs: Inputs, labels: Tensor | None) -> UnitScores:
        """Contribution norms of heads, blocks and neurons."""
        captures, real = _forward(anatomy, inputs), real_tokens(inputs)
        count = real.sum(1)

        def mean_norm(parts: Tensor, weight: Tensor) -> Tensor:
            """Parts [batch, tokens, units, width] and weight [units, width, hidden] -> [batch, units]."""
            contribution = torch.einsum("btuw,uwd->btud", parts, weight)
            summed: Tensor = (contribution.norm(dim=-1) * real).sum(1)
            return summed / count

        heads, blocks, neurons = [], [], []
        for index, layer in enumerate(anatomy.layers):
            shape = (anatomy.num_heads, anatomy.context_dim)
            heads.append(
                mean_norm(captures.contexts[index], matrix(layer.attention_out).T.unflatten(0, shape))
            )
            activation, weight = captures.activations[index], matrix(layer.ffn_out).T
            neurons.append((activation.abs() * real).sum(1) / count * weight.norm(dim=1))
            order = anatomy.order[index].to(anatomy.device)
            if anatomy.block_size == 1:  # the norm of one neuron's contribution needs no product
                blocks.append(neurons[-1][:, order])
                continue
            shape = (anatomy.num_blocks, anatomy.block_size)
            parts, weights = activation[..., order].unflatten(-1, shape), weight[order].unflatten(0, shape)
            blocks.append(mean_norm(parts, weights))
        return UnitScores(torch.stack(heads, 1), torch.stack(blocks, 1), torch.stack(neurons, 1))

    def macs(self, cost: CostModel, length: int) -> int:
        """One forward and the output projections again."""
        attention_out = length * cost.num_heads * cost.context_dim * cost.hidden_size
        ffn_out = cost.num_blocks * cost.block(length) // cost.ffn_matrices
        return cost.dense(length) + cost.num_layers * (attention_out + ffn_out)


@dataclass(frozen=True)
class WandaSp(Scorer):
    """sum_i |W_ij| * ||X_j||: weight magnitude times input norm, summed over the unit's channels j.

    Source: Wanda (Sun et al. 2023, arXiv 2306.11695) in its structured form (An et al. 2024, "Wanda-sp").
    X_j is channel j over the tokens of this input. Cost: one forward. Limits: as ActivationNorm, and it
    ignores cancellation between a unit's channels.
    """

    name: ClassVar[str] = "wanda_sp"

    @torch.no_grad()
    def unit_scores(self, anatomy: Anatomy, inputs: Inputs, labels: Tensor | None) -> UnitScores:
        """Summed weight-times-norm of each unit."""
        real = real_tokens(inputs)

        def score(channels: Tensor, weight: Tensor, layer: int, part: str) -> Tensor:
            norm: Tensor = (channels * real).norm(dim=1)
            return norm * weight.abs().sum(0)

        return _per_channel(anatomy, _forward(anatomy, inputs), score)

    def macs(self, cost: CostModel, length: int) -> int:
        """One forward."""
        return cost.dense(length)


@dataclass(frozen=True, eq=False)
class Flap(Scorer):
    """Var(X_j) * ||W_:j||^2, summed over the unit's channels and standardised per layer.

    Source: FLAP (An et al. 2024, arXiv 2312.11983). Fluctuation around `means`, the channel means over
    calibration data (`Flap.fit`): a unit that never varies can be replaced by its mean. Without means,
    around this input's own token mean. Standardised: minus the layer's mean, over its standard
    deviation, heads and blocks apart, so that layers compare.
    Cost: one forward. Limits: says nothing of what the output does with the fluctuation.
    """

    means: dict[str, Tensor] | None = None
    """heads [layers, heads * context_dim] and neurons [layers, neurons]."""
    name: ClassVar[str] = "flap"

    @staticmethod
    @torch.no_grad()
    def fit(anatomy: Anatomy, batches: Iterable[Inputs]) -> Flap:
        """Measure the channel means over calibration batches."""
        sums: dict[str, Tensor] = {}
        tokens = 0.0
        for inputs in batches:
            captures, real = _forward(anatomy, inputs), real_tokens(inputs)
            tokens += float(real.sum())
            for part, layers in (("heads", captures.contexts), ("neurons", captures.activations)):
                total = torch.stack([(layer.flatten(2) * real).sum((0, 1)) for layer in layers])
                sums[part] = sums[part] + total if part in sums else total
        return Flap({part: total / tokens for part, total in sums.items()})

    @torch.no_grad()
    def unit_scores(self, anatomy: Anatomy, inputs: Inputs, labels: Tensor | None) -> UnitScores:
        """Standardised fluctuation of each unit."""
        real = real_tokens(inputs)
        count = real.sum(1)

        def score(channels: Tensor, weight: Tensor, layer: int, part: str) -> Tensor:
            own = ((channels * real).sum(1) / count)[:, None]
            center = own if self.means is None else self.means[part][layer]
            variance = ((channels - center).square() * real).sum(1) / count
            return variance * weight.square().sum(0)

        raw = _per_channel(anatomy, _forward(anatomy, inputs), score)
        return UnitScores(_standardise(raw.heads), _standardise(raw.blocks), raw.neurons)

    def macs(self, cost: CostModel, length: int) -> int:
        """One forward."""
        return cost.dense(length)


def _standardise(scores: Tensor) -> Tensor:
    """Zero mean and unit deviation over the units of each layer [batch, layers, units]."""
    spread = scores.std(-1, keepdim=True, unbiased=False).clamp(min=1e-12)
    return (scores - scores.mean(-1, keepdim=True)) / spread
