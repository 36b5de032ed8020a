"""Packed weights: one layer's weights laid out unit by unit, and views of the runs a mask keeps.

Query, key and value rows lie head by head, neuron rows block by block, and the two output
projections are transposed, so that the units kept in a layer are a few *runs* of neighbouring rows.
A run is a view and costs no copy. (Copying the kept rows together first takes 0.78 of the dense time
at 25 tokens and half of the units; runs take 0.58.) Selections are remembered, since at these sizes a
dozen Python operations cost as much as a small product.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dsgp_lab.anatomy import Anatomy, LayerParts

Run = tuple[int, int]
"""First unit and the one after the last."""

REMEMBERED = 512
"""Selections kept by each part of a layer: at most 4 MB in the base encoder's largest part."""


def runs(kept: tuple[bool, ...]) -> tuple[Run, ...]:
    """Neighbouring kept units as half-open intervals.

    >>> runs((True, True, False, True))
    ((0, 2), (3, 4))
    >>> runs((False, False))
    ()
    """
    found, position = [], 0
    for keep, same in groupby(kept):
        length = sum(1 for _ in same)
        if keep:
            found.append((position, position + length))
        position += length
    return tuple(found)


class Piece(NamedTuple):
    """One run's weights, and where its values go among those of all kept units.

    weight [hidden, rows in] and out_weight [rows out, hidden].
    """

    weight: Tensor
    out_weight: Tensor
    place_in: slice
    place_out: slice


class PartSelection(NamedTuple):
    """What attention or the feed-forward part of a layer runs: its pieces, and their biases [rows in]."""

    pieces: tuple[Piece, ...]
    bias: Tensor


class LayerSelection(NamedTuple):
    """What one layer runs."""

    attention: PartSelection
    ffn: PartSelection


class Norm(NamedTuple):
    """A layer norm's parameters, in the order of `torch.layer_norm`."""

    shape: tuple[int, ...]
    weight: Tensor
    bias: Tensor
    eps: float


@dataclass(frozen=True, eq=False)
class PackedPart:
    """Attention or the feed-forward part of one layer, unit by unit.

    weight [units * unit_in, hidden] and bias go in; out_weight [units * unit_out, hidden] and out_bias
    come out; norm follows. A head has 3 * head_dim rows in (query, key, value) and head_dim rows out,
    a block has block_size both ways.
    """

    weight: Tensor
    bias: Tensor
    out_weight: Tensor
    out_bias: Tensor
    norm: Norm
    unit_in: int
    unit_out: int
    selections: dict[tuple[bool, ...], PartSelection] = field(default_factory=dict)

    def select(self, kept: tuple[bool, ...]) -> PartSelection:
        """The pieces of the kept units; the last few hundred answers are remembered."""
        selection = self.selections.get(kept)
        if selection is None:
            if len(self.selections) >= REMEMBERED:
                self.selections.clear()
            selection = self.selections[kept] = self._select(runs(kept))
        return selection

    def _select(self, found: tuple[Run, ...]) -> PartSelection:
        pieces, biases, units = [], [self.bias[:0]], 0
        for start, stop in found:
            rows = slice(start * self.unit_in, stop * self.unit_in)
            end = units + stop - start
            piece = Piece(
                weight=self.weight[rows].T,
                out_weight=self.out_weight[start * self.unit_out : stop * self.unit_out],
                place_in=slice(units * self.unit_in, end * self.unit_in),
                place_out=slice(units * self.unit_out, end * self.unit_out),
            )
            pieces.append(piece)
            biases.append(self.bias[rows])
            units = end
        return PartSelection(tuple(pieces), torch.cat(biases))


@dataclass(frozen=True, eq=False)
class PackedLayer:
    """One layer's packed weights and its activation function."""

    attention: PackedPart
    ffn: PackedPart
    activation: nn.Module

    def select(self, heads: tuple[bool, ...], blocks: tuple[bool, ...]) -> LayerSelection:
        """What the layer runs under one input's mask."""
        return LayerSelection(self.attention.select(heads), self.ffn.select(blocks))


@torch.no_grad()
def pack(layer: LayerParts, anatomy: Anatomy, order: Tensor) -> PackedLayer:
    """Copy one layer's weights into packed form; `order` [neurons] lists its neurons block by block."""
    shape = (anatomy.num_heads, anatomy.head_dim)
    projections = (layer.query, layer.key, layer.value)
    qkv = torch.stack([p.weight.detach().unflatten(0, shape) for p in projections], dim=1)
    qkv_bias = torch.stack([p.bias.detach().unflatten(0, shape) for p in projections], dim=1)
    order = order.to(anatomy.device)
    return PackedLayer(
        attention=PackedPart(
            weight=qkv.reshape(-1, anatomy.hidden_size).contiguous(),
            bias=qkv_bias.flatten().contiguous(),
            out_weight=layer.attention_out.weight.detach().T.contiguous(),
            out_bias=layer.attention_out.bias.detach(),
            norm=_norm(layer.attention_norm),
            unit_in=3 * anatomy.head_dim,
            unit_out=anatomy.head_dim,
        ),
        ffn=PackedPart(
            weight=layer.ffn_in.weight.detach()[order].contiguous(),
            bias=layer.ffn_in.bias.detach()[order].contiguous(),
            out_weight=layer.ffn_out.weight.detach().T[order].contiguous(),
            out_bias=layer.ffn_out.bias.detach(),
            norm=_norm(layer.ffn_norm),
            unit_in=anatomy.block_size,
            unit_out=anatomy.block_size,
        ),
        activation=layer.activation,
    )


def _norm(norm: nn.LayerNorm) -> Norm:
    return Norm(tuple(norm.normalized_shape), norm.weight.detach(), norm.bias.detach(), norm.eps)
