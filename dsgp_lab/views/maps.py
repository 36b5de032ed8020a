"""Heat maps of what masks do: word by word, and group by group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dsgp_lab.errors import LabError
from dsgp_lab.views.chart import Axis, Cells, Chart, Plot, Scale
from dsgp_lab.views.heatmap import UNITS, numbered
from dsgp_lab.views.style import Array, finite, percent, sentence, short, shorten
from dsgp_lab.views.view import View, make_view

LONGEST_WORD = 14
MOST_WORDS = 40


def word_map(
    heads: Any,
    blocks: Any,
    words: Sequence[str],
    *,
    title: str = "What each word switches",
    unit: str = "units",
    names: tuple[str, str] = UNITS,
) -> View:
    """Draw a number for each word and layer: heads [words, layers] above, blocks [words, layers] below.

    Words run left to right, layers bottom to top; both panels share one scale. The numbers are counts, or
    anything from zero upwards. Raises LabError for other shapes or more than `MOST_WORDS` words.
    """
    values = [finite(part, 2, f"{name}s by word") for part, name in zip((heads, blocks), names, strict=True)]
    if len({value.shape for value in values}) > 1 or len(values[0]) != len(words) or len(words) > MOST_WORDS:
        raise LabError(
            got=f"numbers of shape {' and '.join(str(list(v.shape)) for v in values)} for {len(words)} words",
            allowed=f"[words, layers] for heads and for blocks, at most {MOST_WORDS} words",
            hint="take a shorter text",
        )
    layers = values[0].shape[1]
    top = max(float(value.max()) for value in values) or 1.0
    labels = tuple(shorten(word, LONGEST_WORD) for word in words)
    ticks = tuple(float(i) for i in range(len(words)))
    plots = []
    for value, name in zip(values, names, strict=True):
        bottom = name == names[-1]
        cells = Cells(
            value.T,
            tuple(f"layer {layer}" for layer in range(layers)),
            tuple(f"{i} {word}" for i, word in enumerate(words)),  # a word may come twice
            Scale(0.0, top, False, unit),
            hover=("%{x}", "%{y}", f"%{{z:.3g}} {unit}"),
        )
        across = Axis("word", (-0.5, len(words) - 0.5), ticks, labels, upright=True)
        hidden = Axis("", (-0.5, len(words) - 0.5), (), ())
        up = Axis("layer", (-0.5, layers - 0.5), *numbered(layers, 8))
        plots.append(Plot(f"{name[:1].upper()}{name[1:]}s", across if bottom else hidden, up, (cells,)))
    total = sum(value.sum(1) for value in values)
    order = np.argsort(-total, kind="stable")[:3]
    facts = [
        f"{name}s by word: "
        + " ".join(f"{word} {short(float(n))}" for word, n in zip(words, part.sum(1), strict=True))
        for name, part in zip(names, values, strict=True)
    ]
    facts.append("Most: " + ", ".join(f"{words[i]} ({short(float(total[i]))})" for i in order))
    chart = Chart(shorten(title, 70), tuple((plot,) for plot in plots), (22 * layers,) * 2)
    return make_view(chart, f"{sentence(title)} Heat maps of {len(words)} words by {layers} layers.", facts)


def group_map(
    rates: Any,
    groups: Sequence[str],
    units: Sequence[str],
    *,
    title: str = "Which group keeps which units",
    unit: str = "share that keeps it",
    group_name: str = "",
) -> View:
    """Draw the share of each group's inputs that keep a unit: rates [groups, units], between 0 and 1.

    Groups run top to bottom, units left to right in the order given: choose those that differ.
    """
    values = finite(rates, 2, "rates")
    if values.shape != (len(groups), len(units)) or values.min() < 0 or values.max() > 1:
        raise LabError(
            got=f"rates of shape {list(values.shape)}, {short(values.min())} to {short(values.max())}",
            allowed=f"shares from 0 to 1 of shape [{len(groups)}, {len(units)}]",
            hint="pass the rates of the groups and units that you name",
        )
    rows = tuple(float(i) for i in range(len(groups)))
    columns = tuple(float(i) for i in range(len(units)))
    cells = Cells(
        values,
        tuple(groups),
        tuple(units),
        Scale(0.0, 1.0, False, unit),
        hover=("%{y}", "%{x}", "kept by %{z:.0%}"),
    )
    plot = Plot(
        "",
        Axis("unit", (-0.5, len(units) - 0.5), columns, tuple(units), upright=True),
        Axis(
            group_name, (len(groups) - 0.5, -0.5), rows, tuple(shorten(g, LONGEST_WORD + 4) for g in groups)
        ),
        (cells,),
    )
    facts = [_widest(values[:, i], groups, units[i]) for i in range(min(5, len(units)))]
    chart = Chart(shorten(title, 70), ((plot,),), (max(140, 26 * len(groups)),))
    return make_view(
        chart, f"{sentence(title)} Heat map of {len(groups)} groups by {len(units)} units.", facts
    )


def _widest(rates: Array, groups: Sequence[str], unit: str) -> str:
    most, least = int(rates.argmax()), int(rates.argmin())
    return (
        f"{unit}: kept by {percent(float(rates[most]))} of {groups[most]},"
        f" {percent(float(rates[least]))} of {groups[least]}"
    )
