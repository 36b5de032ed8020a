"""Budget curves: what is left of a score as less of the model runs, method by method, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from dsgp_lab.errors import LabError
from dsgp_lab.views.chart import Axis, Chart, Plot, Rule
from dsgp_lab.views.lines import Line, line_view
from dsgp_lab.views.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SERIES,
    Array,
    finite,
    nice_ticks,
    sentence,
    short,
    shorten,
)
from dsgp_lab.views.view import View

if TYPE_CHECKING:
    import pandas as pd

ACROSS = 4
"""Panels beside each other."""

HEIGHTS = (300, 190)
"""Inner height of a row in pixels: if it is the only one, if there are several."""

VERMILION, SKY = "#D55E00", "#56B4E9"  # Okabe and Ito, as the other colours

Marker = Literal["circle", "square", "diamond"]
SPARE: tuple[Marker, ...] = ("circle", "square", "diamond")

STYLES: dict[str, tuple[str, Marker]] = {
    "router": (BLUE, "circle"),
    "twin": (ORANGE, "square"),
    "mismatched": (PURPLE, "diamond"),
    "other_task": (PURPLE, "circle"),
    "cascade": (SKY, "diamond"),
    "cascade_by_lot": (GREY, "square"),
    "settled": (BLUE, "diamond"),
    "settled_priced": (BLUE, "square"),
    "random": (GREY, "diamond"),
    "static_first_order": (SKY, "square"),
    "static_fisher": (GREEN, "square"),
    "static_wanda_sp": (GREEN, "diamond"),
    "static_flap": (GREEN, "circle"),
    "oracle_first_order": (VERMILION, "circle"),
    "oracle_signed": (VERMILION, "diamond"),
}
"""Colour and marker of a method: the same in every figure. Oracles are dashed."""


@dataclass(frozen=True, eq=False)
class Curve:
    """One method over its budgets, in the order of x; low and high are the ends of the intervals of y."""

    name: str
    x: Array
    y: Array
    low: Array
    high: Array

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be drawn or do not belong together."""
        parts = {name: finite(getattr(self, name), 1, f"{name} of {self.name}") for name in _PARTS}
        if len({len(values) for values in parts.values()}) > 1 or (np.diff(parts["x"]) < 0).any():
            raise LabError(
                got=f"{', '.join(f'{len(values)} {name}' for name, values in parts.items())} of {self.name}",
                allowed="as many of each, x in rising order",
                hint="make curves with method_curves(table)",
            )
        for name, values in parts.items():
            object.__setattr__(self, name, values)


_PARTS = ("x", "y", "low", "high")


def method_curves(table: pd.DataFrame, methods: Sequence[str] | None = None) -> tuple[Curve, ...]:
    """Curves of methods from rows of one task and regime, or from one regime's averages.

    Columns as in `Results.rows` and `Results.averages`: method, keep, macs, loss, ci_low, ci_high. x is the
    mean share of the MACs that ran, y the points gained on the dense model: minus the loss. Where several
    seeds are there, all numbers are their means. Methods that are not in the table are left out.

    Raises:
        LabError: rows of several tasks or regimes.
    """
    for column in ("task", "regime"):
        found = list(dict.fromkeys(table[column])) if column in table else []
        if len(found) > 1:
            raise LabError(
                got=f"rows of the {column}s {', '.join(found)}",
                allowed=f"rows of one {column}",
                hint=f'choose one, for example table[table["{column}"] == "{found[0]}"]',
            )
    curves = []
    for method in methods if methods is not None else dict.fromkeys(table["method"]):
        mine = table[table["method"] == method]
        if mine.empty:
            continue
        mean = mine.groupby("keep")[["macs", "loss", "ci_low", "ci_high"]].mean().sort_values("macs")
        x, loss, low, high = (mean[name].to_numpy() for name in ("macs", "loss", "ci_low", "ci_high"))
        curves.append(Curve(method, x, -loss, -high, -low))
    return tuple(curves)


