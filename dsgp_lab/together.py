"""A batch in which every input has its own mask, run layer by layer as one.

A unit that most inputs keep runs for the whole batch, and what it gives is set to zero where it is not kept;
a block that fewer keep runs on their gathered rows. Only real tokens are computed. So the products stay
large, and the operations near those of the masks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from dsgp_lab.anatomy import Inputs
from dsgp_lab.mask import Mask
from dsgp_lab.packed import PackedLayer, PackedPart
from dsgp_lab.runs import Kept, Run

if TYPE_CHECKING:
    from dsgp_lab.subnetwork import SubNetwork

GATHER_SAVES, GATHER_COSTS = 64, 0.15
"""A block runs on the gathered rows of the inputs that keep it if that leaves out at least this many rows,
plus this share of the gathered ones: copying rows costs time too. Measured with 2 to 32 inputs."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """Where a batch's tokens are: the real ones, and every input's first, which the classifier reads.

    places [tokens] in the flattened padded batch [batch * width], owners [tokens] the input of each, real
    [tokens] whether it is no padding; starts [batch] each input's first row, lengths [batch] its rows; mask
    bool [batch, 1, 1, width] is None without padding.
    """

    batch: int
    width: int
    places: Tensor
    owners: Tensor
    real: Tensor
    starts: Tensor
    lengths: Tensor
    mask: Tensor | None

    @staticmethod
    def of(real: Tensor) -> Tokens:
        """From the real tokens of a batch, bool [batch, width].

        >>> tokens = Tokens.of(torch.tensor([[True, True], [True, False]]))
        >>> tokens.places.tolist(), tokens.owners.tolist(), tokens.starts.tolist()
        ([0, 1, 2], [0, 0, 1], [0, 2])
        """
        batch, width = real.shape
        computed = real.clone()
        computed[:, 0] = True
        lengths = computed.sum(1)
        owners = torch.arange(batch, device=real.device).repeat_interleave(lengths)
        places = computed.flatten().nonzero().flatten()
        mask = None if bool(real.all()) else real[:, None, None, :]
        starts = lengths.cumsum(0) - lengths
        return Tokens(batch, width, places, owners, real.flatten()[places], starts, lengths, mask)

    def gather(self, padded: Tensor) -> Tensor:
        """The rows [tokens, ...] of a padded batch [batch * width, ...]."""
        return padded if self.mask is None else padded[self.places]

    def scatter(self, rows: Tensor) -> Tensor:
        """A padded batch [batch * width, columns] from rows [tokens, columns], 0 elsewhere."""
        if self.mask is None:
            return rows
        padded = rows.new_zeros(self.batch * self.width, rows.shape[1])
        return padded.index_copy_(0, self.places, rows)


def gathers(count: float, total: int) -> bool:
    """Whether a block that `count` of `total` rows keep runs on those rows alone.

    >>> gathers(100, 800), gathers(700, 800), gathers(0, 800)
    (True, False, False)
    """
    return count > 0 and total - count >= GATHER_SAVES + GATHER_COSTS * count


DecideBatch = Callable[[int, Tensor, Tokens], tuple[Tensor, Tensor]]
"""(layer, its input [tokens, hidden], the tokens) -> kept heads [batch, heads] and blocks [batch, blocks]."""


def planned(mask: Mask) -> DecideBatch:
    """A plan that is complete at the start."""
    return lambda layer, rows, tokens: (mask.heads[:, layer], mask.blocks[:, layer])


@dataclass(frozen=True, eq=False)
class Split:
    """A part's units: those that run for all rows, those that run on some; `union` both, `place` their order.

    gates [tokens, units of the union] is 0 where a unit that runs for all rows is not kept, or None.
    """

    shared: tuple[Run, ...]
    some: tuple[tuple[int, Tensor], ...]
    union: Kept
    place: dict[int, int]
    gates: Tensor | None

    @staticmethod
    def of(part: PackedPart, kept: Tensor, tokens: Tokens, gather: bool) -> Split:
        """From a part's kept units [batch, units]; without `gather`, all of them run for all rows."""
        rows = (tokens.lengths.to(torch.float64) @ kept.to(torch.float64)).tolist()
        total = len(tokens.owners)
        union = tuple([count > 0 for count in rows])
        gathered = [gather and gathers(count, total) for count in rows]
        some = tuple(
            (unit, kept[tokens.owners, unit].nonzero().flatten())
            for unit, is_gathered in enumerate(gathered)
            if is_gathered
        )
        shared = part.runs(tuple([is_kept and not few for is_kept, few in zip(union, gathered, strict=True)]))
        columns = [unit for unit, is_kept in enumerate(union) if is_kept]
        mixed = any(0 < count < total and not few for count, few in zip(rows, gathered, strict=True))
        gates = kept[tokens.owners][:, columns].to(torch.float32) if mixed else None
        return Split(shared, some, union, {unit: i for i, unit in enumerate(columns)}, gates)


