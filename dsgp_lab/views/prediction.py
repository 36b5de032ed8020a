"""What the cut did: prediction, operations and time, dense beside pruned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dsgp_lab.errors import LabError
from dsgp_lab.views.chart import Axis, Bars, Chart, Plot, Words
from dsgp_lab.views.style import BLUE, GREY, ORANGE, SERIES, Array, finite, percent, sentence, short, shorten
from dsgp_lab.views.view import View, make_view

LONGEST_LABEL = 26


def prediction_bars(labels: Sequence[str], dense: Any, pruned: Any, *, title: str = "Prediction") -> View:
    """Draw the class probabilities of the dense and of the pruned model, two bars per class.

    labels: class names; dense, pruned: [classes], each between 0 and 1.
    """
    pairs = [finite(dense, 1, "dense probabilities"), finite(pruned, 1, "pruned probabilities")]
    for what, values in zip(("dense", "pruned"), pairs, strict=True):
        if len(values) != len(labels) or values.min() < -1e-6 or values.max() > 1 + 1e-6:
            raise LabError(
                got=f"{len(values)} {what} probabilities from {short(values.min())} to {short(values.max())}",
                allowed=f"one between 0 and 1 for each of the {len(labels)} labels",
                hint="pass prediction.probabilities of one input",
            )
    rows = np.arange(len(labels), dtype=float)
    marks: list[Bars | Words] = []
    for name, values, shift, colour in zip(
        ("dense", "pruned"), pairs, (-0.2, 0.2), (GREY, BLUE), strict=True
    ):
        marks.append(
            Bars(
                name,
                rows + shift,
                values,
                hover=(f"%{{customdata[0]}}, {name}", "%{x:.1%}"),
                hover_data=tuple((label,) for label in labels),
                thickness=0.36,
                colour=colour,
                hatched=name == "pruned",
            )
        )
        marks.append(Words(values, rows + shift, tuple(f"{value:.1%}" for value in values)))
    plot = Plot(
        "",
        Axis(
            "probability",
            (0.0, 1.12),
            (0.0, 0.25, 0.5, 0.75, 1.0),
            ("0", "0.25", "0.5", "0.75", "1"),
            grid=True,
        ),
        Axis(
            "",
            (len(labels) - 0.5, -0.5),
            tuple(rows),
            tuple(shorten(label, LONGEST_LABEL) for label in labels),
        ),
        tuple(marks),
    )
    best = [int(values.argmax()) for values in pairs]
    facts = [
        f"{name.capitalize()}: {labels[top]} with {percent(float(values[top]))}"
        for name, values, top in zip(("dense", "pruned"), pairs, best, strict=True)
    ]
    facts.append("Same prediction." if best[0] == best[1] else "The prediction changed.")
    chart = Chart(shorten(title, 70), ((plot,),), (max(110, 62 * len(labels)),))
    return make_view(chart, f"{sentence(title)} Bars of the probabilities of {len(labels)} classes.", facts)


def cost_bars(
    kept: float, dense: float, *, scorer: float = 0.0, title: str = "Operations", unit: str = "million MACs"
) -> View:
    """Draw the operations of the dense model and, beneath, those of the sub-network plus the scorer's own.

    kept, dense, scorer: MACs (not millions).
    """
    numbers = finite([kept, dense, scorer], 1, "MACs")
    if numbers.min() < 0 or dense <= 0:
        raise LabError(
            got=f"MACs from {short(numbers.min())}",
            allowed="counts of 0 or more",
            hint="pass run.macs's numbers",
        )
    rows = {"dense": {"run": dense / 1e6}, "pruned": {"score": scorer / 1e6, "run": kept / 1e6}}
    share = (kept + scorer) / dense
    facts = [
        f"Sub-network {percent(kept / dense)} of the dense MACs, with the scorer {percent(share)}",
        f"Dense: {short(dense / 1e6)} {unit}",
    ]
    chart = Chart(shorten(title, 70), ((_stacked(rows, unit, percent(share)),),), (110,))
    return make_view(chart, f"{sentence(title)} Stacked bars: dense, and pruned with its scorer.", facts)


def timing_bars(
    dense: float,
    steps: Mapping[str, float],
    *,
    interval: tuple[tuple[float, float], tuple[float, float]] | None = None,
    title: str = "Measured time",
    notice: str = "",
) -> View:
    """Draw the dense time and, beneath, the pruned run's steps one after another (score, plan, select, run).

    dense, steps: milliseconds. interval: (low, high) of the dense time and of the pruned total. notice: what
    was measured, for example "one thread, batch 1, 25 tokens". The digest holds no times: they differ between
    machines.
    """
    finite([dense, *steps.values()], 1, "times")
    rows = {"dense": {"run": dense}, "pruned": dict(steps)}
    share = sum(steps.values()) / dense if dense else 0.0
    plot = _stacked(rows, "milliseconds", percent(share), interval)
    chart = Chart(shorten(title, 70), ((plot,),), (110,), notice)
    facts = [f"Pruned run in steps: {', '.join(steps)}. Times differ between machines: see the figure."]
    return make_view(chart, f"{sentence(title)} Stacked bars: dense, and pruned step by step.", facts)


def _stacked(
    rows: Mapping[str, Mapping[str, float]],
    unit: str,
    share: str,
    interval: tuple[tuple[float, float], tuple[float, float]] | None = None,
) -> Plot:
    """Two stacked bars with the same step in the same colour; totals, and the pruned share, at their ends."""
    steps = sorted(
        dict.fromkeys(step for row in rows.values() for step in row), key=lambda step: step == "run"
    )
    totals = np.array([sum(row.values()) for row in rows.values()])
    ends = totals if interval is None else np.array([high for _, high in interval])
    colours = {"run": GREY} | dict(
        zip([s for s in steps if s != "run"], (ORANGE, *SERIES[2:4], BLUE), strict=False)
    )
    marks: list[Bars | Words] = []
    starts: Array = np.zeros(len(rows))
    for step in steps:
        lengths = np.array([row.get(step, 0.0) for row in rows.values()])
        last = step == steps[-1] and interval is not None
        low_high = (np.array([low for low, _ in interval]), ends) if last and interval else None
        marks.append(
            Bars(
                step,
                np.arange(len(rows), dtype=float),
                lengths,
                hover=(f"%{{customdata[0]}}, {step}", f"%{{customdata[1]}} {unit}"),
                hover_data=tuple((name, f"{length:.3g}") for name, length in zip(rows, lengths, strict=True)),
                starts=starts,
                interval=low_high,
                colour=colours.get(step, GREY),
                hatched=step == "run",
            )
        )
        starts = starts + lengths
    words = [f"{total:.3g}" for total in totals]
    words[-1] += f" ({share} of dense)"
    marks.append(Words(ends, np.arange(len(rows), dtype=float), tuple(words)))
    longest = max(float(ends.max()) / 0.95, float(ends[-1]) / 0.68)
    return Plot(
        "",
        Axis(unit, (0.0, max(longest * 1.0, float(ends.max()) * 1.1)), grid=True),
        Axis("", (len(rows) - 0.5, -0.5), tuple(float(i) for i in range(len(rows))), tuple(rows)),
        tuple(marks),
    )
