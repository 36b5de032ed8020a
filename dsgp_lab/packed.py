"""Packed weights: one layer's weights laid out unit by unit, and views of the runs a mask keeps.

Query, key and value columns lie head by head, neuron columns block by block, and all matrices are stored
[in, out], so that the units kept in a layer are a few *runs* of neighbouring columns (rows, on the way out).
A run is a view and costs no copy; a mask that comes again gets a copy of its own (see `copies`).
The views of each possible run are made beforehand: at these sizes, making them anew for every mask costs
as much as several products.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import combinations, groupby
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dsgp_lab.anatomy import Anatomy, LayerParts
from dsgp_lab.copies import Copies

Run = tuple[int, int]
"""First unit and the one after the last."""

STRIDE_PADDING = 16
"""Unused numbers after each row of a weight: rows a multiple of 4 KiB apart compete for the same cache lines.

Measured in float32 on one thread, together with the layout [in, out]: the dense run took 0.94 of the time
at 25 tokens and 0.90 at 128."""

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

    weight [hidden, units * unit_in] and bias go in; out_weight [units * unit_out, hidden] and out_bias
    come out; norm follows. A head has 3 * head_dim columns in (query, key, value) and head_dim rows out,
    a block has block_size both ways. `copies` is shared by all parts of a model.
    """

    weight: Tensor
    bias: Tensor
    out_weight: Tensor
    out_bias: Tensor
    norm: Norm
    unit_in: int
    unit_out: int
    copies: Copies[PartSelection] | None = None
    views: dict[Run, Views] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the views of all runs, unless they are many."""
        units = len(self.out_weight) // self.unit_out
        if units <= VIEWS_BEFOREHAND:
            for run in combinations(range(units + 1), 2):
                self.views[run] = self._view(*run)

    def select(self, kept: tuple[bool, ...]) -> PartSelection:
        """The pieces of the kept units: one a run, or a single one where the cache has their copy.

        A copy is faster than the view of a single run, too: its rows are read one after the other.
        """
        if self.copies is None or all(kept) or not any(kept):
            return self._views(kept)
        size, make = partial(self._copy_bytes, kept), partial(self._copy, kept)
        return self.copies.get((id(self), kept), size, make) or self._views(kept)

    def cut(self, kept: tuple[bool, ...]) -> PartSelection:
        """The kept units' weights copied together, for a mask that stays."""
        return self._copy(kept) if any(kept) else self._views(kept)

    def _views(self, kept: tuple[bool, ...]) -> PartSelection:
        pieces, units = [], 0
        for run in runs(kept):
            views = self.run(run)
            end = units + run[1] - run[0]
            place_in = slice(units * self.unit_in, end * self.unit_in)
            pieces.append(Piece(views, place_in, slice(units * self.unit_out, end * self.unit_out)))
            units = end
        return PartSelection(tuple(pieces), units * self.unit_in)

    def run(self, run: Run) -> Views:
        """The weights of one run of units."""
        views = self.views.get(run)
        if views is None:
            views = self.views[run] = self._view(*run)
        return views

    def _view(self, start: int, stop: int) -> Views:
        columns = slice(start * self.unit_in, stop * self.unit_in)
        out_weight = self.out_weight[start * self.unit_out : stop * self.unit_out]
        return Views(self.weight[:, columns], self.bias[columns], out_weight)

    def _copy(self, kept: tuple[bool, ...]) -> PartSelection:
        pieces, rows_in = self._views(kept)
        views = Views(
            weight=strided(torch.cat([piece.views.weight for piece in pieces], dim=1)),
            bias=torch.cat([piece.views.bias for piece in pieces]),
            out_weight=torch.cat([piece.views.out_weight for piece in pieces]),
        )
        whole = Piece(views, slice(0, rows_in), slice(0, len(views.out_weight)))
        return PartSelection((whole,), rows_in)

    def _copy_bytes(self, kept: tuple[bool, ...]) -> int:
        numbers = sum(kept) * (self.unit_in + self.unit_out) + STRIDE_PADDING
        return numbers * len(self.weight) * self.weight.element_size()


@dataclass(frozen=True, eq=False)
class PackedLayer:
    """One layer's packed weights and its activation function."""

    attention: PackedPart
    ffn: PackedPart
    activation: nn.Module

    def select(self, heads: tuple[bool, ...], blocks: tuple[bool, ...]) -> LayerSelection:
        """What the layer runs under one input's mask."""
        return LayerSelection(self.attention.select(heads), self.ffn.select(blocks))

    def cut(self, heads: tuple[bool, ...], blocks: tuple[bool, ...]) -> LayerSelection:
        """The same for a mask that stays: weights are copied together now."""
        return LayerSelection(self.attention.cut(heads), self.ffn.cut(blocks))


@torch.no_grad()
def pack(
    layer: LayerParts, anatomy: Anatomy, order: Tensor, copies: Copies[PartSelection] | None = None
) -> PackedLayer:
    """Copy one layer's weights into packed form; `order` [neurons] lists its neurons block by block."""
    shape = (anatomy.num_heads, anatomy.head_dim)
    projections = (layer.query, layer.key, layer.value)
    qkv = torch.stack([p.weight.detach().unflatten(0, shape) for p in projections], dim=1)
    qkv_bias = torch.stack([p.bias.detach().unflatten(0, shape) for p in projections], dim=1)
    order = order.to(anatomy.device)
    return PackedLayer(
        attention=PackedPart(
            weight=strided(qkv.reshape(-1, anatomy.hidden_size).T),
            bias=qkv_bias.flatten().contiguous(),
            out_weight=layer.attention_out.weight.detach().T.contiguous(),
            out_bias=layer.attention_out.bias.detach(),
            norm=_norm(layer.attention_norm),
            unit_in=3 * anatomy.head_dim,
            unit_out=anatomy.head_dim,
            copies=copies,
        ),
        ffn=PackedPart(
            weight=strided(layer.ffn_in.weight.detach()[order].T),
            bias=layer.ffn_in.bias.detach()[order].contiguous(),
            out_weight=layer.ffn_out.weight.detach().T[order].contiguous(),
            out_bias=layer.ffn_out.bias.detach(),
            norm=_norm(layer.ffn_norm),
            unit_in=anatomy.block_size,
            unit_out=anatomy.block_size,
            copies=copies,
        ),
        activation=layer.activation,
    )


def strided(matrix: Tensor) -> Tensor:
    """A copy of a matrix [rows, columns] whose rows lie `STRIDE_PADDING` numbers further apart.

    >>> strided(torch.ones(2, 8)).stride()
    (24, 1)
    """
    rows, columns = matrix.shape
    copy = matrix.new_empty(rows, columns + STRIDE_PADDING)[:, :columns]
    return copy.copy_(matrix)


def _norm(norm: nn.LayerNorm) -> Norm:
    return Norm(tuple(norm.normalized_shape), norm.weight.detach(), norm.bias.detach(), norm.eps)