@torch.inference_mode()
def run_together(subnetwork: SubNetwork, inputs: Inputs, decide: DecideBatch, gather: bool = True) -> Tensor:
    """Logits [batch, labels] of a batch, each input under its own mask, layer by layer as one.

    Without `gather`, every unit that one of the inputs keeps runs for all of them.
    """
    family, model = subnetwork.anatomy.family, subnetwork.anatomy.model
    inputs = subnetwork.checked(inputs)[0]
    tokens = Tokens.of(inputs["attention_mask"].bool())
    hidden = family.embed(model.base_model, inputs)
    rows = tokens.gather(hidden.flatten(0, 1))
    for layer, packed in enumerate(subnetwork.packed):
        heads, blocks = decide(layer, rows, tokens)
        rows = _attention(packed, rows, heads, tokens, subnetwork.anatomy.head_dim)
        rows = _ffn(packed, rows, blocks, tokens, gather)
    return family.classify(model, tokens.scatter(rows).view(hidden.shape))


def _attention(packed: PackedLayer, rows: Tensor, kept: Tensor, tokens: Tokens, head_dim: int) -> Tensor:
    part, split = packed.attention, Split.of(packed.attention, kept, tokens, gather=False)
    total = rows + part.out_bias
    if split.place:
        projected = rows.new_empty(len(rows), len(split.place) * part.unit_in)
        for run in split.shared:
            _project(part, rows, run, projected, split)
        by_head = tokens.scatter(projected).view(tokens.batch, tokens.width, -1, 3, head_dim)
        query, key, value = by_head.permute(3, 0, 2, 1, 4).unbind(0)
        context = scaled_dot_product_attention(query, key, value, attn_mask=tokens.mask)
        context = tokens.gather(context.transpose(1, 2).reshape(tokens.batch * tokens.width, -1))
        if split.gates is not None:
            context.view(len(rows), -1, head_dim).mul_(split.gates.to(context.dtype)[:, :, None])
        _accumulate(part, context, total, split)
    return torch.layer_norm(total, *part.norm)


def _ffn(packed: PackedLayer, rows: Tensor, kept: Tensor, tokens: Tokens, gather: bool) -> Tensor:
    part, split = packed.ffn, Split.of(packed.ffn, kept, tokens, gather)
    total = rows + part.out_bias
    for run in split.shared:
        views = part.run(run)
        active = packed.activation(torch.addmm(views.bias, rows, views.weight))
        if split.gates is not None:
            first = split.place[run[0]]
            gates = split.gates[:, first : first + run[1] - run[0]].to(active.dtype)
            active.view(len(rows), -1, part.unit_in).mul_(gates[:, :, None])
        total.addmm_(active, views.out_weight)
    for unit, some in split.some:
        views = part.run((unit, unit + 1))
        active = packed.activation(torch.addmm(views.bias, rows[some], views.weight))
        total.index_add_(0, some, active @ views.out_weight)
    return torch.layer_norm(total, *part.norm)


def _project(part: PackedPart, rows: Tensor, run: Run, projected: Tensor, split: Split) -> None:
    views, first = part.run(run), split.place[run[0]] * part.unit_in
    width = (run[1] - run[0]) * part.unit_in
    torch.addmm(views.bias, rows, views.weight, out=projected[:, first : first + width])


def _accumulate(part: PackedPart, context: Tensor, total: Tensor, split: Split) -> None:
    for run in part.runs(split.union):
        first = split.place[run[0]] * part.unit_out
        total.addmm_(context[:, first : first + (run[1] - run[0]) * part.unit_out], part.run(run).out_weight)
