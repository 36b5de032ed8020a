"""Packed weights: one layer's weights laid out unit by unit, and views of the runs a mask keeps.

Query, key and value columns lie head by head, neuron columns block by block, and all matrices are stored
[in, out], so that the units kept in a layer are a few *runs* of neighbouring columns (rows, on the way out).
A run is a view and costs no copy; a mask that comes again gets a copy of its own (see `copies`).
Columns are stored in *groups* of a few units, each a matrix of its own: its rows are short, so that less is
fetched in vain. A run ends where its group ends.
The views of each possible run are made beforehand: at these sizes, making them anew for every mask costs
as much as several products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.activations import GELUActivation

from dsgp_lab.anatomy import Anatomy, LayerParts
from dsgp_lab.copies import Copies
from dsgp_lab.runs import Kept, Run, fewest_pieces, group_size, runs

STRIDE_PADDING = 16
"""Unused numbers after each row of a weight: rows a multiple of 4 KiB apart compete for the same cache lines.

Measured in float32 on one thread, together with the layout [in, out]: the dense run took 0.94 of the time
at 25 tokens and 0.90 at 128."""

WORTH_A_COPY = 1
"""Pieces that a copy must save; else its memory is better spent on another mask."""

VIEWS_BEFOREHAND = 32
"""Groups of up to this many units have all their views made beforehand (n (n + 1) / 2 of them)."""

PATTERNS = 4096
"""Patterns of kept units of a part's groups that are remembered; six units have 64."""


class Views(NamedTuple):
    """One run's weights: weight [hidden, columns], bias [columns], out_weight [rows, hidden]."""

    weight: Tensor
    bias: Tensor
    out_weight: Tensor
    columns: int
    rows: int

    @staticmethod
    def of(weight: Tensor, bias: Tensor, out_weight: Tensor) -> Views:
        """With their sizes, which are asked for in every run."""
        return Views(weight, bias, out_weight, weight.shape[1], len(out_weight))


