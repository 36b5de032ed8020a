"""One panel of budget curves at a time, large, chosen from a menu."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from dsgp_lab.errors import LabError
from dsgp_lab.views.curves import Curve, budget_curves
from dsgp_lab.views.style import FONT_PX, INK, PAPER, escape_label, sentence, shorten
from dsgp_lab.views.view import View

LONGEST_TITLE = 60
"""Characters of the title that leave room for the tool bar beside it."""


def curve_picker(
    panels: Mapping[str, Sequence[Curve]],
    *,
    title: str = "Score and budget",
    x_name: str = "share of MACs",
    y_name: str = "points against dense",
    reference: float | None = 0.0,
) -> View:
    """Draw one panel of `budget_curves`, each on its own scale; a menu in the figure changes the panel.

    The menu is part of the figure: it works without a kernel and in a saved page. The still twin shows the
    first panel. Panels without a curve are left out.
    """
    names = [name for name, curves in panels.items() if curves]
    if not names:
        raise LabError(
            got="no curves", allowed="a panel with a curve in it", hint="choose methods that are in the table"
        )
    short = shorten(title, LONGEST_TITLE)
    views = [
        budget_curves({name: panels[name]}, title=short, x_name=x_name, y_name=y_name, reference=reference)
        for name in names
    ]
    alt = f"{sentence(title)} Curves of {y_name} over the {x_name}, one of {len(names)} panels at a time."
    facts = [f"Panels: {', '.join(names)}", *views[0].digest.splitlines()[1:]]
    figure = _with_menu(names, [view.figure for view in views])
    return View(figure, views[0].static, "\n".join([alt, *facts]), alt)


def _with_menu(names: Sequence[str], figures: Sequence[go.Figure]) -> go.Figure:
    owners = [number for number, figure in enumerate(figures) for _ in figure.data]
    traces = [trace.to_plotly_json() for figure in figures for trace in figure.data]
    for trace, owner in zip(traces, owners, strict=True):
        trace["visible"] = owner == 0
    layouts = [figure.layout.to_plotly_json() for figure in figures]
    buttons = [
        {
            "label": escape_label(shorten(name, 20)),
            "method": "update",
            "args": [{"visible": [owner == number for owner in owners]}, _changes(layouts[number])],
        }
        for number, name in enumerate(names)
    ]
    menu = {
        "buttons": buttons,
        "x": 1,
        "xanchor": "right",
        "y": layouts[0]["yaxis"]["domain"][1],  # above the plot: at the very top is plotly's tool bar
        "yanchor": "bottom",
        "pad": {"b": 2, "r": 8},
        "showactive": True,
        "bgcolor": PAPER,
        "font": {"size": FONT_PX, "color": INK},
    }
    return go.Figure({"data": traces, "layout": {**layouts[0], "updatemenus": [menu] if names[1:] else []}})


def _changes(layout: dict[str, Any]) -> dict[str, Any]:
    """What differs between the layouts of two panels."""
    axes = {
        f"{axis}.{part}": layout[axis][part]
        for axis in ("xaxis", "yaxis")
        for part in ("range", "tickvals", "ticktext", "domain")
        if part in layout[axis]
    }
    return axes | {"annotations": layout["annotations"], "shapes": layout["shapes"]}
