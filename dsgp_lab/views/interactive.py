"""Draw a Chart with plotly. Every string of the chart is escaped here, whoever wrote it."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from dsgp_lab.views.chart import Axis, Bars, Cells, Chart, Plot, Points, Rule, Words
from dsgp_lab.views.layout import COLOUR_BAR, Box, Layout, cross_size, lay_out, ticks_of
from dsgp_lab.views.style import (
    FONT_FAMILY,
    FONT_PX,
    GRID,
    INK,
    PAPER,
    TITLE_PX,
    Array,
    escape_label,
    nice_ticks,
    significant,
)

Trace = dict[str, Any]


def draw_interactive(chart: Chart) -> go.Figure:
    """Return the plotly figure. It carries no template and no number of more than four digits."""
    place = lay_out(chart)
    traces: list[Trace] = []
    notes = [
        _note(chart.title, 12, place.title_top, place, TITLE_PX),
        _note(chart.notice, 12, place.notice_top, place, FONT_PX),
    ]
    layout: dict[str, Any] = {
        "width": place.width,
        "height": place.height,
        "margin": dict.fromkeys("lrtb", 0),
        "font": {"family": FONT_FAMILY, "size": FONT_PX, "color": INK},
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "template": {},
        "barmode": "overlay",
        "showlegend": chart.has_legend,
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1 - place.legend_top / place.height,
            "yanchor": "top",
            "bgcolor": "rgba(0,0,0,0)",
        },
        "hoverlabel": {"font": {"size": FONT_PX}, "align": "left"},
    }
    named: set[str] = set()
    shapes: list[dict[str, Any]] = []
    for number, (plot, box) in enumerate(zip(chart.plots, place.boxes, strict=True)):
        suffix = "" if number == 0 else str(number + 1)
        x_name, y_name = f"x{suffix}", f"y{suffix}"
        layout[f"xaxis{suffix}"] = _axis(plot.x, plot, _fraction(box.left, box.width, place.width), y_name)
        bottom = place.height - box.top - box.height
        layout[f"yaxis{suffix}"] = _axis(plot.y, plot, _fraction(bottom, box.height, place.height), x_name)
        notes.append(_note(plot.title, box.left, box.top - 26, place, FONT_PX))
        for mark in plot.marks:
            if isinstance(mark, Rule):
                shapes.append(_rule(mark, x_name, y_name))
            for trace in _traces(mark, box, place):
                name = trace.get("name", "")
                trace |= {"xaxis": x_name, "yaxis": y_name, "showlegend": bool(name) and name not in named}
                named.add(name)
                traces.append(trace)
    layout["annotations"] = [note for note in notes if note["text"]]
    layout["shapes"] = shapes
    return go.Figure({"data": traces, "layout": layout})


def _fraction(start: float, length: float, whole: float) -> list[float]:
    return [significant(start / whole), significant((start + length) / whole)]


def _note(text: str, left: float, top: float, place: Layout, size: int) -> dict[str, Any]:
    return {
        "text": escape_label(text),
        "x": significant(left / place.width),
        "y": significant(1 - top / place.height),
        "xref": "paper",
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "top",
        "showarrow": False,
        "align": "left",
        "borderpad": 0,
        "font": {"size": size},
    }


def _axis(axis: Axis, plot: Plot, domain: list[float], anchor: str) -> dict[str, Any]:
    low, high = axis.limits
    drawn: dict[str, Any] = {
        "title": {"text": escape_label(axis.title), "font": {"size": FONT_PX}, "standoff": 6},
        "domain": domain,
        "anchor": anchor,
        "range": [low, high],
        "zeroline": False,
        "showgrid": axis.grid,
        "gridcolor": GRID,
        "fixedrange": plot.has_cells,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": "rgba(0,0,0,0)",
        "exponentformat": "e",
    }
    if plot.has_cells:
        drawn["type"] = "category"
    if axis.ticks is not None and axis.labels is not None:
        drawn |= {"tickvals": list(axis.ticks), "ticktext": [escape_label(label) for label in axis.labels]}
    else:  # no more labels than the layout made room for; zooming in still refines them
        drawn["nticks"] = len(ticks_of(axis)[0]) + 1
    drawn["tickangle"] = -90 if axis.upright else 0
    return drawn


def _traces(mark: Cells | Bars | Points | Words | Rule, box: Box, place: Layout) -> list[Trace]:
    match mark:
        case Cells():
            return _cells(mark, box, place)
        case Bars():
            return [_bars(mark)]
        case Points():
            return [
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": escape_label(mark.name),
                    "x": _numbers(mark.x),
                    "y": _numbers(mark.y),
                    "marker": {
                        "symbol": mark.marker,
                        "size": 8,
                        "color": mark.colour,
                        "opacity": 0.75,
                        "line": {"width": 0.5, "color": PAPER},
                    },
                    **_hover(mark.hover, mark.hover_data),
                }
            ]
        case Words():
            return [
                {
                    "type": "scatter",
                    "mode": "text",
                    "x": _numbers(mark.x),
                    "y": _numbers(mark.y),
                    "text": [escape_label(text if mark.centred else f"  {text}") for text in mark.texts],
                    "textposition": "middle center" if mark.centred else "middle right",
                    "hoverinfo": "skip",
                    "cliponaxis": False,
                }
            ]
    return []


def _cells(mark: Cells, box: Box, place: Layout) -> list[Trace]:
    scale = mark.scale
    heat: Trace = {
        "type": "heatmap",
        "z": [_numbers(row) for row in mark.values],
        "x": [escape_label(name) for name in mark.column_names],
        "y": [escape_label(name) for name in mark.row_names],
        "zmin": significant(scale.low),
        "zmax": significant(scale.high),
        "colorscale": "RdBu_r" if scale.signed else "Cividis",
        "xgap": 1,
        "ygap": 1,
        "showscale": mark.colour_bar,
        **_hover(mark.hover, mark.extra.tolist() if mark.extra is not None else ()),
    }
    if mark.colour_bar:
        heat["colorbar"] = {
            "x": significant((box.left + box.width + 8) / place.width),
            "y": significant(1 - (box.top + box.height / 2) / place.height),
            "len": significant(box.height / place.height),
            "thickness": COLOUR_BAR,
            "xpad": 0,
            "ypad": 0,
            "outlinewidth": 0,
            "tickvals": nice_ticks(scale.low, scale.high),
            "tickformat": "~g",
            "title": {"text": escape_label(scale.title), "side": "right", "font": {"size": FONT_PX}},
        }
    if mark.crossed is None:
        return [heat]
    size = min(box.width / mark.values.shape[1], box.height / mark.values.shape[0])
    crosses: Trace = {
        "type": "scatter",
        "mode": "markers",
        "x": [heat["x"][column] for _, column in np.argwhere(mark.crossed)],
        "y": [heat["y"][row] for row, _ in np.argwhere(mark.crossed)],
        "marker": {
            "symbol": "x",
            "size": cross_size(size),
            "color": PAPER,
            "line": {"width": 1, "color": INK},
        },
        "hoverinfo": "skip",
    }
    return [heat, crosses]


def _bars(mark: Bars) -> Trace:
    along, across = ("x", "y") if mark.horizontal else ("y", "x")
    trace: Trace = {
        "type": "bar",
        "name": escape_label(mark.name),
        "orientation": "h" if mark.horizontal else "v",
        along: _numbers(mark.lengths),
        across: _numbers(mark.positions),
        "width": mark.thickness,
        "marker": {"color": mark.colour},
        **_hover(mark.hover, mark.hover_data),
    }
    if mark.starts is not None:
        trace["base"] = _numbers(mark.starts)
    if mark.hatched:
        trace["marker"]["pattern"] = {
            "shape": "/",
            "fgcolor": PAPER,
            "bgcolor": mark.colour,
            "size": 8,
            "solidity": 0.25,
        }
    if mark.interval is not None:
        ends = mark.lengths if mark.starts is None else mark.starts + mark.lengths
        low, high = mark.interval
        trace[f"error_{along}"] = {
            "type": "data",
            "symmetric": False,
            "array": _numbers(high - ends),
            "arrayminus": _numbers(ends - low),
            "color": INK,
        }
    return trace


def _rule(mark: Rule, x_name: str, y_name: str) -> dict[str, Any]:
    return {
        "type": "line",
        "xref": x_name,
        "yref": y_name,
        "x0": mark.start[0],
        "y0": mark.start[1],
        "x1": mark.end[0],
        "y1": mark.end[1],
        "line": {"color": INK, "width": 1, "dash": "dash" if mark.dashed else "solid"},
    }


def _hover(lines: tuple[str, ...], data: Any) -> Trace:
    template = "<br>".join(escape_label(line) for line in lines) + "<extra></extra>"
    if len(data) == 0:
        return {"hovertemplate": template}
    escaped = [_escaped(row) for row in data]
    return {"hovertemplate": template, "customdata": escaped}


def _escaped(row: Any) -> Any:
    if isinstance(row, list | tuple):
        return [_escaped(value) for value in row]
    if isinstance(row, float):
        return significant(row)
    return escape_label(row) if isinstance(row, str) else row


def _numbers(values: Array) -> list[float]:
    return [significant(float(value)) for value in values]
