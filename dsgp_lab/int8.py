"""Int8Network: a cut run whose products are of whole numbers, everything else in float32.

Every weight column has a scale of its own, found once; every row that is multiplied with them gets one
as the model runs (symmetric, by the largest absolute value). A quarter of the bytes is read, and a run of
units is a view, as in `packed`. (torch's own int8 layers pack a weight as a whole: no unit can be left out.)
Limits: logits differ from float32's; no copies for masks that come again; CPU only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor

from dsgp_lab.anatomy import Anatomy, Inputs
from dsgp_lab.execution import Execution
from dsgp_lab.mask import Mask
from dsgp_lab.packed import Norm, PackedLayer, PackedPart, PartSelection, Views
from dsgp_lab.runs import Kept, Run, runs
from dsgp_lab.subnetwork import SubNetwork, SubNetworkOutput

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Int8Views(NamedTuple):
    """One run's weights: weight [hidden, columns], out_weight [rows, hidden] int8; the others float32."""

    weight: Tensor
    scale: Tensor
    bias: Tensor
    out_weight: Tensor
    out_scale: Tensor
    columns: int
    rows: int


@dataclass(frozen=True, eq=False)
class Int8Part:
    """A `PackedPart` in int8, with the same runs."""

    weight: Tensor
    scale: Tensor
    bias: Tensor
    out_weight: Tensor
    out_scale: Tensor
    out_bias: Tensor
    norm: Norm
    unit_in: int
    unit_out: int
    views: dict[Run, Int8Views] = field(default_factory=dict)

    @staticmethod
    def of(part: PackedPart) -> Int8Part:
        """Quantise a part's weights."""
        weight, scale = quantised(torch.cat(part.weights, dim=1), dim=0)
        out_weight, out_scale = quantised(part.out_weight, dim=0)
        sizes = (part.out_bias, part.norm, part.unit_in, part.unit_out)
        return Int8Part(weight, scale[0], part.bias, out_weight, out_scale[0], *sizes)

    def select(self, kept: Kept) -> PartSelection:
        """The runs of the kept units."""
        return PartSelection(cast(tuple[Views, ...], tuple([self.run(run) for run in runs(kept)])))

    def run(self, run: Run) -> Int8Views:
        """The weights of one run of units."""
        views = self.views.get(run)
        if views is None:
            columns = slice(run[0] * self.unit_in, run[1] * self.unit_in)
            rows = slice(run[0] * self.unit_out, run[1] * self.unit_out)
            views = self.views[run] = Int8Views(
                self.weight[:, columns],
                self.scale[columns],
                self.bias[columns],
                self.out_weight[rows],
                self.out_scale,
                columns.stop - columns.start,
                rows.stop - rows.start,
            )
        return views

    cut = select


class Int8Network(SubNetwork):
    """A `SubNetwork` with int8 weights; batches of different masks run in groups of equal ones.

    >>> sub = Int8Network(lab.model)                 # doctest: +SKIP
    >>> sub.run(inputs, Planner(router, 0.6))        # doctest: +SKIP
    """

    def __init__(self, model: PreTrainedModel | Anatomy) -> None:
        super().__init__(Anatomy.of(model))
        self.packed = tuple([_in_int8(each) for each in self.packed])
        self._whole = self.select(Mask.full(self.anatomy))

    def __call__(self, inputs: Inputs, mask: Mask, execution: Execution = "auto") -> SubNetworkOutput:
        """As `SubNetwork`, but in groups wherever that would run several masks as one."""
        return super().__call__(
            inputs, mask, "groups" if execution in ("auto", "together", "union") else execution
        )

    def _project(self, rows: Tensor, kept: PartSelection) -> Tensor:
        pieces = cast(tuple[Int8Views, ...], kept.pieces)
        whole, scale = quantised(rows, dim=1)
        found = []
        for piece in pieces:
            product = torch._int_mm(whole, piece.weight) * scale
            found.append(torch.addcmul(piece.bias, product, piece.scale))
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    def _add(self, total: Tensor, values: Tensor, kept: PartSelection) -> None:
        pieces = cast(tuple[Int8Views, ...], kept.pieces)
        whole, scale = quantised(values, dim=1)
        for piece, part in zip(pieces, whole.split_with_sizes(kept.rows, 1), strict=True):
            total.addcmul_(torch._int_mm(part, piece.out_weight) * scale, piece.out_scale)

    def _feed(self, packed: PackedLayer, rows: Tensor, total: Tensor, kept: PartSelection) -> None:
        self._add(total, packed.activation(self._project(rows, kept)), kept)


def _in_int8(layer: PackedLayer) -> PackedLayer:
    """The layer with its weights quantised; the base class asks a part only for what `Int8Part` has too."""
    attention, ffn = (cast(PackedPart, Int8Part.of(part)) for part in (layer.attention, layer.ffn))
    return PackedLayer(attention, ffn, layer.activation)


def quantised(values: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Whole numbers from -127 to 127, int8, and the scale by which they are to be multiplied, along an axis.

    >>> whole, scale = quantised(torch.tensor([[1.0, -0.5], [0.0, 0.0]]), dim=1)
    >>> whole.tolist(), (whole * scale).tolist()[0][0]
    ([[127, -64], [0, 0]], 1.0)
    """
    scale = values.abs().amax(dim, keepdim=True).clamp_(min=1e-12).div_(127)
    return (values / scale).round_().to(torch.int8), scale
