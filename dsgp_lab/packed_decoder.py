"""Packed weights of language models: one layer's weights unit by unit, and the copy that a mask keeps.

Query, key and value rows lie KV group by KV group, neurons in the anatomy's order, and the two output
projections are transposed, so that every unit is a few neighbouring rows. One cut serves a whole
generation, so here (unlike in `packed`) the kept rows are copied together: one product a matrix for
every token, and single neurons can be units at no cost in speed.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dsgp_lab.anatomy import Anatomy, DecoderFamily, DecoderParts, matrix


class LeanNorm(NamedTuple):
    """A layer norm, or an RMS norm where it has no bias."""

    weight: Tensor
    bias: Tensor | None
    eps: float
    is_rms: bool
    twice: Tensor
    """The weight twice over."""

    def __call__(self, rows: Tensor) -> Tensor:
        """Normalise the last axis.

        On a processor torch makes an RMS norm of eight operations. The layer norm of (x, -x), whose mean is
        0, is one, and its first half is the same.
        """
        size = self.weight.shape
        if not self.is_rms:
            return torch.layer_norm(rows, size, self.weight, self.bias, self.eps)
        if rows.device.type != "cpu":
            return torch.rms_norm(rows, size, self.weight, self.eps)
        both = torch.layer_norm(torch.cat((rows, -rows), -1), self.twice.shape, self.twice, None, self.eps)
        return both[..., : size[0]]


class DecoderWeights(NamedTuple):
    """What one layer computes with, whole or cut.

    qkv [groups * (queries + 2) * head_dim, hidden]: of each KV group its queries, its key, its value;
    out [groups * queries * head_dim, hidden]; ffn_in [neurons, hidden], of gated layers twice as many rows,
    all gates, then all ups; ffn_out [neurons, hidden]; biases, None where there is none: of qkv and ffn_in
    one a row, of the two output projections [hidden].
    """

    qkv: Tensor
    qkv_bias: Tensor | None
    out: Tensor
    out_bias: Tensor | None
    ffn_in: Tensor
    ffn_in_bias: Tensor | None
    ffn_out: Tensor
    ffn_out_bias: Tensor | None

    @property
    def num_bytes(self) -> int:
        """Size of the weights."""
        return sum(part.nbytes for part in self if part is not None)


NOWHERE: Any = DecoderWeights(*(None,) * 8)  # type: ignore[arg-type]


class Means(NamedTuple):
    """Mean inputs of a layer's output projections: contexts [groups * queries * head_dim], neurons [neurons].

    Neurons stand in the anatomy's order.
    """

    contexts: Tensor
    neurons: Tensor


class PackedDecoderLayer(NamedTuple):
    """One layer: all its weights, and what no mask touches."""

    whole: DecoderWeights
    block_size: int
    queries: int
    head_dim: int
    window: int | None
    is_gated: bool
    attention_norm: LeanNorm
    ffn_norm: LeanNorm
    query_norm: LeanNorm | None
    key_norm: LeanNorm | None
    activation: nn.Module
    scale: float

    def cut(
        self, heads: Tensor, blocks: Tensor, room: DecoderWeights | None = None, means: Means | None = None
    ) -> DecoderWeights:
        """The weights of the kept units, bool [groups] and [blocks]; copied into `room` if it is given.

        A part that is kept whole is not copied. With `means`, what is cut is replaced by its mean:
        bias += W[:, cut] @ means[cut].
        """
        cut, place = self.whole, NOWHERE if room is None else room
        heads, blocks = heads.to(cut.out.device), blocks.to(cut.out.device)
        if not bool(heads.all()):
            groups, bias = heads.nonzero()[:, 0], cut.out_bias
            context, joined = self.queries * self.head_dim, (self.queries + 2) * self.head_dim
            if means is not None:
                bias = _repaired(bias, ~heads.repeat_interleave(context), means.contexts, cut.out)
            cut = cut._replace(
                qkv=_gather(cut.qkv, groups, place.qkv, joined),
                qkv_bias=None if cut.qkv_bias is None else _gather(cut.qkv_bias, groups, None, joined),
                out=_gather(cut.out, groups, place.out, context),
                out_bias=bias,
            )
        if not bool(blocks.all()):
            kept, bias = blocks.repeat_interleave(self.block_size), cut.ffn_out_bias
            neurons = kept.nonzero()[:, 0]
            rows = torch.cat([neurons, neurons + len(kept)]) if self.is_gated else neurons
            if means is not None:
                bias = _repaired(bias, ~kept, means.neurons, cut.ffn_out)
            cut = cut._replace(
                ffn_in=_gather(cut.ffn_in, rows, place.ffn_in),
                ffn_in_bias=None if cut.ffn_in_bias is None else cut.ffn_in_bias[rows],
                ffn_out=_gather(cut.ffn_out, neurons, place.ffn_out),
                ffn_out_bias=bias,
            )
        return cut

    def room(self) -> DecoderWeights:
        """Memory for any cut of this layer, touched once: fresh memory costs more than the copy itself."""
        return DecoderWeights(*(None if part is None else torch.zeros_like(part) for part in self.whole))  # type: ignore[arg-type]


@torch.no_grad()
def pack_decoder(index: int, anatomy: Anatomy) -> PackedDecoderLayer:
    """Copy one layer's weights into packed form, neurons in the anatomy's order."""
    family, layer = anatomy.family, anatomy.layers[index]
    assert isinstance(family, DecoderFamily)
    assert isinstance(layer, DecoderParts)
    order = anatomy.order[index].to(anatomy.device)
    ffn_in = [part for part in (layer.ffn_gate, layer.ffn_in) if part is not None]
    qkv, qkv_bias = _by_group(_projections(layer, family, bias=False), anatomy), None
    if layer.query.bias is not None:
        qkv_bias = _by_group(_projections(layer, family, bias=True), anatomy)
    has_bias = layer.ffn_in.bias is not None
    return PackedDecoderLayer(
        whole=DecoderWeights(
            qkv=qkv,
            qkv_bias=qkv_bias,
            out=matrix(layer.attention_out).T.clone(memory_format=torch.contiguous_format),
            out_bias=_detached(layer.attention_out.bias),
            ffn_in=torch.cat([matrix(part)[order] for part in ffn_in]),
            ffn_in_bias=torch.cat([_bias(part)[order] for part in ffn_in]) if has_bias else None,
            ffn_out=matrix(layer.ffn_out).T[order].contiguous(),
            ffn_out_bias=_detached(layer.ffn_out.bias),
        ),
        block_size=anatomy.block_size,
        queries=anatomy.queries_per_head,
        head_dim=anatomy.head_dim,
        window=family.window(anatomy.model.config, index),
        is_gated=layer.ffn_gate is not None,
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
        return LeanNorm(weight, _detached(module.bias), module.eps, is_rms=False, twice=weight)
    eps = module.variance_epsilon if hasattr(module, "variance_epsilon") else module.eps
    weight = weight + family.norm_offset
    return LeanNorm(weight, None, float(eps), is_rms=True, twice=weight.repeat(2))  # type: ignore[arg-type]


def _projections(layer: DecoderParts, family: DecoderFamily, bias: bool) -> list[Tensor]:
    """Query, key and value rows [rows, hidden], or their biases [rows]."""
    parts = [layer.query] if family.joined else [layer.query, layer.key, layer.value]
    tensors = [_bias(part) if bias else matrix(part).detach() for part in parts]
    return list(tensors[0].chunk(3)) if family.joined else tensors


def _by_group(parts: list[Tensor], anatomy: Anatomy) -> Tensor:
    """Rows of query, key and value [rows, ...] as one matrix, KV group by KV group."""
    grouped = [part.unflatten(0, (anatomy.num_heads, -1)) for part in parts]
    return torch.cat(grouped, dim=1).flatten(0, 1).contiguous()


def _gather(source: Tensor, units: Tensor, room: Tensor | None, width: int = 1) -> Tensor:
    """Units of `width` rows each, in new memory or at the start of `room`.

    >>> _gather(torch.tensor([[1], [2], [3], [4]]), torch.tensor([1]), None, width=2).tolist()
    [[3], [4]]
    """
    by_unit = source if width == 1 else source.unflatten(0, (-1, width))
    if room is None:
        found = by_unit.index_select(0, units)
    else:
        shape = (len(units), *by_unit.shape[1:])
        place = room.flatten()[: math.prod(shape)].view(shape)
        found = torch.index_select(by_unit, 0, units, out=place)
    return found if width == 1 else found.flatten(0, 1)


def _repaired(bias: Tensor | None, cut: Tensor, means: Tensor, weight: Tensor) -> Tensor:
    """The bias [hidden] with cut rows of `weight` [rows, hidden] added, each times its mean.

    >>> weight = torch.tensor([[1.0, 2.0], [5.0, 5.0]])
    >>> _repaired(None, torch.tensor([True, False]), torch.tensor([3.0, 9.0]), weight).tolist()
    [3.0, 6.0]
    """
    shift = (means.to(weight) * cut) @ weight
    return shift if bias is None else bias + shift


def _bias(module: nn.Module) -> Tensor:
    return module.bias.detach()  # type: ignore[operator]


def _detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()