class PartSelection(NamedTuple):
    """What attention or the feed-forward part of a layer runs, piece by piece."""

    pieces: tuple[Views, ...]

    @property
    def columns(self) -> list[int]:
        """How many columns each piece has."""
        return [piece.columns for piece in self.pieces]

    @property
    def rows(self) -> list[int]:
        """How many rows each piece has on the way out."""
        return [piece.rows for piece in self.pieces]


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

    weights, one of each group [hidden, group * unit_in], and bias [units * unit_in] go in; out_weight
    [units * unit_out, hidden] and out_bias come out; norm follows. A head has 3 * head_dim columns in (query,
    key, value) and head_dim rows out, a block has block_size both ways. `copies` is shared by all parts of a
    model.
    """

    weights: tuple[Tensor, ...]
    bias: Tensor
    out_weight: Tensor
    out_bias: Tensor
    norm: Norm
    unit_in: int
    unit_out: int
    group: int
    copies: Copies[PartSelection] | None = None
    views: dict[Run, Views] = field(default_factory=dict)
    patterns: dict[tuple[int, Kept], tuple[Views, ...]] = field(default_factory=dict)
    fewest: list[int] = field(default_factory=list)
    """Pieces of a copy, by its number of units."""

    def __post_init__(self) -> None:
        """Make the views of all runs, unless they are many."""
        units = len(self.out_weight) // self.unit_out
        self.fewest.extend(fewest_pieces(number, self.unit_in) for number in range(units + 1))
        if self.group <= VIEWS_BEFOREHAND:
            for first in range(0, units, self.group):
                for run in combinations(range(first, min(first + self.group, units) + 1), 2):
                    self.run(run)

    @staticmethod
    def of(weight: Tensor, bias: Tensor, out_weight: Tensor, **others: Any) -> PackedPart:
        """From the columns [hidden, units * unit_in] of all units."""
        unit_in = others["unit_in"]
        group = group_size(weight.shape[1] // unit_in, unit_in)
        weights = tuple(strided(columns) for columns in weight.split(group * unit_in, dim=1))
        return PackedPart(weights, bias.contiguous(), out_weight.contiguous(), group=group, **others)

    def select(self, kept: Kept) -> PartSelection:
        """The pieces of the kept units: their runs, or where the cache has it, a copy of them all."""
        if self.copies is None:
            return self._views(kept)
        key = (id(self), kept)
        found = self.copies.find(key)
        if found is not None:
            return found
        views = self._views(kept)
        if len(views.pieces) - self.fewest[sum(kept)] >= WORTH_A_COPY:
            found = self.copies.get(key, partial(self._copy_bytes, kept), partial(self._copy, kept))
        return found or views

    def cut(self, kept: Kept) -> PartSelection:
        """The kept units' weights copied together, for a mask that stays."""
        return self._copy(kept) if any(kept) else self._views(kept)

    def run(self, run: Run) -> Views:
        """The weights of one run of units of one group."""
        views = self.views.get(run)
        if views is None:
            views = self.views[run] = self._view(*run)
        return views

    def runs(self, kept: Kept) -> tuple[Run, ...]:
        """The kept units as runs of which each lies in one group."""
        return runs(kept, self.group)

    def _views(self, kept: Kept) -> PartSelection:
        """The runs of the kept units, looked up group by group: a new mask has no new patterns in a group."""
        pieces: tuple[Views, ...] = ()
        for first in range(0, len(kept), self.group):
            pattern = (first, kept[first : first + self.group])
            found = self.patterns.get(pattern)
            pieces += self._pattern(*pattern) if found is None else found
        return PartSelection(pieces)

    def _pattern(self, first: int, kept: Kept) -> tuple[Views, ...]:
        """The runs of one group's kept units."""
        found = tuple([self.run((first + start, first + stop)) for start, stop in runs(kept)])
        if len(self.patterns) < PATTERNS:
            self.patterns[first, kept] = found
        return found

    def _view(self, start: int, stop: int) -> Views:
        number, within = divmod(start, self.group)
        columns = slice(within * self.unit_in, (within + stop - start) * self.unit_in)
        bias = self.bias[start * self.unit_in : stop * self.unit_in]
        out_weight = self.out_weight[start * self.unit_out : stop * self.unit_out]
        return Views.of(self.weights[number][:, columns], bias, out_weight)

    def _copy(self, kept: Kept) -> PartSelection:
        """Copies of the kept units' weights, in groups of their own."""
        units = [self.run((unit, unit + 1)) for unit, keep in enumerate(kept) if keep]
        group = group_size(len(units), self.unit_in)
        return PartSelection(
            tuple(_joined(units[first : first + group]) for first in range(0, len(units), group))
        )

    def _copy_bytes(self, kept: Kept) -> int:
        units = sum(kept)
        numbers = units * (self.unit_in + self.unit_out) + self.fewest[units] * STRIDE_PADDING
        return numbers * self.out_weight.shape[1] * self.out_weight.element_size()


@dataclass(frozen=True, eq=False)
class PackedLayer:
    """One layer's packed weights and its activation function."""

    attention: PackedPart
    ffn: PackedPart
    activation: Callable[[Tensor], Tensor]

    def select(self, heads: Kept, blocks: Kept) -> LayerSelection:
        """What the layer runs under one input's mask."""
        return LayerSelection(self.attention.select(heads), self.ffn.select(blocks))

    def cut(self, heads: Kept, blocks: Kept) -> LayerSelection:
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
        attention=PackedPart.of(
            weight=qkv.reshape(-1, anatomy.hidden_size).T,
            bias=qkv_bias.flatten(),
            out_weight=layer.attention_out.weight.detach().T,
            out_bias=layer.attention_out.bias.detach(),
            norm=_norm(layer.attention_norm),
            unit_in=3 * anatomy.head_dim,
            unit_out=anatomy.head_dim,
            copies=copies,
        ),
        ffn=PackedPart.of(
            weight=layer.ffn_in.weight.detach()[order].T,
            bias=layer.ffn_in.bias.detach()[order],
            out_weight=layer.ffn_out.weight.detach().T[order],
            out_bias=layer.ffn_out.bias.detach(),
            norm=_norm(layer.ffn_norm),
            unit_in=anatomy.block_size,
            unit_out=anatomy.block_size,
            copies=copies,
        ),
        activation=_function(layer.activation),
    )


def _joined(units: list[Views]) -> Views:
    return Views.of(
        weight=strided(torch.cat([unit.weight for unit in units], dim=1)),
        bias=torch.cat([unit.bias for unit in units]),
        out_weight=torch.cat([unit.out_weight for unit in units]),
    )


def _function(activation: nn.Module) -> Callable[[Tensor], Tensor]:
    """What a module that only hands over to a function computes: calling it takes longer at batch 1."""
    return activation.act if isinstance(activation, GELUActivation) else activation


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
