"""The explorer's face: its widgets and how they lie, without what happens when they are used."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from dsgp_lab.edits import Counts, Unit
from dsgp_lab.errors import LabError
from dsgp_lab.exploration import CUT, Exploration, shown_name
from dsgp_lab.exploration_results import Choice, Outcome, Planned, Scored
from dsgp_lab.panels.controls import (
    SHORT,
    LayerSliders,
    UnitChooser,
    button,
    close_all,
    stretching,
    wrapping,
)
from dsgp_lab.panels.live_figure import live
from dsgp_lab.panels.unit_map import UnitMap
from dsgp_lab.views import cards
from dsgp_lab.views.style import shorten
from dsgp_lab.views.view import View

if TYPE_CHECKING:
    from dsgp_lab.evaluate.latency import LatencyTable
    from dsgp_lab.lab import Lab

CARDS = ("prediction", "macs", "time", "check", "effect")
HINT = "Click a square, or choose a unit above: it is switched off or on, and looked into here."


@dataclass(frozen=True)
class Actions:
    """What the face calls when it is used."""

    on_input: Callable[[bool], None]
    """The text, the scorer, or (True) the task has changed."""
    on_keep: Callable[[float], None]
    on_layers: Callable[[Counts, Counts], None]
    on_choose: Callable[[Unit], None]
    on_toggle: Callable[[Unit], None]
    on_reset: Callable[[], None]
    on_export: Callable[[], None]
    on_close: Callable[[], None]


class Face:
    """All widgets of an explorer; `widget` holds them, `html` the cards by name."""

    def __init__(self, lab: Lab, exploration: Exploration, choice: Choice, actions: Actions) -> None:
        self._exploration, self._actions = exploration, actions
        self._quiet = False
        self.map: UnitMap | None = None
        self.text_1, self.text_2 = (
            w.Text(continuous_update=False, description=name, style=SHORT, layout=stretching())
            for name in ("text", "second text")
        )
        self.model = w.Dropdown(
            options=[(model_name(*key), key) for key in exploration.models()],
            value=(choice.task, choice.regime),
            description="task",
            style=SHORT,
            layout=w.Layout(width="220px"),
        )
        self.scorer = w.Dropdown(description="scorer", style=SHORT, layout=w.Layout(width="220px"))
        limits = {"min": 0.05, "max": 1.0, "step": 0.01, "readout_format": ".0%"}
        self.keep = w.FloatSlider(description="keep", style=SHORT, layout=stretching(), **limits)
        self.reset = button("Undo edits", "Take back everything changed by hand", actions.on_reset)
        self.export = button("Export", "Save this state as HTML and JSON", actions.on_export)
        self.close = button("Close", "End the panel and its work", actions.on_close)
        units = lab.anatomy
        self.layers = LayerSliders(units.num_layers, units.num_heads, units.num_blocks, actions.on_layers)
        self.chooser = UnitChooser(
            units.num_layers,
            {"head": units.num_heads, "block": units.num_blocks},
            actions.on_choose,
            actions.on_toggle,
        )
        self.html = {name: w.HTML(layout=w.Layout(width="auto")) for name in ("status", "words", *CARDS)}
        self.drill = w.VBox([w.HTML(f"<p>{HINT}</p>")], layout=w.Layout(overflow="auto"))
        self.map_box = w.Box(layout=w.Layout(flex="0 1 auto", overflow="auto"))
        self.show_choice(choice)
        self.widget = self._lay_out()
        self._name_parts()
        for control in (self.text_1, self.text_2, self.model, self.scorer):
            control.observe(self._on_input, names="value")
        self.keep.observe(self._on_keep, names="value")

    def _lay_out(self) -> w.VBox:
        for name in CARDS:
            self.html[name].layout = w.Layout(
                width="auto", flex="1 1 272px", min_width="250px", margin="0 4px"
            )
        beside = w.Layout(flex="1 1 280px", flex_flow="row wrap", align_content="flex-start")
        side = w.Box([self.html[name] for name in CARDS], layout=beside)
        folds = w.Accordion(
            [self.layers.widget, self.html["words"]], titles=("Layer by layer", "The heat maps in words")
        )
        left = w.VBox(
            [self.map_box, self.chooser.widget, self.drill], layout=w.Layout(flex="0 1 auto", overflow="auto")
        )
        buttons = w.HBox([self.reset, self.export, self.close])
        rows = [
            w.HBox([self.text_1, self.text_2], layout=wrapping()),
            w.HBox([self.model, self.scorer, self.keep, buttons], layout=wrapping()),
            self.html["status"],
            w.HBox([left, side], layout=w.Layout(flex_flow="row wrap", width="100%")),
            folds,
        ]
        return w.VBox(rows, layout=w.Layout(width="100%"))

    def _name_parts(self) -> None:
        """CSS classes, by which a page's style or a test finds the parts."""
        parts = {"explorer": self.widget, "text": self.text_1, "keep": self.keep, "map": self.map_box}
        for name, part in (parts | {"drill": self.drill} | self.html).items():
            part.add_class(f"dsgp-{name}")

    # ---- what is set

    def show_choice(self, choice: Choice) -> None:
        """Set the controls to a choice without reacting to them."""
        self._quiet = True
        first, second = (choice.text, "") if isinstance(choice.text, str) else choice.text
        self.text_1.value, self.text_2.value = first, second
        self.text_2.layout.display = "none" if isinstance(choice.text, str) else ""
        if (choice.task, choice.regime) in [value for _, value in self.model.options]:
            self.model.value = (choice.task, choice.regime)
        names = self._exploration.scorers(choice.task, choice.regime)
        names = names if choice.scorer in names else (choice.scorer, *names)
        self.scorer.options = [(name.replace("_", " "), name) for name in names]
        self.scorer.value = choice.scorer
        self.keep.min = min(self.keep.min, choice.keep)
        self.keep.value = choice.keep
        self._quiet = False

    def _on_input(self, change: Any) -> None:
        if not self._quiet:
            self._actions.on_input(change["owner"] is self.model)

    def _on_keep(self, change: Any) -> None:
        if not self._quiet:
            self._actions.on_keep(round(change["new"], 4))

    # ---- what is shown

    def draw_scores(self, view: View) -> None:
        """Draw other scores; the mask follows with `draw_plan`."""
        self.html["words"].value = f"<pre>{escape(view.digest)}</pre>"
        if self.map is not None and self.map.fits(view):
            self.map.draw(view)
        else:
            old, self.map = self.map, UnitMap(view, self._actions.on_toggle)
            self.map_box.children = (self.map.widget,)
            if old is not None:
                close_all(old.widget)

    def draw_plan(self, planned: Planned, choice: Choice) -> None:
        """Mask and operations: what follows a slider while it is dragged."""
        assert self.map is not None
        self.map.set_mask(planned.mask, choice.flipped)
        macs = planned.macs
        self.html["macs"].value = cards.macs_card(
            macs.kept, macs.dense, macs.scorer, macs.charged, choice.keep, choice.edited
        )

    def settle(self, planned: Planned, choice: Choice) -> None:
        """What can wait until the slider rests: layer sliders, the figure itself, what hovering says."""
        assert self.map is not None
        self.map.settle(planned.mask)
        self.layers.show(planned.mask, choice.heads, choice.blocks)

    def draw_outcome(self, scored: Scored, outcome: Outcome, labels: tuple[str, ...]) -> None:
        """Prediction, the check of the cut, and one unit's effect."""
        self.html["prediction"].value = cards.prediction_card(
            labels,
            scored.dense.probabilities,
            outcome.prediction.probabilities,
            margins=(scored.dense.margin, outcome.margin),
            values=(scored.dense.label, outcome.prediction.label),
        )
        self.html["check"].value = cards.check_card(outcome.difference)
        if (effect := outcome.toggled) is not None:
            numbers = (effect.estimate, effect.alone, effect.here)
            self.html["effect"].value = cards.toggled_card(
                str(effect.unit), effect.runs, *numbers, regression=not labels
            )

    def draw_time(self, table: LatencyTable, note: str) -> None:
        """The measured time."""
        row, control = table[CUT], table.control
        self.html["time"].value = cards.latency_card(
            (row.ratio, row.ci_low, row.ci_high),
            (control.ratio, control.ci_low, control.ci_high),
            times=(table[table.baseline].median_ms, row.median_ms),
            rounds=table.rounds,
            setting=f"{table.threads} thread{'s' * (table.threads > 1)}, {table.setting}",
            note=note,
        )

    def draw_drill(self, view: View) -> None:
        """A unit's inside in place of the last one's."""
        old = self.drill.children
        words = w.HTML(f"<details><summary>In words</summary><pre>{escape(view.digest)}</pre></details>")
        self.drill.children = (live(view), words)
        for child in old:
            child.close()

    def draw_unit(self, unit: Unit) -> None:
        """Frame a unit and set the chooser to it."""
        self.chooser.show(unit)
        if self.map is not None:
            self.map.select(unit)

    def waiting(self) -> None:
        """Mark what belongs to an earlier mask as pale."""
        card = self.html["prediction"]
        if card.value and not card.value.startswith(PALE):
            card.value = f"{PALE}{card.value}</div>"
        self.html["time"].value = cards.latency_card(None)

    def status(self, sentence: str = "", notices: tuple[str, ...] = ()) -> None:
        """Say something above the figures; an error that stood there goes."""
        self.html["status"].value = cards.notice_card((*notices, *((sentence,) if sentence else ())))

    def fail(self, error: BaseException) -> None:
        """Show an error as a sentence, its traceback folded; a user's mistake needs none."""
        self.html["time"].value = ""
        self.html["status"].value = error_html(error)

    @property
    def shows_error(self) -> bool:
        """Whether an error stands above the figures."""
        return 'role="alert"' in self.html["status"].value


PALE = '<div style="opacity:.4">'


def error_html(error: BaseException) -> str:
    """An error as a sentence, its traceback folded; a user's mistake needs none."""
    if isinstance(error, LabError):
        return cards.error_card(str(error))
    words = f"This did not work. {type(error).__name__}: {shorten(str(error), 200)}"
    return cards.error_card(words, "".join(traceback.format_exception(error)))


def model_name(task: str, regime: str) -> str:
    """What a model is called in the list of tasks."""
    return shown_name(task) if regime == "frozen" else f"{shown_name(task)}, {regime}"