def budget_curves(
    panels: Mapping[str, Sequence[Curve]],
    *,
    title: str = "Score and budget",
    x_name: str = "share of MACs",
    y_name: str = "points against dense",
    floor: float | None = None,
    reference: float | None = 0.0,
    mark: float | None = None,
) -> View:
    """Draw a panel for each entry (a task, the average), a line with a band for its intervals for each curve.

    All panels have the same scales. The dashed line is `reference`, by default the dense model's score.
    `mark`: a budget to point out, with an upright line.
    `floor`: the lowest y that is drawn; what lies below leaves the picture, and the figure says so.
    """
    curves = [curve for panel in panels.values() for curve in panel]
    if not curves:
        raise LabError(
            got="no curves", allowed="a panel with a curve in it", hint="choose methods that are in the table"
        )
    x_limits, y_limits = _limits(curves, floor, reference)
    names, across = list(panels), _across(len(panels))
    ticks = (_ticks(x_limits, 3 if across > 2 else 6), _ticks(y_limits, 6))
    plots = []
    for place, name in enumerate(names):
        first, bottom = place % across == 0, place + across >= len(names)
        x_axis = Axis(x_name if bottom else "", x_limits, *ticks[0], grid=True)
        shown = ticks[1] if first else (ticks[1][0], ("",) * len(ticks[1][0]))
        y_axis = Axis(y_name if first else "", y_limits, *shown, grid=True)
        rule = () if reference is None else (Rule((x_limits[0], reference), (x_limits[1], reference)),)
        if mark is not None:
            rule = (*rule, Rule((mark, y_limits[0]), (mark, y_limits[1])))
        lines = (_line(curve, number, x_name, y_name) for number, curve in enumerate(panels[name]))
        plots.append(Plot(shorten(name, 60 // across), x_axis, y_axis, (*rule, *lines)))
    rows = tuple(tuple(plots[start : start + across]) for start in range(0, len(plots), across))
    below = floor is not None and min(float(curve.y.min()) for curve in curves) < floor
    notice = f"What lies below {floor:g} is not drawn." if below else ""
    chart = Chart(shorten(title, 70), rows, (HEIGHTS[len(rows) > 1],) * len(rows), notice)
    alt = (
        f"{sentence(title)} Curves of {y_name} over the {x_name}, {len(names)} panel{'s'[: len(names) > 1]}."
    )
    return line_view(chart, alt, [_fact(name, curve) for name in names for curve in panels[name]])


def curves_side_by_side(
    panels: Mapping[str, Sequence[Curve]],
    *,
    y_names: Sequence[str],
    references: Sequence[float],
    title: str,
    x_name: str = "share of MACs",
    mark: float | None = None,
) -> View:
    """Draw a panel for each entry, as `budget_curves` does, but each with its own y axis and reference."""
    plots, facts = [], []
    for (name, curves), y_name, reference in zip(panels.items(), y_names, references, strict=True):
        x_limits, y_limits = _limits(curves, None, reference)
        rules = [Rule((x_limits[0], reference), (x_limits[1], reference))]
        if mark is not None:
            rules.append(Rule((mark, y_limits[0]), (mark, y_limits[1])))
        lines = (_line(curve, number, x_name, y_name) for number, curve in enumerate(curves))
        x_axis = Axis(x_name, x_limits, *_ticks(x_limits, 5), grid=True)
        y_axis = Axis(y_name, y_limits, *_ticks(y_limits, 6), grid=True)
        plots.append(Plot(shorten(name, 60 // len(panels)), x_axis, y_axis, (*rules, *lines)))
        facts += [_fact(f"{y_name}, {name}", curve) for curve in curves]
    chart = Chart(shorten(title, 70), (tuple(plots),), (HEIGHTS[0],))
    return line_view(chart, f"{sentence(title)} Curves of {' and '.join(y_names)} over the {x_name}.", facts)


def _across(panels: int) -> int:
    """Panels in a row: four at most, three where that leaves fewer places empty.

    >>> [_across(panels) for panels in (1, 3, 5, 6, 7, 8, 9)]
    [1, 3, 3, 3, 4, 4, 3]
    """
    if panels <= ACROSS:
        return panels
    return ACROSS - 1 if -panels % (ACROSS - 1) < -panels % ACROSS else ACROSS


def _limits(
    curves: Sequence[Curve], floor: float | None, reference: float | None
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Both axes' limits, a little wider than the intervals."""
    x = np.concatenate([curve.x for curve in curves])
    ends = [end for curve in curves for end in (curve.low.min(), curve.high.max())]
    low, high = float(min(ends)), float(max(ends))
    if reference is not None:
        low, high = min(low, reference), max(high, reference)
    if floor is not None:
        low = max(low, floor)
    room = 0.06 * (high - low) or 0.5
    side = 0.06 * float(np.ptp(x)) or 0.05
    return (float(x.min()) - side, float(x.max()) + side), (low - room * (low != floor), high + room)


def _ticks(limits: tuple[float, float], most: int) -> tuple[tuple[float, ...], tuple[str, ...]]:
    ticks = nice_ticks(*limits, most)
    return tuple(ticks), tuple(f"{tick:g}" for tick in ticks)


def _line(curve: Curve, number: int, x_name: str, y_name: str) -> Line:
    spare = (SERIES[number % len(SERIES)], SPARE[number % len(SPARE)])
    colour, marker = STYLES.get(curve.name, spare)
    return Line(
        curve.name.replace("_", " "),
        curve.x,
        curve.y,
        hover=("%{customdata[0]}", f"{y_name} %{{y:.2f}}", "95 %: %{customdata[1]}", f"{x_name} %{{x:.3f}}"),
        hover_data=tuple(
            (curve.name, f"{low:.2f} to {high:.2f}") for low, high in zip(curve.low, curve.high, strict=True)
        ),
        colour=colour,
        marker=marker,
        low=curve.low,
        high=curve.high,
        dashed=curve.name.startswith("oracle"),
    )


def _fact(panel: str, curve: Curve) -> str:
    """One line of the digest: the curve's values, each with its share."""
    values = ", ".join(
        f"{short(y)}{'' if low == high else f' [{short(low)}, {short(high)}]'} at {x:.2f}"
        for x, y, low, high in zip(curve.x, curve.y, curve.low, curve.high, strict=True)
    )
    return f"{panel}, {curve.name}: {values}"
