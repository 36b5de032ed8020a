"""What a user changes on a planned mask by hand: how many units a layer keeps, and single units."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from dsgp_lab.errors import LabError
from dsgp_lab.mask import Mask
from dsgp_lab.sensitivity.base import Sensitivity

Kind = Literal["head", "block"]
Counts = Sequence[int | None]
"""For every layer how many units run, or None for the plan's own choice."""


class Unit(NamedTuple):
    """A head or a neuron block, by its layer and its number in the layer, both from 0."""

    kind: Kind
    layer: int
    number: int

    def __str__(self) -> str:
        """As it is called in figures."""
        return f"layer {self.layer}, {'head' if self.kind == 'head' else 'neuron block'} {self.number}"


def edit_mask(
    planned: Mask,
    scores: Sensitivity,
    heads: Counts = (),
    blocks: Counts = (),
    flipped: Iterable[Unit] = (),
) -> Mask:
    """A planned mask of one input with layers set to a count of units, then single units flipped.

    A layer with a count keeps its best units by score. Empty counts leave every layer to the plan.

    >>> heads, blocks = torch.tensor([[[3.0, 1.0, 2.0]]]), torch.tensor([[[1.0]]])
    >>> scores = Sensitivity(heads, blocks, "made up", macs=torch.tensor([0]))
    >>> planned = Mask(torch.tensor([[[True, False, False]]]), torch.tensor([[[True]]]))
    >>> edit_mask(planned, scores, heads=[2]).heads.tolist()
    [[[True, False, True]]]
    >>> edit_mask(planned, scores, flipped=[Unit("head", 0, 1)]).heads.tolist()
    [[[True, True, False]]]

    Raises:
        LabError: more than one input, counts for another number of layers, a unit that is not there.
    """
    if len(planned) != 1 or len(scores) != 1:
        raise LabError(
            got=f"{len(planned)} masks and scores of {len(scores)} inputs",
            allowed="the mask and the scores of one input",
            hint="use mask[0] and sensitivity[0]",
        )
    parts = {
        "head": _counted(planned.heads, scores.heads, heads, "head"),
        "block": _counted(planned.blocks, scores.blocks, blocks, "block"),
    }
    for unit in flipped:
        check_unit(unit, planned)
        part = parts[unit.kind]
        part[0, unit.layer, unit.number] = ~part[0, unit.layer, unit.number]
    return Mask(parts["head"], parts["block"])


def as_unit(value: Any) -> Unit:
    """A unit from a tuple (kind, layer, number); LabError for anything else.

    >>> as_unit(("head", 0, 3))
    Unit(kind='head', layer=0, number=3)
    """
    if not isinstance(value, tuple) or len(value) != 3:
        raise LabError(
            got=f"a unit {value!r:.60}", allowed="kind, layer, number", hint="write ('head', 0, 0)"
        )
    return Unit(*value)


def check_unit(unit: Unit, mask: Mask) -> None:
    """Raise LabError unless the unit is one of the mask's."""
    if unit.kind not in ("head", "block") or not all(isinstance(n, int) for n in unit[1:]):
        raise LabError(
            got=f"a unit {tuple(unit)}",
            allowed="head or block, and two whole numbers: layer, and number in the layer",
            hint="write for example Unit('head', 0, 0)",
        )
    part = mask.heads if unit.kind == "head" else mask.blocks
    _, layers, units = part.shape
    if not (0 <= unit.layer < layers and 0 <= unit.number < units):
        raise LabError(
            got=str(unit),
            allowed=f"layers 0 to {layers - 1}, {unit.kind}s 0 to {units - 1}",
            hint="count from 0",
        )


def _counted(kept: Tensor, scores: Tensor, counts: Counts, kind: Kind) -> Tensor:
    """A copy of kept [1, layers, units] in which layers with a count keep that many of their best units."""
    kept = kept.clone()
    _, layers, units = kept.shape
    if len(counts) not in (0, layers):
        raise LabError(
            got=f"{len(counts)} counts of {kind}s",
            allowed=f"one for each of the {layers} layers, or none at all",
            hint="write None for a layer that the plan decides",
        )
    for layer, count in enumerate(counts):
        if count is None:
            continue
        if not 0 <= count <= units:
            raise LabError(
                got=f"{count} {kind}s in layer {layer}",
                allowed=f"0 to {units}",
                hint="choose a number between",
            )
        best = scores[0, layer].argsort(descending=True, stable=True)[:count]
        kept[0, layer] = torch.zeros(units, dtype=torch.bool).scatter(0, best.cpu(), True)
    return kept
