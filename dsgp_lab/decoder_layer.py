"""One layer of a language model under a cut: attention and feed-forward part on packed weights.

At batch 1 a decoded token streams all kept weights through the processor's caches, and every further
operation starts cold, so what counts beside the bytes of the weights is the number of operations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention

from dsgp_lab.anatomy.decoder import Rotation
from dsgp_lab.packed_decoder import DecoderWeights, PackedDecoderLayer

Watch = Callable[[Tensor], None]
"""Is shown the activated neurons of each layer [batch * tokens, neurons], block by block."""

Masks = dict[int | None, Tensor | None]
"""What each token may look at, for each window; None: everything so far."""


class Tokens(NamedTuple):
    """The tokens of one run: `batch` inputs, from column `start` of the cache on."""

    batch: int
    start: int
    rotation: Rotation | None
    masks: Masks


def rotations(rotation: Rotation, queries: int) -> Rotation:
    """Cosine and sine [batch, tokens, dim] -> [batch, 1, queries + 2, tokens, dim], for a group's rows.

    The sine's first half is negated, so that x * cos + roll(x, dim / 2) * sin is the rotation. The last row,
    the value's, is turned by nothing: key and value can then be kept together.
    """
    cos, sin = (part[:, None, None] for part in rotation)
    half, turned = sin.shape[-1] // 2, (-1, -1, queries + 1, -1, -1)
    sin = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
    return (
        torch.cat([cos.expand(turned), torch.ones_like(cos)], dim=2),
        torch.cat([sin.expand(turned), torch.zeros_like(sin)], dim=2),
    )


def run_layer(
    layer: PackedDecoderLayer,
    weights: DecoderWeights,
    rows: Tensor,
    tokens: Tokens,
    pairs: Tensor | None = None,
    watch: Watch | None = None,
) -> Tensor:
    """Hidden states [batch * tokens, hidden] through a layer; `pairs` is its part of the KV cache."""
    if len(weights.out):
        rows = torch.addmm(rows, _attend(layer, weights, rows, tokens, pairs), weights.out)
    if weights.out_bias is not None:
        rows = rows + weights.out_bias
    if len(weights.ffn_out):
        active = _activate(layer, weights, rows)
        if watch is not None:
            watch(active)
        rows = torch.addmm(rows, active, weights.ffn_out)
    return rows if weights.ffn_out_bias is None else rows + weights.ffn_out_bias


def _attend(
    layer: PackedDecoderLayer, weights: DecoderWeights, rows: Tensor, tokens: Tokens, pairs: Tensor | None
) -> Tensor:
    """Contexts [batch * tokens, groups * queries * head_dim] of rows [batch * tokens, hidden].

    The queries of a group are laid one after the other as if they were more tokens, so that key and value
    need not be repeated for them.
    """
    batch, queries, dim = tokens.batch, layer.queries, layer.head_dim
    projected = linear(layer.attention_norm(rows), weights.qkv, weights.qkv_bias)
    count, groups = len(rows) // batch, len(weights.out) // (queries * dim)
    by_group = projected.view(batch, count, groups, queries + 2, dim).permute(0, 2, 3, 1, 4)
    if layer.query_norm is not None and layer.key_norm is not None:
        query, key, value = by_group.split([queries, 1, 1], dim=2)
        by_group = torch.cat([layer.query_norm(query), layer.key_norm(key), value], dim=2)
    if tokens.rotation is not None:
        cos, sin = tokens.rotation
        by_group = torch.addcmul(by_group * cos, by_group.roll(dim // 2, -1), sin)
    query, pair = by_group.split([queries, 2], dim=2)
    if pairs is not None:
        pairs.narrow(3, tokens.start, count).copy_(pair)
        pair = pairs.narrow(3, 0, tokens.start + count)
    key, value = pair.unbind(2)
    query = query.reshape(batch, groups, queries * count, dim)
    mask = tokens.masks[layer.window]
    context = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=layer.scale)
    if count > 1:
        context = context.view(batch, groups, queries, count, dim).permute(0, 3, 1, 2, 4)
    return context.reshape(len(rows), groups * queries * dim)


def _activate(layer: PackedDecoderLayer, weights: DecoderWeights, rows: Tensor) -> Tensor:
    """Activated neurons [rows, neurons]: act(gate) * up, or act(up) where nothing is gated."""
    projected = linear(layer.ffn_norm(rows), weights.ffn_in, weights.ffn_in_bias)
    if not layer.is_gated:
        activated: Tensor = layer.activation(projected)
        return activated
    gate, up = projected.chunk(2, dim=-1)
    gated: Tensor = layer.activation(gate)
    return gated * up
