"""Scorers against the truth: rank correlations, scatter, and how much is specific to the input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dsgp_lab.errors import LabError
from dsgp_lab.views.chart import Axis, Bars, Chart, Plot, Points, Rule, Words
from dsgp_lab.views.style import SERIES, Array, finite, percent, sentence, short, shorten
from dsgp_lab.views.view import View, make_view

LONGEST_LABEL = 26
ROW = 34


def rank_correlation_bars(
    names: Sequence[str],
    values: Any,
    *,
    low: Any = None,
    high: Any = None,
    title: str = "Which scorer ranks the units as leave-one-out does?",
    unit: str = "Spearman rank correlation",
) -> View:
    """Draw one bar per scorer, the best on top, with an interval where `low` and `high` are given.

    values, low, high: [scorers], between -1 and 1.
    """
    numbers = _one_each(names, values, "correlations")
    ends = None
    if low is not None and high is not None:
        ends = (_one_each(names, low, "lower ends"), _one_each(names, high, "upper ends"))
    order = np.argsort(-numbers, kind="stable")
    labels = tuple(shorten(names[i], LONGEST_LABEL) for i in order)
    rows = np.arange(len(order), dtype=float)
    ordered = numbers[order]
    interval = None if ends is None else (ends[0][order], ends[1][order])
    reach = np.maximum(ordered, 0.0) if interval is None else np.maximum(interval[1], 0.0)
    words = tuple(f"{value:.2f}" for value in np.round(ordered, 2) + 0.0)
    between = () if interval is None else ("from %{customdata[2]} to %{customdata[3]}",)
    bars = Bars(
        "",
        rows,
        ordered,
        hover=("%{customdata[0]}", "%{x:.3f}", f"rank %{{customdata[1]}} of {len(names)}", *between),
        hover_data=tuple(
            (names[i], rank + 1, *(() if ends is None else (f"{ends[0][i]:.3f}", f"{ends[1][i]:.3f}")))
            for rank, i in enumerate(order)
        ),
        interval=interval,
    )
    left = min(0.0, float(ordered.min() if interval is None else interval[0].min()) - 0.05)
    plot = Plot(
        "",
        Axis(unit, (left, 1.12), grid=True),
        Axis("", (len(order) - 0.5, -0.5), tuple(rows), labels),
        (bars, Rule((0.0, -0.5), (0.0, len(order) - 0.5), dashed=False), Words(reach, rows, words)),
    )
    chart = Chart(shorten(title, 70), ((plot,),), (max(120, ROW * len(order)),))
    facts = ["Best first: " + ", ".join(f"{names[i]} {short(float(numbers[i]))}" for i in order)]
    return make_view(chart, f"{sentence(title)} Bars of the {unit} of {len(names)} scorers.", facts)


def estimate_scatter(
    series: Sequence[tuple[str, Any, Any]],
    *,
    title: str = "Estimate against truth",
    estimate_name: str = "estimate",
    truth_name: str = "truth (leave-one-out)",
    diagonal: bool = False,
) -> View:
    """Draw a scorer's estimate of each unit against its true effect.

    series: (name, estimate, truth) each, arrays of one shape, for example heads [layers, heads] and then
    blocks [layers, blocks]. diagonal: draw estimate = truth, where both have the same unit.
    """
    from scipy.stats import spearmanr

    marks: list[Points | Rule] = []
    facts = []
    for number, (name, estimate, truth) in enumerate(series):
        shape = np.shape(estimate)
        x, y = finite(estimate, len(shape), f"{name} estimates"), finite(truth, len(shape), f"{name} truths")
        if x.shape != y.shape:
            raise LabError(
                got=f"{list(x.shape)} estimates and {list(y.shape)} truths of {name}",
                allowed="two arrays of the same shape",
                hint="score the same units with both",
            )
        places = tuple(", ".join(str(int(i)) for i in place) for place in np.ndindex(*shape))
        constant = np.ptp(x) == 0 or np.ptp(y) == 0
        rank = "not defined (all values equal)" if constant else f"{spearmanr(x.ravel(), y.ravel())[0]:.2f}"
        facts.append(f"{name}: {x.size} units, Spearman rank correlation {rank}")
        marks.append(
            Points(
                f"{name} (rank correlation {rank})",
                x.ravel(),
                y.ravel(),
                hover=(
                    f"{name} %{{customdata[0]}}",
                    f"{estimate_name} %{{x:.3g}}",
                    f"{truth_name} %{{y:.3g}}",
                ),
                hover_data=tuple((place,) for place in places),
                colour=SERIES[number % len(SERIES)],
                marker=("circle", "square", "diamond")[number % 3],
            )
        )
    points = [mark for mark in marks if isinstance(mark, Points)]
    x_limits, y_limits = _around([mark.x for mark in points]), _around([mark.y for mark in points])
    if diagonal:
        ends = max(x_limits[0], y_limits[0]), min(x_limits[1], y_limits[1])
        marks.append(Rule((ends[0], ends[0]), (ends[1], ends[1])))
    plot = Plot(
        "", Axis(estimate_name, x_limits, grid=True), Axis(truth_name, y_limits, grid=True), tuple(marks)
    )
    chart = Chart(shorten(title, 70), ((plot,),), (340,))
    return make_view(
        chart, f"{sentence(title)} Scatter plot, {estimate_name} to the right, {truth_name} upwards.", facts
    )


def headroom_bars(
    labels: Sequence[str],
    parts: Mapping[str, Any],
    *,
    title: str = "How much of the sensitivity is specific to the input?",
    unit: str = "share of the variance",
) -> View:
    """Draw one stacked bar per row (a scorer, a task): the variance split into parts that sum to at most 1.

    parts: part name -> shares [rows], for example {"unit (all a static mask can use)": ...,
    "input x unit (all a dynamic mask can add)": ...}. Every second part is hatched.
    """
    shares = {name: _one_each(labels, part, name) for name, part in parts.items()}
    totals = np.sum(list(shares.values()), axis=0)
    if totals.max() > 1.001 or min(part.min() for part in shares.values()) < 0:
        raise LabError(
            got=f"shares that sum to {short(float(totals.max()))}",
            allowed="shares of 0 or more that sum to at most 1",
            hint="divide each part by the total variance",
        )
    rows = np.arange(len(labels), dtype=float)
    marks: list[Bars | Words] = []
    starts = np.zeros(len(labels))
    for number, (name, part) in enumerate(shares.items()):
        marks.append(
            Bars(
                name,
                rows,
                part,
                hover=(name, "%{customdata[0]}", "%{x:.1%}"),
                hover_data=tuple(
                    (label, percent(float(share))) for label, share in zip(labels, part, strict=True)
                ),
                starts=starts,
                colour=SERIES[number % len(SERIES)],
                hatched=number % 2 == 1,
            )
        )
        starts = starts + part
    plot = Plot(
        "",
        Axis(
            unit, (0.0, 1.0), (0.0, 0.25, 0.5, 0.75, 1.0), ("0 %", "25 %", "50 %", "75 %", "100 %"), grid=True
        ),
        Axis(
            "",
            (len(labels) - 0.5, -0.5),
            tuple(rows),
            tuple(shorten(label, LONGEST_LABEL) for label in labels),
        ),
        tuple(marks),
    )
    facts = [
        f"{label}: " + ", ".join(f"{name} {percent(float(part[row]))}" for name, part in shares.items())
        for row, label in enumerate(labels)
    ]
    chart = Chart(shorten(title, 70), ((plot,),), (max(90, 50 * len(labels)),))
    return make_view(chart, f"{sentence(title)} Stacked bars of the {unit}, {len(labels)} rows.", facts)


def _one_each(names: Sequence[str], values: Any, what: str) -> Array:
    numbers = finite(values, 1, what)
    if len(numbers) != len(names):
        raise LabError(
            got=f"{len(numbers)} {what} for {len(names)} names",
            allowed="one number for each name",
            hint="pass both in the same order",
        )
    return numbers


def _around(values: Sequence[Array]) -> tuple[float, float]:
    low, high = min(float(value.min()) for value in values), max(float(value.max()) for value in values)
    room = 0.05 * (high - low) or 0.5
    return low - room, high + room
