"""Figures of measured time: ratios with their intervals, and a ratio over batch and length.

Digests hold no times: they differ between machines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dsgp_lab.errors import LabError
from dsgp_lab.views.chart import Axis, Bars, Cells, Chart, Plot, Points, Rule, Scale, Words
from dsgp_lab.views.style import BLUE, GREY, ORANGE, finite, sentence, shorten
from dsgp_lab.views.view import View, make_view

if TYPE_CHECKING:
    from dsgp_lab.evaluate.latency import LatencyTable

ROW = 30


def ratio_bars(table: LatencyTable, *, title: str = "Measured time") -> View:
    """Draw each variant's time over the baseline's with its 95 % interval, the A/A control at the bottom.

    A diamond is what the operations predict, where they were counted.
    """
    rows = (*table.rows, table.control)
    place = np.arange(len(rows), dtype=float)
    ratio, low, high = (np.array([getattr(r, n) for r in rows]) for n in ("ratio", "ci_low", "ci_high"))
    last = len(rows) - 1
    bars = [
        Bars(
            name,
            place[part],
            ratio[part],
            hover=("%{customdata[0]}", "ratio %{x:.3f}", "95 %: %{customdata[1]}", "%{customdata[2]}"),
            hover_data=tuple(
                (r.variant, f"{r.ci_low:.3f} to {r.ci_high:.3f}", f"{r.median_ms:.2f} ms") for r in rows[part]
            ),
            interval=(low[part], high[part]),
            colour=colour,
            hatched=hatched,
        )
        for name, part, colour, hatched in (
            ("measured", slice(0, last), BLUE, False),
            ("A/A control", slice(last, last + 1), GREY, True),
        )
    ]
    predicted = [(r.macs, float(i)) for i, r in enumerate(rows) if r.macs is not None]
    marks: list[Any] = [*bars, Rule((1.0, -0.5), (1.0, last + 0.5))]
    if predicted:
        x, y = np.array(predicted).T
        names = tuple((rows[int(i)].variant,) for i in y)
        hover = ("%{customdata[0]}", "MACs predict %{x:.3f}")
        marks.append(Points("MACs predict", x, y, hover, names, colour=ORANGE, marker="diamond"))
    ends = np.maximum(high, [r.macs or 0.0 for r in rows])
    words = tuple(f"{r.ratio:.2f}" for r in rows)
    marks.append(Words(ends, place, words))
    across = Axis(f"time / {table.baseline}", (0.0, 1.15 * float(ends.max())), grid=True)
    down = Axis("", (last + 0.5, -0.5), tuple(place.tolist()), tuple(shorten(r.variant, 34) for r in rows))
    chart = Chart(shorten(title, 70), ((Plot("", across, down, tuple(marks)),),), (ROW * len(rows),))
    facts = [f"{len(table.rows)} variants and the control, {table.rounds} rounds, {table.threads} thread(s)."]
    return make_view(chart, f"{sentence(title)} Bars of time over {table.baseline}, with intervals.", facts)


def ratio_map(ratios: Any, rows: Sequence[str], columns: Sequence[str], *, title: str, unit: str) -> View:
    """Draw numbers around 1 [rows, columns], such as time over dense, with the number in each cell.

    Red is above 1, where nothing is gained; NaN stays empty.
    """
    values = np.asarray(ratios, dtype=float)
    if values.shape != (len(rows), len(columns)) or not np.isfinite(values).any():
        raise LabError(
            got=f"ratios of shape {list(values.shape)}",
            allowed=f"[{len(rows)}, {len(columns)}], at least one of them a number",
            hint="pass one row name and one column name for each",
        )
    there = np.isfinite(values)
    around = np.where(there, values - 1, 0.0)
    reach = max(1.0, float(np.abs(finite(around, 2, "ratios")).max()))
    y, x = np.nonzero(there)
    cells = Cells(
        around,
        tuple(rows),
        tuple(columns),
        Scale(-reach, reach, True, f"{unit} - 1"),
        hover=("batch %{y}, %{x} tokens", f"{unit} %{{customdata[0]}}"),
        extra=np.where(there, np.round(values, 2).astype(str), "not measured")[..., None],
    )
    words = Words(x.astype(float), y.astype(float), tuple(f"{v:.2f}" for v in values[there]), centred=True)
    ticks = tuple(float(i) for i in range(len(columns))), tuple(columns)
    across = Axis("tokens", (-0.5, len(columns) - 0.5), *ticks)
    up = Axis("batch", (-0.5, len(rows) - 0.5), tuple(float(i) for i in range(len(rows))), tuple(rows))
    chart = Chart(shorten(title, 70), ((Plot("", across, up, (cells, words)),),), (46 * len(rows),))
    facts = [f"{len(rows)} batch sizes by {len(columns)} lengths; {int(there.sum())} measured."]
    return make_view(chart, f"{sentence(title)} Heat map over batch and length.", facts)
