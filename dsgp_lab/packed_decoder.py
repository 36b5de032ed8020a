"""Packed weights of language models: one layer's weights unit by unit, and the copy that a mask keeps.

Query, key and value rows lie KV group by KV group, neurons in the anatomy's order, and the two output
projections are transposed, so that every unit is a few neighbouring rows. One cut serves a whole
generation, so here (unlike in `packed`) the kept rows are copied together: one product a matrix for
every token, and single neurons can be units at no cost in speed.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dsgp_lab.anatomy import Anatomy, DecoderFamily, DecoderParts, matrix


class LeanNorm(NamedTuple):
    """A layer norm, or an RMS norm where it has no bias."""

    weight: Tensor
    bias: Tensor | None
    eps: float
    is_rms: bool

    def __call__(self, rows: Tensor) -> Tensor:
        """Normalise the last axis."""
        if self.is_rms:
            return torch.rms_norm(rows, self.weight.shape, self.weight, self.eps)
        return torch.layer_norm(rows, self.weight.shape, self.weight, self.bias, self.eps)


class DecoderWeights(NamedTuple):
    """What one layer computes with, whole or cut.

    qkv [groups, (queries + 2) * head_dim, hidden]: of each KV group its queries, its key, its value;
    out [groups, queries * head_dim, hidden]; ffn_in [gate and up, or up alone; neurons, hidden];
    ffn_out [neurons, hidden]; biases likewise, None where the model has none.
    """

    qkv: Tensor
    qkv_bias: Tensor | None
    out: Tensor
    ffn_in: Tensor
    ffn_in_bias: Tensor | None
    ffn_out: Tensor

    @property
    def num_bytes(self) -> int:
        """Size of the weights."""
        return sum(part.nbytes for part in self if part is not None)


class PackedDecoderLayer(NamedTuple):
    """One layer: all its weights, and what no mask touches."""

    whole: DecoderWeights
    block_size: int
    out_bias: Tensor | None
    ffn_out_bias: Tensor | None
    attention_norm: LeanNorm
    ffn_norm: LeanNorm
    query_norm: LeanNorm | None
    key_norm: LeanNorm | None
    activation: nn.Module
    scale: float

    def cut(self, heads: Tensor, blocks: Tensor, room: DecoderWeights | None = None) -> DecoderWeights:
        """The weights of the kept units, bool [groups] and [blocks]; copied into `room` if it is given."""
        whole, device = self.whole, self.whole.out.device
        if bool(heads.all()) and bool(blocks.all()):
            return whole
        groups = heads.nonzero()[:, 0].to(device)
        neurons = blocks.repeat_interleave(self.block_size).nonzero()[:, 0].to(device)
        parts, count, hidden = whole.ffn_in.shape
        rows = torch.cat([neurons + part * count for part in range(parts)])  # one flat gather is fastest
        ffn_in = _gather(whole.ffn_in.view(-1, hidden), rows, None if room is None else room.ffn_in)
        return DecoderWeights(
            qkv=_gather(whole.qkv, groups, None if room is None else room.qkv),
            qkv_bias=None if whole.qkv_bias is None else whole.qkv_bias[groups],
            out=_gather(whole.out, groups, None if room is None else room.out),
            ffn_in=ffn_in.view(parts, len(neurons), hidden),
            ffn_in_bias=None if whole.ffn_in_bias is None else whole.ffn_in_bias[:, neurons],
            ffn_out=_gather(whole.ffn_out, neurons, None if room is None else room.ffn_out),
        )

    def room(self) -> DecoderWeights:
        """Memory for any cut of this layer, touched once: fresh memory costs more than the copy itself."""
        return DecoderWeights(*(None if part is None else torch.zeros_like(part) for part in self.whole))  # type: ignore[arg-type]


def _gather(source: Tensor, rows: Tensor, room: Tensor | None) -> Tensor:
    """Rows of a tensor, in new memory or at the start of `room`."""
    if room is None:
        return source.index_select(0, rows)
    shape = (len(rows), *source.shape[1:])
    place = room.flatten()[: math.prod(shape)].view(shape)
    return torch.index_select(source, 0, rows, out=place)


@torch.no_grad()
def pack_decoder(layer: DecoderParts, anatomy: Anatomy, order: Tensor) -> PackedDecoderLayer:
    """Copy one layer's weights into packed form; `order` [neurons] lists its neurons block by block."""
    family = anatomy.family
    assert isinstance(family, DecoderFamily)
    order = order.to(anatomy.device)
    ffn_in = [part for part in (layer.ffn_gate, layer.ffn_in) if part is not None]
    qkv, qkv_bias = _by_group(_projections(layer, family, bias=False), anatomy), None
    if layer.query.bias is not None:
        qkv_bias = _by_group(_projections(layer, family, bias=True), anatomy)
    has_bias = layer.ffn_in.bias is not None
    return PackedDecoderLayer(
        whole=DecoderWeights(
            qkv=qkv,
            qkv_bias=qkv_bias,
            out=matrix(layer.attention_out)
            .T.unflatten(0, (anatomy.num_heads, -1))
            .clone(memory_format=torch.contiguous_format),
            ffn_in=torch.stack([matrix(part)[order] for part in ffn_in]).contiguous(),
            ffn_in_bias=torch.stack([_bias(part)[order] for part in ffn_in]) if has_bias else None,
            ffn_out=matrix(layer.ffn_out).T[order].contiguous(),
        ),
        block_size=anatomy.block_size,
        out_bias=_detached(layer.attention_out.bias),
        ffn_out_bias=_detached(layer.ffn_out.bias),
        attention_norm=lean_norm(layer.attention_norm, family),
        ffn_norm=lean_norm(layer.ffn_norm, family),
        query_norm=None if layer.query_norm is None else lean_norm(layer.query_norm, family),
        key_norm=None if layer.key_norm is None else lean_norm(layer.key_norm, family),
        activation=layer.activation,
        scale=float(getattr(layer.attention, "scaling", anatomy.head_dim**-0.5)),
    )


def lean_norm(module: nn.Module, family: DecoderFamily) -> LeanNorm:
    """A norm's parameters, read from transformers' module."""
    weight: Tensor = module.weight.detach()  # type: ignore[operator]
    if isinstance(module, nn.LayerNorm):
        return LeanNorm(weight, _detached(module.bias), module.eps, is_rms=False)
    eps = module.variance_epsilon if hasattr(module, "variance_epsilon") else module.eps
    return LeanNorm(weight + family.norm_offset, None, float(eps), is_rms=True)  # type: ignore[arg-type]


def _projections(layer: DecoderParts, family: DecoderFamily, bias: bool) -> list[Tensor]:
    """Query, key and value rows [rows, hidden], or their biases [rows]."""
    parts = [layer.query] if family.joined else [layer.query, layer.key, layer.value]
    tensors = [_bias(part) if bias else matrix(part).detach() for part in parts]
    return list(tensors[0].chunk(3)) if family.joined else tensors


def _by_group(parts: list[Tensor], anatomy: Anatomy) -> Tensor:
    """Rows of query, key and value [rows, ...] -> [groups, rows of a group, ...]."""
    grouped = [part.unflatten(0, (anatomy.num_heads, -1)) for part in parts]
    return torch.cat(grouped, dim=1).contiguous()


def _bias(module: nn.Module) -> Tensor:
    return module.bias.detach()  # type: ignore[operator]


def _detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()
