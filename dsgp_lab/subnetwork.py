"""SubNetwork: the model cut to a mask, physically smaller, so that a pruned run takes less time.

The units a mask keeps are run as a few products on views of the packed weights (see `packed`), or as one on a
copy where the mask has come before.
The dense run through the same code, with all units in one run, is the lean baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from dsgp_lab.anatomy import Anatomy, DecoderFamily, Inputs
from dsgp_lab.copies import Copies
from dsgp_lab.cost_table import CostTable
from dsgp_lab.errors import LabError
from dsgp_lab.execution import Execution, choose, find_table
from dsgp_lab.mask import Mask
from dsgp_lab.packed import LayerSelection, PackedLayer, PartSelection, pack
from dsgp_lab.runs import Kept
from dsgp_lab.together import Tokens, planned, run_together

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from dsgp_lab.anatomy import LayerParts


COPIES_SHARE = 0.65
"""Bytes that copies of kept weights may take, as a multiple of the layers' own: enough for nearly all masks
that a router makes again under one budget."""

FEW_PIECES = 2
"""Pieces of a feed-forward part that run one after the other; measured at 25 and 128 tokens."""

_VERSION = attrgetter("_version")

Decide = Callable[[int, Tensor], tuple[Kept, Kept] | LayerSelection]
"""A plan made on the way: (layer, its input [tokens, hidden]) -> which heads and which blocks of it run, or
their weights as `PackedLayer.select` gives them."""


@dataclass(frozen=True, eq=False)
class SubNetworkOutput:
    """logits [batch, labels] in the order of the inputs; groups: how many different masks there were.

    execution: how they were run; one mask for all is one group.
    """

    logits: Tensor
    groups: int
    execution: Execution = "groups"


class SubNetwork:
    """Runs a model cut to a mask, at reduced cost; the model itself is left as it is.

    >>> sub = SubNetwork(model)                      # doctest: +SKIP
    >>> sub(inputs, mask).logits                     # doctest: +SKIP

    The logits equal those of the gated run within 1e-5 in float32. Weights are a copy made here:
    if the model is trained on, make a new SubNetwork (an outdated one raises LabError).
    """

    def __init__(self, model: PreTrainedModel | Anatomy) -> None:
        self.anatomy = Anatomy.of(model)
        if isinstance(self.anatomy.family, DecoderFamily):
            raise LabError(
                got=f"a {self.anatomy.family.name} model, a language model",
                allowed="encoders",
                hint="use DecoderSubNetwork(model) of dsgp_lab.decoder, or a LanguageLab",
            )
        _refuse_training(self.anatomy)
        layers = zip(self.anatomy.layers, self.anatomy.order, strict=True)
        self.copies: Copies[PartSelection] = Copies(int(COPIES_SHARE * _packed_bytes(self.anatomy)))
        self.packed = tuple(pack(layer, self.anatomy, order, self.copies) for layer, order in layers)
        self._watched = [weight for layer in self.anatomy.layers for weight in _weights(layer)]
        self._versions = _versions(self._watched)
        self._tables: dict[int, CostTable | None] = {}
        self._whole = self.select(Mask.full(self.anatomy))

    def __call__(self, inputs: Inputs, mask: Mask, execution: Execution = "auto") -> SubNetworkOutput:
        """Run a batch, each input cut to its own mask.

        `execution` is how: "together" layer by layer as one (see `together`), "union" the same with each
        unit that an input keeps run for all, "groups" each group of equal masks as one, "each" every input
        alone; "auto" what `cost_table` predicts to be fastest.
        """
        if execution not in get_args(Execution):
            allowed = ", ".join(get_args(Execution))
            raise LabError(got=f"execution={execution!r}", allowed=allowed, hint="leave it out")
        batch = len(inputs["input_ids"])
        mask.check_fits(self.anatomy, batch)
        groups = [(mask, [0])] if len(mask) == 1 else mask.groups()
        if len(groups) == 1 and execution != "each":
            return SubNetworkOutput(self.run(inputs, self.select(groups[0][0])), groups=1)
        if execution == "auto":
            execution = choose(self.cost_table, mask, groups, check_tokens(inputs).sum(1))
        if execution in ("together", "union"):
            logits = run_together(self, inputs, planned(mask), gather=execution == "together")
            return SubNetworkOutput(logits, len(groups), execution)
        if execution == "each":
            groups = [(mask[row if len(mask) > 1 else 0], [row]) for row in range(batch)]
        parts = [self.run(_rows(inputs, rows), self.select(shared)) for shared, rows in groups]
        order = torch.tensor([row for _, rows in groups for row in rows], device=parts[0].device)
        return SubNetworkOutput(torch.cat(parts)[order.argsort()], len(groups), execution)

    @property
    def cost_table(self) -> CostTable | None:
        """The machine's cost table for the threads that torch uses now, if there is one; looked for once."""
        threads = torch.get_num_threads()
        if threads not in self._tables:
            self._tables[threads] = find_table(self)
        return self._tables[threads]

    def dense(self, inputs: Inputs) -> Tensor:
        """Logits of the whole model through the lean path [batch, labels]."""
        return self.run(inputs, self._whole)

    def select(self, mask: Mask, stays: bool = False) -> tuple[LayerSelection, ...]:
        """The weights that each layer runs under the mask of a single input.

        With `stays`, for a static mask, they are copied together at once. LabError for more than one mask, or
        for one of another shape.
        """
        mask.check_fits(self.anatomy)
        if len(mask) != 1:
            raise LabError(
                got=f"{len(mask)} masks",
                allowed="the mask of one input",
                hint="use mask[i], or SubNetwork(...)(inputs, mask), which groups a batch by mask",
            )
        kept = zip(self.packed, mask.heads[0].tolist(), mask.blocks[0].tolist(), strict=True)
        pairs = [(packed.cut if stays else packed.select, tuple(h), tuple(b)) for packed, h, b in kept]
        return tuple(choose(heads, blocks) for choose, heads, blocks in pairs)

    @torch.inference_mode()
    def run(self, inputs: Inputs, plan: Sequence[LayerSelection] | Decide) -> Tensor:
        """Logits [batch, labels] of inputs that all run under one plan.

        The plan is complete at the start (`select`) or made on the way, layer by layer, for a single input.
        LabError for a plan made on the way and several inputs, and where `checked` raises one.
        """
        inputs, attention_mask = self.checked(inputs)
        family, model = self.anatomy.family, self.anatomy.model
        hidden = family.embed(model.base_model, inputs)
        batch, tokens, width = hidden.shape
        if batch > 1 and callable(plan):
            raise LabError(
                got=f"{batch} inputs for a plan that is made layer by layer",
                allowed="a single input",
                hint="run the inputs one by one, or use DynamicPruner",
            )
        real = None if attention_mask is None else Tokens.of(inputs["attention_mask"].bool())
        rows = hidden.reshape(batch * tokens, width)
        rows = rows if real is None else real.gather(rows)
        for layer, packed in enumerate(self.packed):
            decided = plan(layer, rows) if callable(plan) else plan[layer]
            kept = decided if isinstance(decided, LayerSelection) else packed.select(*decided)
            rows = self._attention(packed, rows, kept.attention, batch, real)
            rows = self._ffn(packed, rows, kept.ffn)
        rows = rows if real is None else real.scatter(rows)
        return family.classify(model, rows.view(batch, tokens, width))

    def checked(self, inputs: Inputs) -> tuple[Inputs, Tensor | None]:
        """Inputs without padding columns, and their mask [batch, tokens]; None where nothing is padded.

        LabError for a model in training mode, or one whose weights changed after this was made.
        """
        _refuse_training(self.anatomy)
        if _versions(self._watched) != self._versions:
            raise LabError(
                got="a model whose weights changed after this SubNetwork was made",
                allowed="the weights it was made from",
                hint="make a new SubNetwork (or DynamicPruner, or Lab) after training",
            )
        return _trim(inputs)

    def _attention(
        self, packed: PackedLayer, rows: Tensor, kept: PartSelection, batch: int, real: Tokens | None
    ) -> Tensor:
        """Rows [real tokens, hidden] through attention, residual and norm; real is None without padding.

        With no head left, only the output bias and the residual remain.
        """
        total = rows + packed.attention.out_bias
        if kept.pieces:
            projected = self._project(rows, kept)
            padded = projected if real is None else real.scatter(projected)
            query, key, value = _by_head(padded, batch, self.anatomy.head_dim)
            mask = None if real is None else real.mask
            context = scaled_dot_product_attention(query, key, value, attn_mask=mask)
            context = context.transpose(1, 2).reshape(len(padded), -1)
            context = context if real is None else real.gather(context)
            self._add(total, context, kept)
        return torch.layer_norm(total, *packed.attention.norm)

    def _ffn(self, packed: PackedLayer, rows: Tensor, kept: PartSelection) -> Tensor:
        """Rows [real tokens, hidden] through the feed-forward part, residual and norm."""
        total = rows + packed.ffn.out_bias
        if kept.pieces:
            self._feed(packed, rows, total, kept)
        return torch.layer_norm(total, *packed.ffn.norm)

    def _feed(self, packed: PackedLayer, rows: Tensor, total: Tensor, kept: PartSelection) -> None:
        """Add what the kept blocks give.

        A few pieces run one after the other, so that what each gives is used while it is in the cache; for
        many small ones the activation is called once.
        """
        if len(kept.pieces) > FEW_PIECES:
            return self._add(total, packed.activation(self._project(rows, kept)), kept)
        for piece in kept.pieces:
            active = packed.activation(torch.addmm(piece.bias, rows, piece.weight))
            total.addmm_(active, piece.out_weight)

    def _project(self, rows: Tensor, kept: PartSelection) -> Tensor:
        """The kept units' values, side by side [rows, columns]: one product for each piece."""
        if len(kept.pieces) == 1:
            return torch.addmm(kept.pieces[0].bias, rows, kept.pieces[0].weight)
        columns = kept.columns
        projected = rows.new_empty(len(rows), sum(columns))
        for piece, part in zip(kept.pieces, projected.split_with_sizes(columns, 1), strict=True):
            torch.addmm(piece.bias, rows, piece.weight, out=part)
        return projected

    def _add(self, total: Tensor, values: Tensor, kept: PartSelection) -> None:
        """Add the kept units' values, side by side, through their way out: one product for each piece."""
        parts = (values,) if len(kept.pieces) == 1 else values.split_with_sizes(kept.rows, 1)
        for piece, part in zip(kept.pieces, parts, strict=True):
            total.addmm_(part, piece.out_weight)


