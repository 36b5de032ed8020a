"""A model run under a router, differentiable: what router training steps through.

Every unit is computed and multiplied by its gate, 0 or 1 in the forward pass; the gradient passes to the
logits as if the gate were the logits' sigmoid (straight-through estimator, Bengio et al. 2013). With
logistic noise on the logits the gates are samples (binary concrete, Maddison et al. 2017).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from dsgp_lab.anatomy import Anatomy, Inputs
from dsgp_lab.cost import CostModel
from dsgp_lab.gates import input_hooks, multiply
from dsgp_lab.router import Router, pooled
from dsgp_lab.sensitivity import lengths


@dataclass(eq=False)
class Routed:
    """Gates of one run: heads and blocks, one tensor [batch, units] a layer, in the order of the layers."""

    heads: list[Tensor] = field(default_factory=list)
    blocks: list[Tensor] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)

    def shares(self, cost: CostModel, inputs: Inputs) -> Tensor:
        """Share of the dense encoder's MACs that each input's gates keep [batch], differentiable."""
        real = lengths(inputs).to(self.heads[0].dtype)
        heads, blocks = torch.stack(self.heads, 1).sum((1, 2)), torch.stack(self.blocks, 1).sum((1, 2))
        return (heads * cost.head(real) + blocks * cost.block(real)) / cost.dense(real)


@contextmanager
def routed(
    anatomy: Anatomy, router: Router, inputs: Inputs, keep: Tensor, noise: float = 0.0
) -> Iterator[Routed]:
    """Inside the context, one forward pass on `inputs` runs under the router's gates.

    keep [batch] is the router's budget input, `noise` the scale of logistic noise on the logits.
    """
    run = Routed()
    oneshot = router.shape.kind == "oneshot"

    def decide(index: int, hidden: Tensor) -> Tensor:
        # the weights are trained through the gated units alone: the router reads them as they are
        features = pooled(hidden.detach().float(), inputs["attention_mask"])
        run.features.append(features)
        seen = run.features[0] if oneshot else features
        with torch.autocast(hidden.device.type, enabled=False):
            logits = router.logits(index, seen, keep)
        gates = straight_through(logits, noise)
        run.heads.append(gates[:, : anatomy.num_heads])
        run.blocks.append(gates[:, anatomy.num_heads :])
        return hidden

    with input_hooks() as on_input:
        for index, layer in enumerate(anatomy.layers):
            inverse = anatomy.order[index].argsort().to(anatomy.device)

            def heads(tensor: Tensor, index: int = index) -> Tensor:
                return multiply(tensor, run.heads[index], anatomy.head_dim)

            def neurons(tensor: Tensor, index: int = index, inverse: Tensor = inverse) -> Tensor:
                gates = run.blocks[index].to(tensor.dtype).repeat_interleave(anatomy.block_size, dim=-1)
                return multiply(tensor, gates[:, inverse], 1)

            on_input(layer.query, partial(decide, index))
            on_input(layer.attention_out, heads)
            on_input(layer.ffn_out, neurons)
        yield run


def straight_through(logits: Tensor, noise: float) -> Tensor:
    """Gates 0 or 1 whose gradient is that of a sigmoid.

    >>> logits = torch.tensor([2.0, -2.0], requires_grad=True)
    >>> gates = straight_through(logits, 0.0)
    >>> gates.tolist()
    [1.0, 0.0]
    >>> gates.sum().backward(); [round(g, 3) for g in logits.grad.tolist()]
    [0.105, 0.105]
    """
    if noise:
        uniform = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
        logits = logits + noise * (uniform.log() - (-uniform).log1p())
    soft = torch.sigmoid(logits)
    return (logits > 0).to(logits.dtype) + (soft - soft.detach())
