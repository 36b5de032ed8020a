"""Numbers along an axis: the log of a training run, and whatever else is a few lines or clouds of points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from dsgp_lab.errors import LabError
from dsgp_lab.views.chart import Axis, Chart, Plot, Points
from dsgp_lab.views.lines import Line, line_view
from dsgp_lab.views.style import SERIES, Array, finite, sentence, short, shorten
from dsgp_lab.views.view import View

MARKERS: tuple[Literal["circle", "square", "diamond"], ...] = ("circle", "square", "diamond")
HEIGHT = 300
LONGEST_NAME = 40


def line_chart(
    series: Mapping[str, tuple[Any, Any]],
    *,
    title: str,
    x_name: str,
    y_name: str,
    joined: bool = True,
    from_zero: bool = False,
) -> View:
    """Draw y over x for each series, joined to a line or as points.

    series: name -> (x, y), each [points], for example a log's steps and values. y_name should say the unit.
    from_zero: let the y axis include 0, for numbers that are judged by their ratio.
    Raises LabError for no series, or x and y of different lengths.
    """
    if not series:
        raise LabError(got="no series", allowed="at least one", hint='pass {"loss": (steps, values)}')
    marks, facts = [], []
    for number, (name, (across, up)) in enumerate(series.items()):
        x, y = finite(across, 1, f"x of {name}"), finite(up, 1, f"y of {name}")
        if len(x) != len(y):
            raise LabError(
                got=f"{len(x)} x and {len(y)} y of {name}",
                allowed="as many of both",
                hint="pass pairs of arrays of one length",
            )
        make = Line if joined else Points
        marks.append(
            make(
                shorten(name, LONGEST_NAME),
                x,
                y,
                hover=("%{customdata[0]}", f"{x_name} %{{x:.4g}}", f"{y_name} %{{y:.3g}}"),
                hover_data=((name,),) * len(x),
                colour=SERIES[number % len(SERIES)],
                marker=MARKERS[number % len(MARKERS)],
            )
        )
        ends = f", first {short(float(y[0]))}, last {short(float(y[-1]))}" if joined else ""
        facts.append(
            f"{name}: {len(x)} points between {short(float(y.min()))} and {short(float(y.max()))}{ends}"
        )
    x_limits = _limits(np.concatenate([mark.x for mark in marks]))
    y_limits = _limits(np.concatenate([mark.y for mark in marks]), from_zero)
    plot = Plot("", Axis(x_name, x_limits, grid=True), Axis(y_name, y_limits, grid=True), tuple(marks))
    chart = Chart(shorten(title, 70), ((plot,),), (HEIGHT,))
    kind = "Lines" if joined else "Points"
    return line_view(chart, f"{sentence(title)} {kind} of {y_name} over {x_name}.", facts)


def _limits(values: Array, from_zero: bool = False) -> tuple[float, float]:
    """A little more than the values span.

    >>> _limits(np.array([1.0, 2.0])), _limits(np.array([1.0, 2.0]), from_zero=True)
    ((0.95, 2.05), (0.0, 2.1))
    """
    low, high = float(values.min()), float(values.max())
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    room = 0.05 * (high - low) or 0.5
    return low - room * (low != 0 or not from_zero), high + room * (high != 0 or not from_zero)
