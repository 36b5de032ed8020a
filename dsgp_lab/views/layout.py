"""Where each plot of a chart stands, in pixels: one answer for both drawing libraries."""

from __future__ import annotations

from dataclasses import dataclass

from dsgp_lab.views.chart import Axis, Chart, Plot
from dsgp_lab.views.style import FONT_PX, WIDTH, nice_ticks, text_width

LINE = round(1.5 * FONT_PX)
EDGE = 10
COLOUR_BAR = 14
COLOUR_BAR_GUTTER = 106


@dataclass(frozen=True)
class Box:
    """The inner rectangle of a plot, in pixels from the top left corner of the figure."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Layout:
    """The figure's size and one box per plot, row by row; tops of the title, the notice and the legend."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    title_top: int
    notice_top: int
    legend_top: int


def lay_out(chart: Chart) -> Layout:
    """Share a row's inner width among its plots, between gutters as wide as their labels need."""
    notice_top = EDGE + (LINE + 6 if chart.title else 0)
    legend_top = notice_top + (LINE if chart.notice else 0)
    top = float(legend_top + (LINE + 4 if chart.has_legend else 0))
    boxes: list[Box] = []
    for row, height in zip(chart.rows, chart.heights, strict=True):
        lefts = [_label_gutter(plot.y, beside=True) for plot in row]
        rights = [_right_gutter(plot) for plot in row]
        inner = (WIDTH - sum(lefts) - sum(rights)) / sum(plot.width for plot in row)
        top += LINE + 4 if any(plot.title for plot in row) else 6
        left = 0.0
        for plot, plot_left, plot_right in zip(row, lefts, rights, strict=True):
            left += plot_left
            boxes.append(Box(left, top, inner * plot.width, height))
            left += inner * plot.width + plot_right
        top += height + max(_label_gutter(plot.x, beside=False) for plot in row)
    return Layout(WIDTH, round(top + EDGE), tuple(boxes), EDGE, notice_top, legend_top)


def _label_depth(axis: Axis, *, beside: bool) -> int:
    """Pixels that the tick labels take between the plot and the axis title."""
    _, labels = ticks_of(axis)
    longest = max((text_width(label) for label in labels), default=0)
    return (longest if beside or axis.upright else LINE - 4) + 8 if longest else 4


def ticks_of(axis: Axis) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Return where the tick labels stand and what they say: the axis's own, or round numbers."""
    if axis.ticks is not None and axis.labels is not None:
        return axis.ticks, axis.labels
    ticks = tuple(nice_ticks(min(axis.limits), max(axis.limits), 8))
    return ticks, tuple(f"{tick:g}" for tick in ticks)


def cross_size(cell: float) -> int:
    """Size in pixels of the cross on a pruned cell whose shorter side is `cell` pixels."""
    return int(min(12, max(6, 0.55 * cell)))


def _right_gutter(plot: Plot) -> int:
    if plot.scale:
        return COLOUR_BAR_GUTTER
    return 14 if plot.has_cells else 30


def _label_gutter(axis: Axis, *, beside: bool) -> int:
    return _label_depth(axis, beside=beside) + (LINE + 6 if axis.title else 4)
