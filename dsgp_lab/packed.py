"""Packed weights: one layer's weights laid out unit by unit, and views of the runs a mask keeps.

Query, key and value rows lie head by head, neuron rows block by block, and the two output
projections are transposed, so that the units kept in a layer are a few *runs* of neighbouring rows.
A run is a view and costs no copy; copying the kept rows together first was slower at every length tried.
The views of each possible run are made beforehand: at these sizes, making them anew for every mask costs
as much as several products.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations, groupby
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dsgp_lab.anatomy import Anatomy, LayerParts

Run = tuple[int, int]
"""First unit and the one after the last."""

VIEWS_BEFOREHAND = 32
"""Parts of up to this many units have all their views made beforehand (n (n + 1) / 2 of them)."""


@lru_cache(maxsize=4096)
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


class Views(NamedTuple):
    """One run's weights: weight [hidden, rows in], bias [rows in], out_weight [rows out, hidden]."""

    weight: Tensor
    bias: Tensor
    out_weight: Tensor


class Piece(NamedTuple):
    """One run's weights, and where its values go among those of all kept units."""

    views: Views
    place_in: slice
    place_out: slice


class PartSelection(NamedTuple):
    """What attention or the feed-forward part of a layer runs: its pieces, and their rows in together."""

    pieces: tuple[Piece, ...]
    rows_in: int


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
    views: dict[Run, Views] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the views of all runs, unless they are many."""
        units = len(self.out_weight) // self.unit_out
        if units <= VIEWS_BEFOREHAND:
            for run in combinations(range(units + 1), 2):
                self.views[run] = self._view(*run)

    def select(self, kept: tuple[bool, ...]) -> PartSelection:
        """The pieces of the kept units."""
        pieces, units = [], 0
        for run in runs(kept):
            views = self.views.get(run)
            if views is None:
                views = self.views[run] = self._view(*run)
            end = units + run[1] - run[0]
            place_in = slice(units * self.unit_in, end * self.unit_in)
            pieces.append(Piece(views, place_in, slice(units * self.unit_out, end * self.unit_out)))
            units = end
        return PartSelection(tuple(pieces), units * self.unit_in)

    def _view(self, start: int, stop: int) -> Views:
        rows = slice(start * self.unit_in, stop * self.unit_in)
        out_weight = self.out_weight[start * self.unit_out : stop * self.unit_out]
        return Views(self.weight[rows].T, self.bias[rows], out_weight)


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
