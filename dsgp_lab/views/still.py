"""Draw a Chart with matplotlib: the still twin, made without a browser and without pyplot's global state."""

from __future__ import annotations

import warnings
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from dsgp_lab.views.chart import Axis, Bars, Cells, Chart, Plot, Points, Rule, Words
from dsgp_lab.views.layout import COLOUR_BAR, Box, Layout, cross_size, lay_out, ticks_of
from dsgp_lab.views.style import DPI, FONT_PX, GRID, INK, PAPER, TITLE_PX, nice_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 72 / DPI
SETTINGS: Any = {
    "font.family": "DejaVu Sans",
    "font.size": FONT_PX * POINTS,
    "text.parse_math": False,  # a user's text may hold $
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "hatch.color": PAPER,
    "hatch.linewidth": 1.5,
    "svg.hashsalt": "dsgp_lab",
}
MARKERS = {"circle": "o", "square": "s", "diamond": "D"}


def draw_still(chart: Chart) -> Figure:
    """Return the matplotlib figure, of the same size in pixels as the interactive one."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    place = lay_out(chart)
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(place.width / DPI, place.height / DPI), dpi=DPI, facecolor=PAPER)
        _note(figure, place, chart.title, 12, place.title_top, TITLE_PX)
        _note(figure, place, chart.notice, 12, place.notice_top, FONT_PX)
        for plot, box in zip(chart.plots, place.boxes, strict=True):
            _note(figure, place, plot.title, box.left, box.top - 26, FONT_PX)
            _draw_plot(figure, plot, box, place)
        if chart.has_legend:
            _legend(figure, place)
    return figure


def image(figure: Figure, kind: str, title: str = "") -> bytes:
    """Return the figure as PNG or SVG, the same bytes every time: no date, no program name.

    A character that the font lacks is drawn as an empty box; that is no news to the reader of a notebook.
    """
    import matplotlib as mpl

    target = BytesIO()
    metadata: dict[str, Any] = {"Software": None} if kind == "png" else {"Date": None, "Title": title}
    with warnings.catch_warnings(), mpl.rc_context(SETTINGS):
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(target, format=kind, dpi=DPI, metadata=metadata)
    return _smaller(target) if kind == "png" else target.getvalue()


def _smaller(png: BytesIO) -> bytes:
    """Store a PNG with a palette of 256 colours: a third of the bytes, and no difference to see."""
    from PIL import Image

    target = BytesIO()
    picture = Image.open(png).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    picture.save(target, format="png", optimize=True)
    return target.getvalue()


def _note(figure: Figure, place: Layout, text: str, left: float, top: float, size: int) -> None:
    if text:
        x, y = left / place.width, 1 - top / place.height
        figure.text(x, y, text, ha="left", va="top", size=size * POINTS)


def _draw_plot(figure: Figure, plot: Plot, box: Box, place: Layout) -> None:
    axes = figure.add_axes(_rectangle(box, place))
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left", "bottom"] if plot.has_cells else ["top", "right"]].set_visible(False)
    axes.tick_params(length=0, pad=4)
    for mark in plot.marks:
        match mark:
            case Cells():
                _cells(figure, axes, mark, box, place)
            case Bars():
                _bars(axes, mark, box)
            case Points():
                axes.plot(mark.x, mark.y, MARKERS[mark.marker], label=mark.name, color=mark.colour,
                          alpha=0.75, markersize=6, markeredgecolor=PAPER, markeredgewidth=0.4)  # fmt: skip
            case Words():
                align = "center" if mark.centred else "left"
                for x, y, text in zip(mark.x, mark.y, mark.texts, strict=True):
                    axes.text(x, y, text if mark.centred else f"  {text}", ha=align, va="center_baseline")
            case Rule():
                (x0, y0), (x1, y1) = mark.start, mark.end
                axes.plot([x0, x1], [y0, y1], "--" if mark.dashed else "-", color=INK, linewidth=0.8)
    axes.set(xlim=plot.x.limits, ylim=plot.y.limits)
    _axis(axes.xaxis, plot.x)
    _axis(axes.yaxis, plot.y)
    if plot.x.upright:
        axes.tick_params(axis="x", rotation=90)


def _rectangle(box: Box, place: Layout) -> tuple[float, float, float, float]:
    bottom = place.height - box.top - box.height
    return (
        box.left / place.width,
        bottom / place.height,
        box.width / place.width,
        box.height / place.height,
    )


def _axis(drawn: Any, axis: Axis) -> None:
    drawn.set_label_text(axis.title)
    drawn.labelpad = 4
    drawn.set_ticks(*ticks_of(axis))
    if axis.grid:
        drawn.grid(color=GRID, linewidth=0.8)


def _cells(figure: Figure, axes: Axes, mark: Cells, box: Box, place: Layout) -> None:
    rows, columns = mark.values.shape
    drawn = axes.pcolormesh(
        np.arange(columns + 1) - 0.5,
        np.arange(rows + 1) - 0.5,
        mark.values,
        vmin=mark.scale.low,
        vmax=mark.scale.high,
        cmap="RdBu_r" if mark.scale.signed else "cividis",
        edgecolors=PAPER,
        linewidth=0.7,
    )
    if mark.crossed is not None:
        y, x = np.nonzero(mark.crossed)
        size = cross_size(min(box.width / columns, box.height / rows))
        axes.plot(x, y, "X", color=PAPER, markersize=size * POINTS, markeredgecolor=INK, markeredgewidth=0.5)
    if mark.colour_bar:
        beside = Box(box.left + box.width + 8, box.top, COLOUR_BAR, box.height)
        bar_axes = figure.add_axes(_rectangle(beside, place))
        ticks = nice_ticks(mark.scale.low, mark.scale.high)
        figure.colorbar(drawn, cax=bar_axes, ticks=ticks).outline.set_visible(False)
        bar_axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        bar_axes.tick_params(length=0, pad=4)
        bar_axes.set_ylabel(mark.scale.title)


def _bars(axes: Axes, mark: Bars, box: Box) -> None:
    if len(mark.positions) * 2 > box.width:  # thinner than two pixels a bar would vanish between the dots
        draw_line = axes.hlines if mark.horizontal else axes.vlines
        draw_line(mark.positions, 0, mark.lengths, color=mark.colour, linewidth=POINTS)
        return
    draw = axes.barh if mark.horizontal else axes.bar
    starts = np.zeros_like(mark.lengths) if mark.starts is None else mark.starts
    edges: dict[str, Any] = {"edgecolor": PAPER, "linewidth": 0.0} if mark.hatched else {}
    draw(mark.positions, mark.lengths, mark.thickness, starts, label=mark.name, color=mark.colour,
         hatch="//" if mark.hatched else None, **edges)  # fmt: skip
    if mark.interval is not None:
        low, high = mark.interval
        for position, start, end in zip(mark.positions, low, high, strict=True):
            across, along = [position] * 2, [start, end]
            x, y = (along, across) if mark.horizontal else (across, along)
            axes.plot(x, y, "|-" if mark.horizontal else "_-", color=INK, linewidth=1.2, markersize=6)


def _legend(figure: Figure, place: Layout) -> None:
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    many = len(handles) > 5
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="upper left",
        bbox_to_anchor=(0, 1 - (place.legend_top - 8) / place.height),
        ncols=len(handles),
        columnspacing=1.0 if many else None,
        handletextpad=0.2 if many else None,
        frameon=False,
    )
