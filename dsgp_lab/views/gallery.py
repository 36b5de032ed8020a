"""Many masks in one figure: inputs down, units across, a strip of what the inputs are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dsgp_lab.errors import LabError
from dsgp_lab.views.chart import Axis, Cells, Chart, Plot, Rule, Scale
from dsgp_lab.views.style import as_array, percent, sentence, shorten
from dsgp_lab.views.view import View, make_view

LONGEST_LABEL = 30
NAMED = 30
"""Inputs up to which each row has its text beside it."""


def gallery_map(
    units: Any,
    inputs: Sequence[str],
    unit_names: Sequence[str],
    strip: Sequence[str | int],
    *,
    strip_name: str = "label",
    borders: tuple[int, int] | None = None,
    title: str = "Masks",
) -> View:
    """Draw which units run, units [inputs, units] bool, in the order given; a pruned unit is the dark cell.

    strip: for every input a word or a number, drawn as a column of its own on the right: words are numbered
    in order of first appearance and named in the notice, so that colour is not needed to tell them apart on
    hovering. Columns are expected from always kept to never kept; borders: how many are kept always, and
    where those that are never kept begin.
    """
    kept = as_array(units).astype(bool)
    if kept.ndim != 2 or kept.size == 0 or kept.shape != (len(inputs), len(unit_names)):
        raise LabError(
            got=f"units of shape {list(kept.shape)}, {len(inputs)} inputs and {len(unit_names)} unit names",
            allowed="a bool array [inputs, units] with a name for each row and column",
            hint="use lab.gallery(texts).view()",
        )
    if len(strip) != len(inputs):
        raise LabError(
            got=f"{len(strip)} entries of {strip_name}", allowed=f"one for each of {len(inputs)} inputs",
            hint="leave it out, or give one for each",
        )  # fmt: skip
    rows, columns = kept.shape
    row_names = tuple(f"{number}: {shorten(text, 60)}" for number, text in enumerate(inputs))
    few = rows <= NAMED
    y_ticks = tuple(float(row) for row in range(rows)) if few else ()
    y_labels = tuple(shorten(text, LONGEST_LABEL) for text in inputs) if few else ()
    limits = (rows - 0.5, -0.5)
    cells = Cells(
        kept.astype(float),
        row_names,
        tuple(unit_names),
        Scale(0.0, 1.0, False, ""),
        hover=("%{y}", "%{x}", "%{customdata[0]}"),
        extra=np.where(kept, "runs", "pruned").astype(object)[:, :, None],
        colour_bar=False,
    )
    always, first_never = borders or (0, columns)
    codes, names = _codes(strip)
    beside = Cells(
        codes[:, None],
        row_names,
        (strip_name,),
        Scale(float(codes.min()), max(float(codes.max()), float(codes.min()) + 1), False, ""),
        hover=("%{y}", "%{customdata[0]}"),
        extra=np.array([[str(entry)] for entry in strip], dtype=object)[:, :, None],
        colour_bar=False,
    )
    edges = tuple(edge for edge in (always, first_never) if 0 < edge < columns)
    plots = (
        Plot(
            "Bright: runs. Dark: pruned.",
            Axis("unit, from always kept to never kept", (-0.5, columns - 0.5),
                 tuple(edge - 0.5 for edge in edges), tuple(str(edge) for edge in edges)),
            Axis("" if few else "input, similar masks together", limits, y_ticks, y_labels),
            (cells, *(Rule((edge - 0.5, rows - 0.5), (edge - 0.5, -0.5), dashed=False) for edge in edges)),
        ),
        Plot(strip_name, Axis("", (-0.5, 0.5), (), ()), Axis("", limits, (), ()), (beside,), width=0.09),
    )  # fmt: skip
    notice = f"Strip, dark to bright: {names}."
    chart = Chart(shorten(title, 70), (plots,), (int(np.clip(16 * rows, 120, 480)),), shorten(notice, 92))
    facts = [
        f"Units that nearly all inputs run: {always}, hardly any: {columns - first_never},"
        f" some: {first_never - always}",
        f"Mean share of units that run: {percent(float(kept.mean()))}",
        notice,
    ]
    alt = f"{sentence(title)} Map of {rows} inputs by {columns} units."
    return make_view(chart, alt, facts)


def _codes(strip: Sequence[str | int]) -> tuple[np.ndarray[Any, Any], str]:
    """Numbers to colour by, and what they mean in words.

    >>> _codes(["b", "a", "b"])[1], _codes([3, 9])[1]
    ('a, b', '3 to 9')
    """
    if all(isinstance(entry, int) for entry in strip):
        return np.array(strip, dtype=float), f"{min(strip)} to {max(strip)}"
    words = sorted({str(entry) for entry in strip})
    return np.array([words.index(str(entry)) for entry in strip], dtype=float), ", ".join(words)
