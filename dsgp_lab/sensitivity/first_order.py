"""First-order scores: the derivative of the output by a gate on the unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dsgp_lab.anatomy import Anatomy, DecoderFamily, Inputs
from dsgp_lab.cost import CostModel
from dsgp_lab.gates import Gates, gated
from dsgp_lab.sensitivity.base import Scorer, UnitScores
from dsgp_lab.sensitivity.targets import TargetName, prompt_loss, target_value


def gate_gradients(
    anatomy: Anatomy, inputs: Inputs, labels: Tensor | None, target: TargetName
) -> tuple[Tensor, Tensor]:
    """The derivative of the target by every gate: [batch, layers, heads], [batch, layers, neurons].

    One backward serves the whole batch: gates are per input, so the summed target's gradient by an
    input's gates is that input's own.
    """
    # also where the caller has switched gradients off; the copies are of token ids, and small
    with torch.inference_mode(False), torch.enable_grad():
        gates = Gates.ones(anatomy, len(inputs["input_ids"]))
        own = {name: values.clone() for name, values in inputs.items()}
        with gated(anatomy, gates):
            if target == "prompt_loss" and isinstance(anatomy.family, DecoderFamily):
                value = prompt_loss(anatomy.family.all_logits(anatomy.model, own), own)
            else:
                value = target_value(target, anatomy.logits(own), labels, anatomy.is_multi_label)
        heads, neurons = torch.autograd.grad(value.sum(), [gates.heads, gates.neurons])
    return heads, neurons


def gradient_macs(cost: CostModel, length: int) -> int:
    """MACs of one forward and of the backward to all gates (weights get no gradient).

    Backward through a linear layer costs one product, through attention two for each of its two;
    below the first layer's gates nothing is computed.
    """
    n, d = length, cost.hidden_size
    attention_out = n * d * cost.num_heads * cost.context_dim
    qkv = attention_out + 2 * n * d * cost.num_heads * cost.head_dim
    attention = cost.num_heads * 2 * n * n * cost.context_dim
    ffn = cost.num_blocks * cost.block(n)
    backward = cost.num_layers * (attention_out + ffn) + (cost.num_layers - 1) * (qkv + 2 * attention)
    return cost.dense(n) + backward


@dataclass(frozen=True)
class FirstOrder(Scorer):
    """|d m / d gate| of each unit, m the logit margin by default.

    Source: Michel et al. 2019 (arXiv 1905.10650), there averaged over data; here per input.
    For language models `target="prompt_loss"`: the loss of the prompt's own tokens, no label needed.
    A block's gate multiplies all of its neurons, so its derivative is the sum of theirs.
    `signed=True` keeps the sign: positive units raise m, negative ones lower it.
    Cost: one forward and one backward to the gates, about 2.1 dense forwards of MACs.
    Limits: first order, so blind to saturation and to interactions between units.
    """

    target: TargetName = "margin"
    signed: bool = False
    name: ClassVar[str] = "first_order"

    def unit_scores(self, anatomy: Anatomy, inputs: Inputs, labels: Tensor | None) -> UnitScores:
        """Absolute (or signed) gate gradients."""
        heads, neurons = gate_gradients(anatomy, inputs, labels, self.target)
        blocks = anatomy.into_blocks(neurons).sum(-1)
        if self.signed:
            return UnitScores(heads, blocks, neurons)
        return UnitScores(heads.abs(), blocks.abs(), neurons.abs())

    def macs(self, cost: CostModel, length: int) -> int:
        """Forward and backward."""
        return gradient_macs(cost, length)


@dataclass(frozen=True)
class Fisher(Scorer):
    """(d L / d gate)^2, L the cross-entropy: the diagonal of the empirical Fisher information.

    Source: Kwon et al. 2022 (arXiv 2204.09656), there the mean over examples: use
    `Constant.fit(Fisher(), ...)` for that static baseline. Without labels, the predicted class stands in.
    Cost: as FirstOrder. Limits: vanishes on confident inputs, where the loss is flat.
    """

    name: ClassVar[str] = "fisher"

    def unit_scores(self, anatomy: Anatomy, inputs: Inputs, labels: Tensor | None) -> UnitScores:
        """Squared gate gradients."""
        target: TargetName = "log_probability" if labels is None else "loss"
        heads, neurons = gate_gradients(anatomy, inputs, labels, target)
        blocks = anatomy.into_blocks(neurons).sum(-1)
        return UnitScores(heads.square(), blocks.square(), neurons.square())

    def macs(self, cost: CostModel, length: int) -> int:
        """Forward and backward."""
        return gradient_macs(cost, length)
