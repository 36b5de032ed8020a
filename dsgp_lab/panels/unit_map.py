"""The heat maps of heads and blocks as a live figure: the mask changes without drawing anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ipywidgets as w
import numpy as np
import plotly.graph_objects as go

from dsgp_lab.edits import Kind, Unit
from dsgp_lab.mask import Mask
from dsgp_lab.panels.live_figure import live, redraw
from dsgp_lab.views.style import ORANGE
from dsgp_lab.views.view import View

KINDS: tuple[Kind, Kind] = ("head", "block")
AXES = (("x", "y"), ("x2", "y2"))


class UnitMap:
    """The figure of `sensitivity_heatmap(..., mask_heads=..., mask_blocks=...)`, as `widget`.

    Traces of `figure`: heads, their crosses, blocks, their crosses (as the view draws them), then the rings
    around units that were changed by hand, heads and blocks. `clicked` is called with the unit under the
    pointer.

    A FigureWidget draws everything anew for whatever changes, 50 ms: too slow for a slider that is dragged.
    So `set_mask` shows and hides crosses by a style sheet in `quick`, and `settle`, called when the slider
    rests, brings the figure itself up to it.
    """

    def __init__(self, view: View, clicked: Callable[[Unit], None]) -> None:
        self.figure = live(replace(view, figure=_with_marks(view.figure)))
        self.quick = w.HTML(layout=w.Layout(display="none"))
        self.widget = w.Box([self.figure, self.quick])
        self._scope = f"dsgp-map-{self.figure.model_id[:8]}"
        self.widget.add_class(self._scope)
        for number, kind in enumerate(KINDS):
            self.figure.data[2 * number].on_click(self._on_click(kind, clicked))
        self._selected: Unit | None = None
        self._flipped: tuple[Unit, ...] = ()

    def fits(self, view: View) -> bool:
        """Whether another view has the same units."""
        shapes = [
            [np.shape(figure.data[number].z) for number in (0, 2)] for figure in (self.figure, view.figure)
        ]
        return bool(shapes[0] == shapes[1])

    def draw(self, view: View) -> None:
        """Replace scores, scale, mask and title by those of another view of the same model."""
        redraw(self.figure, replace(view, figure=_with_marks(view.figure)))
        self._flipped = ()

    def set_mask(self, mask: Mask, flipped: tuple[Unit, ...] = ()) -> None:
        """Cross out the units that do not run, and ring those that were changed by hand."""
        self.quick.value = self._style(mask)
        if flipped == self._flipped:
            return
        self._flipped = flipped
        with self.figure.changing():
            for number, kind in enumerate(KINDS):
                heat = self.figure.data[2 * number]
                mine = [unit for unit in flipped if unit.kind == kind]
                self.figure.data[4 + number].update(
                    x=[heat.x[unit.number] for unit in mine], y=[heat.y[unit.layer] for unit in mine]
                )

    def settle(self, mask: Mask) -> None:
        """Bring the figure up to the mask: its crosses, and what hovering says."""
        with self.figure.changing():
            for number, part in enumerate((mask.heads[0], mask.blocks[0])):
                heat, crosses = self.figure.data[2 * number], self.figure.data[2 * number + 1]
                crosses.marker.opacity = (~part).flatten().int().tolist()
                extra = np.array(heat.customdata, dtype=object)
                extra[:, :, 1] = np.where(part.numpy(), "kept", "pruned")
                heat.customdata = extra.tolist()

    def _style(self, mask: Mask) -> str:
        """A style sheet that hides all crosses but those on units that do not run."""
        rules = []
        for axes, part in zip(AXES, (mask.heads[0], mask.blocks[0]), strict=True):
            # the first scatter trace of the heat map's plot; its points stand in the order of the data
            crosses = f".{self._scope} .subplot.{''.join(axes)} .scatterlayer .trace:first-child .points path"
            pruned = (~part).flatten().nonzero()[:, 0].tolist()
            shown = ",".join(f":nth-child({number + 1})" for number in pruned)
            rules.append(f"{crosses}{{opacity:0!important}}")
            rules.append(f"{crosses}:is({shown}){{opacity:1!important}}")
        return f"<style>{''.join(rules)}</style>"

    def select(self, unit: Unit | None) -> None:
        """Frame a unit."""
        if unit == self._selected:
            return
        self._selected = unit
        with self.figure.changing():
            self.figure.layout.shapes = [] if unit is None else [_frame(unit)]

    def _on_click(self, kind: Kind, clicked: Callable[[Unit], None]) -> Callable[..., None]:
        def on_click(trace: Any, points: Any, _: Any) -> None:
            if points.xs and points.ys:
                number = list(trace.x).index(points.xs[0])
                clicked(Unit(kind, list(trace.y).index(points.ys[0]), number))

        return on_click


def _with_marks(figure: go.Figure) -> go.Figure:
    """The view's figure with a cross on every unit (a style says which are seen), and rings around none."""
    traces = list(figure.data)
    for number, (x, y) in enumerate(AXES):
        heat, crosses = figure.data[2 * number], go.Scatter(figure.data[2 * number + 1])
        places = [(column, row) for row in heat.y for column in heat.x]
        crosses.update(x=[column for column, _ in places], y=[row for _, row in places])
        traces[2 * number + 1] = crosses
        ring = {"symbol": "circle-open", "size": 20, "color": ORANGE, "line": {"width": 3, "color": ORANGE}}
        traces.append(
            go.Scatter(
                x=[], y=[], xaxis=x, yaxis=y, mode="markers", marker=ring, hoverinfo="skip", showlegend=False
            )
        )
    return go.Figure(traces, figure.layout)


def _frame(unit: Unit) -> dict[str, Any]:
    suffix = "" if unit.kind == "head" else "2"
    return {
        "type": "rect",
        "xref": f"x{suffix}",
        "yref": f"y{suffix}",
        "x0": unit.number - 0.5,
        "x1": unit.number + 0.5,
        "y0": unit.layer - 0.5,
        "y1": unit.layer + 0.5,
        "line": {"color": ORANGE, "width": 3},
        "fillcolor": "rgba(0,0,0,0)",
    }
