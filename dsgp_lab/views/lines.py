"""Points joined to a line, with a band for their intervals: drawn under a chart's points, in both twins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from dsgp_lab.views.chart import Chart, Points
from dsgp_lab.views.interactive import draw_interactive
from dsgp_lab.views.still import draw_still
from dsgp_lab.views.style import Array, significant
from dsgp_lab.views.view import View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BAND = 0.16
"""Opacity of a band."""


@dataclass(frozen=True)
class Line(Points):
    """Points in the order of x, joined; `low` and `high` (as `y`) are the ends of their intervals."""

    low: Array | None = None
    high: Array | None = None
    dashed: bool = False


def line_view(chart: Chart, alt: str, facts: list[str]) -> View:
    """Draw a chart without heat maps as a View, its `Line` marks joined (compare `make_view`)."""
    return View(_interactive(chart), lambda: _still(chart), "\n".join([alt, *facts]), alt)


def _lines(chart: Chart) -> list[tuple[int, Line]]:
    """Each line with the number of its plot."""
    return [(i, mark) for i, plot in enumerate(chart.plots) for mark in plot.marks if isinstance(mark, Line)]


def _interactive(chart: Chart) -> go.Figure:
    figure = draw_interactive(chart)
    under = [trace for number, line in _lines(chart) for trace in _traces(number, line)]
    return go.Figure({"data": [*under, *figure.data], "layout": figure.layout})


def _traces(number: int, line: Line) -> list[dict[str, Any]]:
    suffix = "" if number == 0 else str(number + 1)
    common = {"type": "scatter", "mode": "lines", "hoverinfo": "skip", "showlegend": False}
    common |= {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}
    x = _numbers(line.x)
    traces = []
    if line.low is not None and line.high is not None:  # once around the band
        edge = {"x": x + x[::-1], "y": _numbers(line.high) + _numbers(line.low)[::-1], "fill": "toself"}
        paint = {"fillcolor": line.colour, "line": {"width": 0}, "opacity": BAND}
        traces.append(common | edge | paint)
    stroke = {"color": line.colour, "width": 2, "dash": "dash" if line.dashed else "solid"}
    return [*traces, common | {"x": x, "y": _numbers(line.y), "line": stroke}]


def _still(chart: Chart) -> Figure:
    figure = draw_still(chart)
    for number, line in _lines(chart):
        axes = figure.axes[number]
        style = "--" if line.dashed else "-"
        axes.plot(line.x, line.y, style, color=line.colour, linewidth=1.5, zorder=1.9)
        if line.low is not None and line.high is not None:
            axes.fill_between(line.x, line.low, line.high, color=line.colour, alpha=BAND, linewidth=0)
    return figure


def _numbers(values: Array) -> list[float]:
    return [significant(float(value)) for value in values]
