"""Gains of one method on another: a bar with its interval for each task and budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dsgp_lab.errors import LabError
from dsgp_lab.views.chart import Axis, Bars, Chart, Plot, Rule
from dsgp_lab.views.style import SERIES, Array, as_array, sentence, shorten
from dsgp_lab.views.view import View, make_view

ROW = 20
"""Pixels for a bar."""

LONGEST_LABEL = 26


def gain_bars(
    labels: Sequence[str],
    series: Mapping[str, tuple[Any, Any, Any]],
    *,
    title: str = "Gain",
    unit: str = "points gained [95 %]",
) -> View:
    """Draw, for each label, one bar a series from zero to the gain, with its interval.

    labels: tasks, for example, top to bottom. series: name -> (values, lows, highs), each [labels]; NaN where
    there is nothing to draw. A bar whose interval leaves out zero is surely a gain, or surely a loss.
    """
    parts = {name: _numbers(name, ends, len(labels)) for name, ends in series.items()}
    every = np.concatenate([ends.ravel() for ends in parts.values()]) if parts else np.array([])
    if not np.isfinite(every).any():
        raise LabError(got="no gains", allowed="a number for one label", hint="choose methods with results")
    thickness = 0.8 / len(parts)
    rows = np.arange(len(labels), dtype=float)
    marks: list[Bars | Rule] = []
    for number, (name, ends) in enumerate(parts.items()):
        there = np.isfinite(ends.sum(axis=0))
        value, low, high = ends[:, there]
        shown = [label for label, is_there in zip(labels, there.tolist(), strict=True) if is_there]
        marks.append(
            Bars(
                name,
                rows[there] + (number - (len(parts) - 1) / 2) * thickness,
                value,
                hover=(f"%{{customdata[0]}}, {name}", "%{x:.2f}", "95 %: %{customdata[1]}"),
                hover_data=tuple(
                    (label, f"{a:.2f} to {b:.2f}") for label, a, b in zip(shown, low, high, strict=True)
                ),
                interval=(low, high),
                thickness=0.85 * thickness,
                colour=SERIES[number % len(SERIES)],
                hatched=number % 2 == 1,
            )
        )
    bottom = len(labels) - 0.5
    marks.append(Rule((0.0, -0.5), (0.0, bottom), dashed=False))
    low_end, high_end = min(0.0, float(np.nanmin(every))), max(0.0, float(np.nanmax(every)))
    room = 0.04 * (high_end - low_end) or 0.5
    names = tuple(shorten(label, LONGEST_LABEL) for label in labels)
    plot = Plot(
        "",
        Axis(unit, (low_end - room, high_end + room), grid=True),
        Axis("", (bottom, -0.5), tuple(rows), names),
        tuple(marks),
    )
    height = max(120, ROW * len(labels) * len(parts) + 12 * len(labels))
    chart = Chart(shorten(title, 70), ((plot,),), (height,))
    facts = [_fact(name, ends) for name, ends in parts.items()]
    return make_view(chart, f"{sentence(title)} Bars with intervals, {len(labels)} rows.", facts)


def _numbers(name: str, ends: tuple[Any, Any, Any], count: int) -> Array:
    """Values, low and high ends [3, labels]."""
    arrays = [as_array(each).astype(float) for each in ends]
    if {array.shape for array in arrays} != {(count,)}:
        raise LabError(
            got=f"{' and '.join(str(list(array.shape)) for array in arrays)} numbers of {name}",
            allowed=f"values, low and high ends of shape [{count}], one for each label",
            hint="pass NaN where something is missing",
        )
    return np.stack(arrays)


def _fact(name: str, ends: Array) -> str:
    """How many bars are surely above zero, surely below, and neither."""
    _, low, high = ends[:, np.isfinite(ends.sum(axis=0))]
    above, below = int((low > 0).sum()), int((high < 0).sum())
    return f"{name}: {above} above 0 for sure, {below} below 0, {len(low) - above - below} undecided"
