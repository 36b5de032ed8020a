"""Which tokens each head reads: attention weights, computed from what enters the projections."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dsgp_lab.anatomy import Anatomy, DecoderFamily, Inputs
from dsgp_lab.errors import LabError
from dsgp_lab.gates import captured

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.no_grad()
def attention_weights(model: PreTrainedModel | Anatomy, inputs: Inputs) -> Tensor:
    """Softmax attention weights [batch, layers, heads, query token, key token] of one forward pass.

    Computed beside the model's own attention, which may be a fused kernel that never forms them.
    Weights on padding are 0. Raises LabError for a language model.
    """
    anatomy = Anatomy.of(model)
    if isinstance(anatomy.family, DecoderFamily):
        raise LabError(
            got=f"a {anatomy.family.name} language model",
            allowed="encoders, whose heads have queries and keys of their own and no positions in them",
            hint='load it with attn_implementation="eager" and call it with output_attentions=True',
        )
    with captured(anatomy) as captures:
        anatomy.model(**inputs)
    padding = inputs["attention_mask"][:, None, None, :] == 0
    maps = []
    for layer, hidden in zip(anatomy.layers, captures.hidden, strict=True):
        query, key = (
            project(hidden).unflatten(-1, (anatomy.num_heads, anatomy.head_dim)).transpose(1, 2)
            for project in (layer.query, layer.key)
        )
        scores = query @ key.transpose(-1, -2) / anatomy.head_dim**0.5
        maps.append(scores.masked_fill(padding, float("-inf")).softmax(-1))
    return torch.stack(maps, dim=1)
