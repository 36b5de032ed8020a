"""The little language of figures: a Chart is rows of Plots, a Plot is two Axes and some marks.

A view function turns numbers into one Chart; `interactive.py` draws it with plotly and `still.py` with
matplotlib, so both twins always show the same data. Strings are plain text: the drawing modules escape them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dsgp_lab.views.style import BLUE, Array


@dataclass(frozen=True)
class Axis:
    """One axis of a plot.

    ticks, labels: where a label stands and what it says; None leaves both to the drawing library.
    limits: (from, to), in data units; a larger first number turns the axis round.
    upright: write the labels from bottom to top (long words under a heat map).
    """

    title: str
    limits: tuple[float, float]
    ticks: tuple[float, ...] | None = None
    labels: tuple[str, ...] | None = None
    upright: bool = False
    grid: bool = False


@dataclass(frozen=True)
class Scale:
    """A colour scale: magnitudes from `low` in Cividis, signed values around zero in red and blue."""

    low: float
    high: float
    signed: bool
    title: str


@dataclass(frozen=True)
class Cells:
    """A heat map. Cell (row, column) is centred at y = row, x = column.

    values: [rows, columns]; crossed: bool [rows, columns], cells that get a cross; extra: [rows, columns, k],
    more numbers or words for hovering. hover: lines of plotly's hover template (%{x}, %{y}, %{z},
    %{customdata[0]}), where %{y} and %{x} are the row's and the column's name (each unique).
    """

    values: Array
    row_names: tuple[str, ...]
    column_names: tuple[str, ...]
    scale: Scale
    hover: tuple[str, ...]
    crossed: Array | None = None
    extra: Array | None = None
    colour_bar: bool = True


@dataclass(frozen=True)
class Bars:
    """Bars from `starts` (default 0) of the given lengths, with an optional interval at their end.

    hover_data: one tuple per bar, %{customdata[i]} in `hover`.
    """

    name: str
    positions: Array
    lengths: Array
    hover: tuple[str, ...]
    hover_data: tuple[tuple[str | float, ...], ...]
    starts: Array | None = None
    interval: tuple[Array, Array] | None = None
    horizontal: bool = True
    thickness: float = 0.6
    colour: str = BLUE
    hatched: bool = False


@dataclass(frozen=True)
class Points:
    """Points of a scatter plot; the marker tells series apart as well as the colour does."""

    name: str
    x: Array
    y: Array
    hover: tuple[str, ...]
    hover_data: tuple[tuple[str | float, ...], ...]
    colour: str = BLUE
    marker: Literal["circle", "square", "diamond"] = "circle"


@dataclass(frozen=True)
class Words:
    """Texts in a plot, each beside its point (or centred on it)."""

    x: Array
    y: Array
    texts: tuple[str, ...]
    centred: bool = False


@dataclass(frozen=True)
class Rule:
    """A thin line from one point to another: a reference, a border between blocks."""

    start: tuple[float, float]
    end: tuple[float, float]
    dashed: bool = True


Mark = Cells | Bars | Points | Words | Rule


@dataclass(frozen=True)
class Plot:
    """One pair of axes and the marks on it; `width` is its part of the row, relative to the others'."""

    title: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    width: float = 1.0

    @property
    def has_cells(self) -> bool:
        """Whether the plot is a heat map."""
        return any(isinstance(mark, Cells) for mark in self.marks)

    @property
    def scale(self) -> Scale | None:
        """The colour scale to explain beside the plot, if it has one."""
        return next((mark.scale for mark in self.marks if isinstance(mark, Cells) and mark.colour_bar), None)


@dataclass(frozen=True)
class Chart:
    """A whole figure: a title, a line of notice under it, and rows of plots that share the width.

    heights: inner height of each row in pixels, without titles and labels.
    """

    title: str
    rows: tuple[tuple[Plot, ...], ...]
    heights: tuple[int, ...]
    notice: str = ""

    @property
    def plots(self) -> tuple[Plot, ...]:
        """All plots, row by row."""
        return tuple(plot for row in self.rows for plot in row)

    @property
    def has_legend(self) -> bool:
        """Whether two series or more need names."""
        names = {mark.name for plot in self.plots for mark in plot.marks if isinstance(mark, Bars | Points)}
        return len(names - {""}) > 1
