"""The explorer: one text under every budget, live. State, views and `observe`; no model code.

What is cheap (plan, mask, operations) is drawn at once while a slider is dragged; the rest (scoring, the cut
run, measured time) is computed in a worker thread, and results that came too late are dropped.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from dsgp_lab.edits import Unit, check_unit
from dsgp_lab.errors import LabError
from dsgp_lab.exploration import CUT, Choice, Exploration, Outcome, Planned, Scored
from dsgp_lab.panels.controls import SHORT, LayerSliders, UnitChooser, _wrap
from dsgp_lab.panels.unit_map import UnitMap
from dsgp_lab.panels.worker import Worker
from dsgp_lab.results import Text
from dsgp_lab.views import attention_map, cards, neuron_bars, sensitivity_heatmap
from dsgp_lab.views.style import shorten
from dsgp_lab.views.view import View

if TYPE_CHECKING:
    from dsgp_lab.evaluate.latency import LatencyTable
    from dsgp_lab.lab import Lab

DEBOUNCE = 0.12
"""Seconds that a slider must rest before the cut model runs."""

AT_ONCE = 128
"""Tokens up to which a panel scores its first text before it appears."""

INLINE = 64
"""Tokens up to which a router plans while the slider is dragged."""

FIRST_SECONDS, LATER_SECONDS = 0.2, 2.0
"""Time for the first measurement after a change, and for the better one that follows."""


class Explorer:
    """The panel of `lab.explore(text)`. Display it as the last line of a cell.

    `choice` is everything that is set; `scored`, `planned`, `outcome`, `latency` are what has been computed
    for it so far (None while it is on its way). `set(keep=0.4)` moves controls from code, `wait()` waits for
    the worker, `export(path)` saves the state, `close()` ends the panel and its work.
    """

    def __init__(self, lab: Lab, choice: Choice, exploration: Exploration | None = None) -> None:
        self.exploration = exploration or Exploration(lab)
        self.choice = choice
        self.scored: Scored | None = None
        self.planned: Planned | None = None
        self.outcome: Outcome | None = None
        self.latency: LatencyTable | None = None
        self.unit: Unit | None = None
        self._show_effect = False
        self._drawn_unit: tuple[Scored, Unit] | None = None
        self._quiet = False
        self._worker = Worker("explorer")
        self._make_controls(lab)
        tokens = len(self.exploration.lab(choice).tokens(choice.text))  # bad input is an error here
        if tokens <= AT_ONCE:
            self._take_scored(self.exploration.score(choice))
        else:
            self._start_map(None)
            self._restart()

    # ---- what users call

    @property
    def mask(self) -> Any:
        """The mask that is drawn, edits included; None while scoring."""
        return None if self.planned is None else self.planned.mask

    @property
    def sensitivity(self) -> Any:
        """The scores that are drawn; None while scoring."""
        return None if self.planned is None else self.planned.sensitivity

    def set(self, **changes: Any) -> None:
        """Move controls: text, task, regime, scorer, keep, as the mouse would; unknown names are an error."""
        allowed = ("text", "task", "regime", "scorer", "keep")
        unknown = sorted(set(changes) - set(allowed))
        if unknown:
            raise LabError(got=", ".join(unknown), allowed=", ".join(allowed), hint="use one of these names")
        wanted = replace(self.choice, **changes)
        self._show_choice(wanted)
        if set(changes) == {"keep"}:
            self._replan(wanted)
        else:
            self._change_input(wanted)

    def toggle(self, unit: Unit | tuple[str, int, int]) -> None:
        """Switch a unit off or on, as a click on it does."""
        unit = Unit(*unit)  # type: ignore[arg-type]
        if self.planned is not None:
            check_unit(unit, self.planned.mask)
            self._select(unit)
            self._show_effect = True
            self._replan(self.choice.toggled(unit), delay=0.0)

    def reset(self) -> None:
        """Take back everything that was changed by hand."""
        self._replan(self.choice.plain, delay=0.0)

    def wait(self, timeout: float = 60.0) -> bool:
        """Wait until everything is computed (in scripts and tests; a notebook's cell would wait in vain)."""
        return self._worker.wait(timeout)

    def close(self) -> None:
        """Stop all work and remove the panel."""
        self._worker.close()
        _close(self.widget)

    def export(self, path: str | Path) -> Path:
        """Write the state as one self-contained page, and beside it as JSON for `Lab.restore`.

        Raises:
            LabError: a name that does not end in .html, or nothing computed yet.
        """
        from dsgp_lab.panels.export import export_explorer

        return export_explorer(self, path)

    def view(self) -> View | None:
        """The heat maps with the mask as a figure; None while scoring."""
        if self.scored is None or self.planned is None:
            return None
        scores, mask = self.planned.sensitivity, self.planned.mask
        return sensitivity_heatmap(
            scores.heads[0],
            scores.blocks[0],
            mask_heads=mask.heads[0],
            mask_blocks=mask.blocks[0],
            title=" / ".join([self.scored.text] if isinstance(self.scored.text, str) else self.scored.text),
            unit=f"{self.choice.scorer.replace('_', ' ')} score",
            signed=bool((scores.heads < 0).any() or (scores.blocks < 0).any()),
        )

    def __repr__(self) -> str:
        """What is shown, in words."""
        view = self.view()
        choice = self.choice
        head = f"Explorer of {choice.task}, scorer {choice.scorer}, budget {choice.keep:g}"
        return head if view is None else f"{head}\n{view.digest}"

    def _repr_mimebundle_(self, **_: Any) -> Any:
        """The live panel; where no widget can be drawn, its still picture and its words."""
        bundle = self.widget._repr_mimebundle_()
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        data = dict(data) | {"text/plain": repr(self)}
        view = self.view()
        if view is not None:
            still, about = view._repr_mimebundle_()
            data["image/png"] = still["image/png"]
            metadata = dict(metadata) | about
        return data, metadata

    # ---- controls

    def _make_controls(self, lab: Lab) -> None:
        choice, anatomy = self.choice, lab.anatomy
        pair = not isinstance(choice.text, str)
        wide = w.Layout(flex="1 1 320px", min_width="260px")
        self.text_1 = w.Text(continuous_update=False, description="text", style=SHORT, layout=wide)
        self.text_2 = w.Text(continuous_update=False, description="second", style=SHORT, layout=wide)
        self.text_2.layout.display = "" if pair else "none"
        self.model = w.Dropdown(
            options=[(_model_name(*key), key) for key in self.exploration.models()],
            value=(choice.task, choice.regime),
            description="task",
            style=SHORT,
            layout=w.Layout(width="220px"),
        )
        self.scorer = w.Dropdown(description="scorer", style=SHORT, layout=w.Layout(width="220px"))
        self.keep = w.FloatSlider(
            min=0.05,
            max=1.0,
            step=0.01,
            description="keep",
            readout_format=".0%",
            style=SHORT,
            layout=w.Layout(flex="1 1 320px", min_width="260px"),
        )
        self.reset_button = w.Button(description="Undo edits", tooltip="Take back everything changed by hand")
        self.reset_button.on_click(lambda _: self.reset())
        self.export_button = w.Button(description="Export", tooltip="Save this state as HTML and JSON")
        self.export_button.on_click(lambda _: self._export_clicked())
        self.close_button = w.Button(description="Close", tooltip="End the panel and its work")
        self.close_button.on_click(lambda _: self.close())
        self.layers = LayerSliders(
            anatomy.num_layers, anatomy.num_heads, anatomy.num_blocks, self._on_layers
        )
        self.chooser = UnitChooser(
            anatomy.num_layers,
            {"head": anatomy.num_heads, "block": anatomy.num_blocks},
            self._on_choose,
            self.toggle,
        )
        names = ("status", "words", "prediction", "macs", "time", "check", "effect")
        self.html = {name: w.HTML(layout=w.Layout(width="100%")) for name in names}
        self.drill = w.Box(layout=w.Layout(width="100%", overflow="auto"))
        self.map_box = w.Box(layout=w.Layout(flex="0 1 auto", overflow="auto"))
        self._show_choice(choice)
        for control in (self.text_1, self.text_2, self.model, self.scorer):
            control.observe(self._on_input, names="value")
        self.keep.observe(self._on_keep, names="value")
        self.widget = self._lay_out()

    def _lay_out(self) -> w.VBox:
        side = [self.html[name] for name in ("prediction", "macs", "time", "check", "effect")]
        cards_box = w.VBox(side, layout=w.Layout(flex="1 1 320px", min_width="300px", max_width="460px"))
        buttons = w.HBox([self.reset_button, self.export_button, self.close_button])
        folds = w.Accordion(
            [
                w.VBox([self.chooser.widget, self.drill]),
                self.layers.widget,
                self.html["words"],
            ],
            titles=("A unit: its neurons, or what it attends to", "Layer by layer", "In words"),
        )
        return w.VBox(
            [
                w.HBox([self.text_1, self.text_2], layout=_wrap()),
                w.HBox([self.model, self.scorer, self.keep, buttons], layout=_wrap()),
                self.html["status"],
                w.HBox([self.map_box, cards_box], layout=w.Layout(flex_flow="row wrap", width="100%")),
                folds,
            ],
            layout=w.Layout(width="100%"),
        )

    def _show_choice(self, choice: Choice) -> None:
        """Set the controls to a choice without reacting to them."""
        self._quiet = True
        first, second = (choice.text, "") if isinstance(choice.text, str) else choice.text
        self.text_1.value, self.text_2.value = first, second
        if (choice.task, choice.regime) in [value for _, value in self.model.options]:
            self.model.value = (choice.task, choice.regime)
        names = self.exploration.scorers(choice.task, choice.regime)
        names = names if choice.scorer in names else (choice.scorer, *names)
        self.scorer.options = [(name.replace("_", " "), name) for name in names]
        self.scorer.value = choice.scorer
        self.keep.value = choice.keep
        self.text_2.layout.display = "none" if isinstance(choice.text, str) else ""
        self._quiet = False

    def _on_input(self, change: Any) -> None:
        if self._quiet:
            return
        task, regime = self.model.value
        text: Text = self.text_1.value
        if self.exploration.wants_pair(task, self.choice):
            text = (self.text_1.value, self.text_2.value)
        scorer = self.scorer.value
        if change["owner"] is self.model:
            names = self.exploration.scorers(task, regime)
            scorer = scorer if scorer in names else names[0]
            if not isinstance(text, str) and not text[1]:
                text = (text[0], text[0])
        wanted = replace(self.choice, text=text, task=task, regime=regime, scorer=scorer)
        self._show_choice(wanted)
        self._change_input(wanted)

    def _on_keep(self, change: Any) -> None:
        if not self._quiet:
            self._replan(replace(self.choice, keep=round(change["new"], 4)))

    def _on_layers(self, heads: tuple[int | None, ...], blocks: tuple[int | None, ...]) -> None:
        self._replan(replace(self.choice, heads=heads, blocks=blocks))

    def _on_choose(self, unit: Unit) -> None:
        if self.planned is not None:
            self._select(unit)
            self._show_effect = True
            self._submit_run(DEBOUNCE)

    def _select(self, unit: Unit) -> None:
        self.unit = unit
        self.chooser.show(unit)
        self._map.select(unit)

    def _export_clicked(self) -> None:
        number, path = 1, Path("explorer.html")
        while path.exists():
            number += 1
            path = Path(f"explorer-{number}.html")
        try:
            self.export(path)
        except (LabError, OSError) as error:
            self._fail(error)
        else:
            self._status(f"Saved {path.name} and {path.with_suffix('.json').name} beside the notebook.")

    # ---- from a change to a result

    def _change_input(self, wanted: Choice) -> None:
        """Another text, task or scorer: score anew; hand-made edits belong to the old scores."""
        self.choice = wanted.plain
        self._restart()

    def _restart(self) -> None:
        self.scored = self.planned = self.outcome = self.latency = None
        choice = self.choice
        what = "Scoring" if self.exploration.is_loaded(choice) else "Loading the model and scoring"
        self._status(f"{what}...")
        self._waiting()
        self._worker.submit(lambda _: self.exploration.score(choice), self._take_scored, self._fail, delay=0.02)

    def _take_scored(self, scored: Scored) -> None:
        self.scored = scored
        self._status("", scored.notices)
        if self.planned is None and self._long_plan(scored):
            choice = self.choice
            self._worker.submit(
                lambda _: self.exploration.plan(choice, scored), self._take_planned, self._fail
            )
        else:
            self._plan_now(0.0)

    def _replan(self, wanted: Choice, delay: float = DEBOUNCE) -> None:
        """Another budget or other edits: the cheap parts at once, the rest when the slider rests."""
        self.choice = wanted
        if self.scored is None:
            return
        if self._long_plan(self.scored):
            scored = self.scored
            self._waiting()
            self._worker.submit(
                lambda _: self.exploration.plan(wanted, scored), self._take_planned, self._fail, delay
            )
        else:
            self._plan_now(delay)

    def _long_plan(self, scored: Scored) -> bool:
        return scored.sensitivity is None and len(scored.tokens) > INLINE

    def _plan_now(self, delay: float) -> None:
        assert self.scored is not None
        try:
            planned = self.exploration.plan(self.choice, self.scored)
        except LabError as error:
            self._worker.cancel()
            self._fail(error)
        else:
            self._take_planned(planned, delay)

    def _take_planned(self, planned: Planned, delay: float = 0.0) -> None:
        assert self.scored is not None
        fresh = self.planned is None or planned.sensitivity is not self.planned.sensitivity
        self.planned, self.outcome, self.latency = planned, None, None
        choice = self.choice
        if fresh:
            self._start_map(self.view())
        self._map.set_mask(planned.mask, choice.flipped)
        self.layers.show(planned.mask, choice.heads, choice.blocks)
        macs = planned.macs
        self.html["macs"].value = cards.macs_card(
            macs.kept, macs.dense, macs.scorer, macs.charged, choice.keep, choice.edited
        )
        if "role" in self.html["status"].value:
            self._status("", self.scored.notices)
        self._waiting()
        self._submit_run(delay)

    def _submit_run(self, delay: float) -> None:
        """Run the cut model; then look into the chosen unit; then measure."""
        assert self.scored is not None
        if self.planned is None:
            return
        choice, scored, mask, unit = self.choice, self.scored, self.planned.mask, self.unit
        toggled = unit if self._show_effect else None

        def job(_: Callable[[], bool]) -> tuple[Outcome, View | None]:
            outcome = self.exploration.run(choice, scored, mask, toggled)
            drawn = self._drawn_unit == (scored, unit) if unit is not None else True
            return outcome, None if drawn or unit is None else self._drill(choice, scored, unit)

        self._worker.submit(job, self._take_outcome, self._fail, delay)

    def _take_outcome(self, result: tuple[Outcome, View | None]) -> None:
        outcome, drill = result
        assert self.scored is not None
        self.outcome = outcome
        self._draw_prediction()
        self.html["check"].value = cards.check_card(outcome.difference)
        regression = not self.scored.dense.probabilities
        if outcome.toggled is not None:
            effect = outcome.toggled
            self.html["effect"].value = cards.toggled_card(
                str(effect.unit), effect.runs, effect.estimate, effect.alone, effect.here, regression
            )
        if drill is not None and self.unit is not None:
            import plotly.graph_objects as go

            old = self.drill.children
            self.drill.children = (go.FigureWidget(drill.figure), _words(drill))
            self._drawn_unit = (self.scored, self.unit)
            for child in old:
                child.close()
        self._measure(FIRST_SECONDS)

    def _measure(self, seconds: float) -> None:
        if self.scored is None or self.planned is None:
            return
        choice, scored, planned = self.choice, self.scored, self.planned

        def job(stale: Callable[[], bool]) -> LatencyTable:
            rounds = self.exploration.rounds_in(choice, scored, seconds)
            return self.exploration.latency(choice, scored, planned.mask, rounds, stale)

        def done(table: LatencyTable) -> None:
            self.latency = table
            self._draw_time(more=seconds < LATER_SECONDS)
            if seconds < LATER_SECONDS:
                self._measure(LATER_SECONDS)

        self._worker.submit(job, done, self._fail)

    def _drill(self, choice: Choice, scored: Scored, unit: Unit) -> View:
        if unit.kind == "head":
            weights = self.exploration.attention(choice, scored, unit)
            return attention_map(weights, scored.tokens, layer=unit.layer, head=unit.number)
        values, ids = self.exploration.neurons(choice, scored, unit)
        return neuron_bars(
            values, layer=unit.layer, block=unit.number, ids=ids, order="sorted", unit="d margin / d gate"
        )

    # ---- drawing

    def _start_map(self, view: View | None) -> None:
        if view is None:
            return
        self.html["words"].value = cards.card("The heat maps", f"<pre>{cards.escape(view.digest)}</pre>")
        if hasattr(self, "_map") and len(self._map.widget.data[0].x) == len(view.figure.data[0].x):
            self._map.draw(view)
        else:
            self._map = UnitMap(view, self.toggle)
            self.map_box.children = (self._map.widget,)

    def _waiting(self) -> None:
        """Mark what belongs to an earlier mask."""
        if self.scored is not None and self.outcome is None and self.html["prediction"].value:
            self.html["prediction"].value = self.html["prediction"].value.replace("<section ", _PALE, 1)
        self.html["time"].value = cards.latency_card(None)

    def _draw_prediction(self) -> None:
        assert self.scored is not None
        assert self.outcome is not None
        dense, cut = self.scored.dense, self.outcome.prediction
        labels = self.exploration.lab(self.choice).labels
        self.html["prediction"].value = cards.prediction_card(
            labels,
            dense.probabilities,
            cut.probabilities,
            margins=(dense.margin, self.outcome.margin),
            values=(dense.label, cut.label),
        )

    def _draw_time(self, more: bool) -> None:
        assert self.latency is not None
        table = self.latency
        row, control = table[CUT], table.control
        threads = f"{table.threads} thread{'s' * (table.threads > 1)}, {table.setting}"
        self.html["time"].value = cards.latency_card(
            (row.ratio, row.ci_low, row.ci_high),
            (control.ratio, control.ci_low, control.ci_high),
            times=(table[table.baseline].median_ms, row.median_ms),
            rounds=table.rounds,
            setting=threads,
            note="Measuring more rounds..." if more else self._scorer_note(),
        )

    def _scorer_note(self) -> str:
        assert self.planned is not None
        if self.scored is not None and self.scored.sensitivity is None:
            return "The router's decisions are part of it." if not self.choice.edited else "Without the router."
        seconds = self.planned.sensitivity.seconds
        return f"Scoring took {1e3 * seconds:.0f} ms more, once, not counted here."

    def _status(self, sentence: str, notices: tuple[str, ...] = ()) -> None:
        lines = (*notices, *((sentence,) if sentence else ()))
        self.html["status"].value = cards.notice_card(lines)

    def _fail(self, error: BaseException) -> None:
        """An error as a sentence, its traceback folded."""
        if isinstance(error, LabError):
            self.html["status"].value = cards.error_card(str(error))
            return
        words = f"{type(error).__name__}: {shorten(str(error), 200)}"
        details = "".join(traceback.format_exception(error))
        self.html["status"].value = cards.error_card(f"This did not work. {words}", details)


_PALE = '<section data-pale="1" '


def _words(view: View) -> w.HTML:
    return w.HTML(f"<details><summary>In words</summary><pre>{cards.escape(view.digest)}</pre></details>")


def _model_name(task: str, regime: str) -> str:
    name = Path(task).name if Path(task).is_absolute() else task
    return name if regime == "frozen" else f"{name}, {regime}"


def _close(widget: w.Widget) -> None:
    """Close a widget and everything in it."""
    for child in getattr(widget, "children", ()):
        _close(child)
    widget.close()
