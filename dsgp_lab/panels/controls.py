"""Groups of controls that panels are made of: sliders for each layer, and the choice of a unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as w

from dsgp_lab.edits import Counts, Kind, Unit
from dsgp_lab.mask import Mask

SHORT: dict[str, str] = {"description_width": "initial"}


class LayerSliders:
    """Two sliders a layer, for its heads and its blocks; a slider that was moved stays where it is put.

    `changed` is called with the counts of heads and of blocks, None where the plan decides.
    """

    def __init__(
        self,
        layers: int,
        heads: int,
        blocks: int,
        changed: Callable[[Counts, Counts], None],
    ) -> None:
        self._changed = changed
        self._quiet = False
        self._fixed: dict[Kind, list[int | None]] = {"head": [None] * layers, "block": [None] * layers}
        self.sliders: dict[Kind, list[w.IntSlider]] = {"head": [], "block": []}
        sizes: tuple[tuple[Kind, int], ...] = (("head", heads), ("block", blocks))
        for kind, most in sizes:
            for layer in range(layers):
                slider = w.IntSlider(
                    value=most,
                    max=most,
                    description=self._name(kind, layer, fixed=False),
                    style={"description_width": "130px"},
                    layout=w.Layout(width="360px"),
                )
                slider.observe(self._on_move(kind, layer), names="value")
                self.sliders[kind].append(slider)
        rows = [
            w.HBox([self.sliders["head"][layer], self.sliders["block"][layer]], layout=wrapping())
            for layer in reversed(range(layers))
        ]
        self.widget = w.VBox(rows, layout=w.Layout(max_height="420px", overflow="auto"))

    def show(self, mask: Mask, heads: tuple[int | None, ...], blocks: tuple[int | None, ...]) -> None:
        """Set the sliders to what runs, without calling `changed`; mark those that are fixed."""
        self._quiet = True
        parts: tuple[tuple[Kind, Any, tuple[int | None, ...]], ...] = (
            ("head", mask.heads, heads),
            ("block", mask.blocks, blocks),
        )
        for kind, part, counts in parts:
            layers = len(self.sliders[kind])
            self._fixed[kind] = list(counts) or [None] * layers
            for layer, (slider, count) in enumerate(
                zip(self.sliders[kind], part[0].sum(-1).tolist(), strict=True)
            ):
                fixed = self._fixed[kind][layer]
                slider.value = int(count) if fixed is None else fixed
                slider.description = self._name(kind, layer, fixed is not None)
        self._quiet = False

    def _name(self, kind: Kind, layer: int, fixed: bool) -> str:
        return f"layer {layer}: {kind}s" + (" (fixed)" if fixed else "")

    def _on_move(self, kind: Kind, layer: int) -> Callable[[Any], None]:
        def moved(change: Any) -> None:
            if not self._quiet:
                self._fixed[kind][layer] = change["new"]
                self._changed(tuple(self._fixed["head"]), tuple(self._fixed["block"]))

        return moved


class UnitChooser:
    """Choose and toggle a unit without a pointer: kind, layer, number, and a button."""

    def __init__(
        self,
        layers: int,
        units: dict[Kind, int],
        chosen: Callable[[Unit], None],
        toggled: Callable[[Unit], None],
    ) -> None:
        self._units, self._chosen, self._quiet = units, chosen, False
        options = [("head", "head"), ("neuron block", "block")]
        narrow = w.Layout(width="150px")
        self.kind = w.Dropdown(
            options=options, description="unit", layout=w.Layout(width="200px"), style=SHORT
        )
        self.layer = w.BoundedIntText(max=layers - 1, description="layer", layout=narrow, style=SHORT)
        self.number = w.BoundedIntText(
            max=units["head"] - 1, description="number", layout=narrow, style=SHORT
        )
        self.button = button("Toggle unit", "Switch the chosen unit off or on", lambda: toggled(self.unit))
        for control in (self.kind, self.layer, self.number):
            control.observe(self._on_change, names="value")
        self.widget = w.HBox([self.kind, self.layer, self.number, self.button], layout=wrapping())

    @property
    def unit(self) -> Unit:
        """The unit that is chosen."""
        return Unit(self.kind.value, self.layer.value, self.number.value)

    def show(self, unit: Unit) -> None:
        """Set the controls to a unit without calling `chosen`."""
        self._quiet = True
        self.kind.value = unit.kind
        self.number.max = self._units[unit.kind] - 1
        self.layer.value, self.number.value = unit.layer, unit.number
        self._quiet = False

    def _on_change(self, _: Any) -> None:
        self.number.max = self._units[self.kind.value] - 1
        if not self._quiet:
            self._chosen(self.unit)


def wrapping() -> w.Layout:
    """A row that goes on below where it is too wide."""
    return w.Layout(flex_flow="row wrap", align_items="center", width="100%")


def stretching() -> w.Layout:
    """Of a control that takes what room there is."""
    return w.Layout(flex="1 1 320px", min_width="260px", width="auto")


def button(name: str, tooltip: str, pressed: Callable[[], None]) -> w.Button:
    """A button as wide as its name."""
    made = w.Button(description=name, tooltip=tooltip, layout=w.Layout(width="auto"))
    made.on_click(lambda _: pressed())
    return made


def close_all(widget: w.Widget) -> None:
    """Close a widget and everything in it."""
    for child in getattr(widget, "children", ()):
        close_all(child)
    widget.close()
