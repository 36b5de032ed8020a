"""The heat maps of heads and blocks as a live figure: the mask changes without drawing anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dsgp_lab.edits import Kind, Unit
from dsgp_lab.mask import Mask
from dsgp_lab.views.style import ORANGE
from dsgp_lab.views.view import CONFIG, View

KINDS: tuple[Kind, Kind] = ("head", "block")


class UnitMap:
    """A FigureWidget of `sensitivity_heatmap(..., mask_heads=..., mask_blocks=...)`.

    Traces: heads, their crosses, blocks, their crosses (as the view draws them), then the rings around units
    that were changed by hand, heads and blocks. `clicked` is called with the unit under the pointer.
    """

    def __init__(self, view: View, clicked: Callable[[Unit], None]) -> None:
        self.widget = live(view)
        for number, axes in enumerate((("x", "y"), ("x2", "y2"))):
            self.widget.add_scatter(
                x=[],
                y=[],
                xaxis=axes[0],
                yaxis=axes[1],
                mode="markers",
                marker={
                    "symbol": "circle-open",
                    "size": 20,
                    "color": ORANGE,
                    "line": {"width": 3, "color": ORANGE},
                },
                hoverinfo="skip",
                showlegend=False,
            )
            self.widget.data[2 * number].on_click(self._on_click(KINDS[number], clicked))
            self._cross_all(number)
        self._selected: Unit | None = None
        self._flipped: tuple[Unit, ...] = ()

    def fits(self, view: View) -> bool:
        """Whether another view has the same units."""
        shapes = [
            [np.shape(figure.data[number].z) for number in (0, 2)] for figure in (self.widget, view.figure)
        ]
        return bool(shapes[0] == shapes[1])

    def draw(self, view: View) -> None:
        """Replace scores, scale, mask and title by those of another view of the same model."""
        redraw(self.widget, view)
        for number in (0, 1):
            self._cross_all(number)

    def set_mask(self, mask: Mask, flipped: tuple[Unit, ...] = ()) -> None:
        """Cross out the units that do not run, and ring those that were changed by hand."""
        with self.widget.batch_update():
            for number, part in enumerate((mask.heads[0], mask.blocks[0])):
                heat, crosses = self.widget.data[2 * number], self.widget.data[2 * number + 1]
                crosses.marker.opacity = (~part).flatten().int().tolist()
                if flipped == self._flipped:
                    continue
                mine = [unit for unit in flipped if unit.kind == KINDS[number]]
                self.widget.data[4 + number].update(
                    x=[heat.x[unit.number] for unit in mine], y=[heat.y[unit.layer] for unit in mine]
                )
        self._flipped = flipped

    def name_states(self, mask: Mask) -> None:
        """Say on hovering which units run. Dearer than the crosses, so left until a slider rests."""
        with self.widget.batch_update():
            for number, part in enumerate((mask.heads[0], mask.blocks[0])):
                heat = self.widget.data[2 * number]
                extra = np.array(heat.customdata, dtype=object)
                extra[:, :, 1] = np.where(part.numpy(), "kept", "pruned")
                heat.customdata = extra.tolist()

    def select(self, unit: Unit | None) -> None:
        """Frame a unit."""
        if unit == self._selected:
            return
        self._selected = unit
        self.widget.layout.shapes = [] if unit is None else [_frame(unit)]

    def _cross_all(self, number: int) -> None:
        """Put a cross on every unit: which ones are seen is a matter of opacity, quick to change."""
        heat, crosses = self.widget.data[2 * number], self.widget.data[2 * number + 1]
        places = [(x, y) for y in heat.y for x in heat.x]
        with self.widget.batch_update():
            crosses.update(x=[x for x, _ in places], y=[y for _, y in places])

    def _on_click(self, kind: Kind, clicked: Callable[[Unit], None]) -> Callable[..., None]:
        def on_click(trace: Any, points: Any, _: Any) -> None:
            if points.xs and points.ys:
                number = list(trace.x).index(points.xs[0])
                clicked(Unit(kind, list(trace.y).index(points.ys[0]), number))

        return on_click


def redraw(widget: go.FigureWidget, view: View) -> None:
    """Replace a live figure's numbers and words by those of a view with the same plots."""
    with widget.batch_update():
        for old, new in zip(widget.data, view.figure.data, strict=False):
            old.update(new.to_plotly_json(), overwrite=False)
        widget.layout.annotations = view.figure.layout.annotations


def live(view: View) -> go.FigureWidget:
    """A view as a widget, without the tool bar's buttons that do not belong here."""
    widget = go.FigureWidget(view.figure)
    widget._config = widget._config | CONFIG
    return widget


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