def _refuse_training(anatomy: Anatomy) -> None:
    if anatomy.model.training:
        raise LabError(
            got="a model in training mode, whose dropout makes every run different",
            allowed="a model in evaluation mode",
            hint="call model.eval() first",
        )


def _by_head(projected: Tensor, batch: int, head_dim: int) -> tuple[Tensor, ...]:
    """Query, key and value, each [batch, heads, tokens, head_dim], views of [batch * tokens, columns]."""
    rows, columns = projected.shape
    tokens, unit = rows // batch, 3 * head_dim
    size = (3, batch, columns // unit, tokens, head_dim)
    return projected.as_strided(size, (head_dim, tokens * columns, unit, columns, 1)).unbind(0)


def _versions(weights: list[Tensor]) -> list[int]:
    """Where weights lie and how often they were written to."""
    return [*map(Tensor.data_ptr, weights), *map(_VERSION, weights)]


def _weights(layer: LayerParts) -> list[Tensor]:
    linears = (layer.query, layer.key, layer.value, layer.attention_out, layer.ffn_in, layer.ffn_out)
    return [tensor for linear in linears for tensor in (linear.weight, linear.bias)]


def _packed_bytes(anatomy: Anatomy) -> int:
    """Bytes of all layers' weights."""
    return sum(tensor.nbytes for layer in anatomy.layers for tensor in _weights(layer))


def _rows(inputs: Inputs, rows: list[int]) -> dict[str, Tensor]:
    """Some inputs of a batch."""
    return {name: values[rows] for name, values in inputs.items()}


def check_tokens(inputs: Inputs) -> Tensor:
    """Which columns are tokens, bool [batch, tokens]; LabError where a row has none."""
    given = inputs.get("attention_mask")
    if given is None or not given.numel() or not bool(given.any(1).all()):
        raise LabError(
            got="inputs without attention_mask" if given is None else "an input without a single real token",
            allowed="input_ids and attention_mask [batch, tokens] with a real token in every row",
            hint="make inputs with lab.encode([text]) or the model's tokenizer",
        )
    return given.bool()


def _trim(inputs: Inputs) -> tuple[Inputs, Tensor | None]:
    """Inputs without columns that are padding for all, and the mask of what padding is left.

    The mask is bool [batch, 1, 1, tokens], or None where every token is real, which is faster.
    Only columns after the last real token go: positions are counted from the left.
    """
    given = inputs.get("attention_mask")
    if given is not None and given.numel() and all(given.flatten().tolist()):
        return inputs, None
    real = check_tokens(inputs)
    last = int(real.any(0).nonzero().max()) + 1
    trimmed = {name: values[:, :last] for name, values in inputs.items()}
    real = real[:, :last]
    return trimmed, None if bool(real.all()) else real[:, None, None, :]
