"""The explorer: one text under every budget, live. State, views and `observe`; no model code.

What is cheap (plan, mask, operations) is drawn at once while a slider is dragged; the rest (scoring, the cut
run, measured time) is computed in a worker thread, and results that came too late are dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsgp_lab.edits import Counts, Unit, as_unit, check_unit
from dsgp_lab.errors import LabError
from dsgp_lab.exploration import Exploration
from dsgp_lab.exploration_results import Choice, Outcome, Planned, Scored
from dsgp_lab.mask import Mask
from dsgp_lab.panels.controls import close_all
from dsgp_lab.panels.explorer_views import about_scorer, mask_view, unit_view
from dsgp_lab.panels.face import Actions, Face, model_name
from dsgp_lab.panels.worker import Worker
from dsgp_lab.results import Text
from dsgp_lab.sensitivity import Sensitivity
from dsgp_lab.views.view import View

if TYPE_CHECKING:
    from dsgp_lab.evaluate.latency import LatencyTable
    from dsgp_lab.lab import Lab

DEBOUNCE = 0.1
"""Seconds that a slider must rest before the cut model runs."""

AT_ONCE = 128
"""Tokens up to which a panel scores its first text before it appears."""

INLINE = 64
"""Tokens up to which a router plans while the slider is dragged."""

FIRST_SECONDS, LATER_SECONDS = 0.15, 2.0
"""Time for the first measurement after a change, and for the better one that follows."""


class Explorer:
    """The panel of `lab.explore(text)`. Display it as the last line of a cell.

    `choice` is everything that is set; `scored`, `planned`, `outcome`, `latency` are what has been computed
    for it so far (None while it is on its way). `set(keep=0.4)` moves controls from code, `wait()` waits for
    the worker, `export(path)` saves the state, `close()` ends the panel and its work.
    """

    def __init__(self, lab: Lab, choice: Choice) -> None:
        self.exploration = Exploration(lab)
        self.choice = choice
        self.scored: Scored | None = None
        self.planned: Planned | None = None
        self.outcome: Outcome | None = None
        self.latency: LatencyTable | None = None
        self.unit: Unit | None = None
        self._drawn: tuple[Scored, Unit] | None = None
        tokens = len(lab.tokens(choice.text))  # bad input is an error here
        if choice.scorer not in self.exploration.scorers(choice.task, choice.regime):
            lab.scorer(choice.scorer)  # an error, or a scorer of another kind
        self._worker = Worker("explorer")
        actions = Actions(
            on_input=self._on_input,
            on_keep=lambda keep: self._replan(replace(self.choice, keep=keep)),
            on_layers=self._on_layers,
            on_choose=self._on_choose,
            on_toggle=self.toggle,
            on_reset=self.reset,
            on_export=self._on_export,
            on_close=self.close,
        )
        self.face = Face(lab, self.exploration, choice, actions)
        if tokens <= AT_ONCE:
            self._take_scored(self.exploration.score(choice))
        else:
            self._restart()

    # ---- what users call

    @property
    def mask(self) -> Mask | None:
        """The mask that is drawn, edits included; None while scoring."""
        return None if self.planned is None else self.planned.mask

    @property
    def sensitivity(self) -> Sensitivity | None:
        """The scores that are drawn; None while scoring."""
        return None if self.planned is None else self.planned.sensitivity

    def set(self, **changes: Any) -> None:
        """Move controls: text, task, regime, scorer, keep, as the mouse would; LabError if it could not."""
        allowed = ("text", "task", "regime", "scorer", "keep")
        unknown = sorted(set(changes) - set(allowed))
        if unknown:
            raise LabError(got=", ".join(unknown), allowed=", ".join(allowed), hint="use one of these names")
        wanted = replace(self.choice, **changes)
        self.exploration.check(wanted, self.choice)
        self.face.show_choice(wanted)
        if set(changes) == {"keep"}:
            self._replan(wanted)
        else:
            self._change_input(wanted)

    def toggle(self, unit: Unit | tuple[str, int, int]) -> None:
        """Switch a unit off or on, as a click on it does."""
        unit = as_unit(unit)
        if self.planned is not None:
            check_unit(unit, self.planned.mask)
            self.unit = unit
            self.face.draw_unit(unit)
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
        close_all(self.face.widget)

    def export(self, path: str | Path) -> Path:
        """Write the state as one self-contained page (.html), and beside it as JSON for `Lab.restore`.

        Raises:
            LabError: a name that does not end in .html, or nothing computed yet.
        """
        from dsgp_lab.panels.export import export_explorer

        return export_explorer(self, path)

    def view(self) -> View | None:
        """The heat maps with the mask as a figure; None while scoring."""
        if self.scored is None or self.planned is None:
            return None
        return mask_view(self.choice, self.scored, self.planned)

    def __repr__(self) -> str:
        """What is shown, in words."""
        view, choice = self.view(), self.choice
        model = model_name(choice.task, choice.regime)
        head = f"Explorer of {model}, scorer {choice.scorer}, budget {choice.keep:g}"
        return head if view is None else f"{head}\n{view.digest}"

    def _repr_mimebundle_(self, **_: Any) -> Any:
        """The live panel; where no widget can be drawn, its still picture and its words."""
        bundle = self.face.widget._repr_mimebundle_()
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        data = dict(data) | {"text/plain": repr(self)}
        view = self.view()
        if view is not None:
            still, about = view._repr_mimebundle_()
            data["image/png"] = still["image/png"]
            metadata = dict(metadata) | about
        return data, metadata

    # ---- what the controls call

    def _on_input(self, task_changed: bool) -> None:
        face = self.face
        task, regime = face.model.value
        first, second, scorer = face.text_1.value, face.text_2.value, face.scorer.value
        pair = self.exploration.wants_pair(task, self.choice)
        if task_changed:
            second = second or first
            names = self.exploration.scorers(task, regime)
            scorer = scorer if scorer in names else names[0]
        text: Text = (first, second) if pair else first
        wanted = replace(self.choice, text=text, task=task, regime=regime, scorer=scorer)
        face.show_choice(wanted)
        self._change_input(wanted)

    def _on_layers(self, heads: Counts, blocks: Counts) -> None:
        self._replan(replace(self.choice, heads=tuple(heads), blocks=tuple(blocks)))

    def _on_choose(self, unit: Unit) -> None:
        if self.planned is not None:
            self.unit = unit
            self.face.draw_unit(unit)
            self._run(DEBOUNCE)

    def _on_export(self) -> None:
        number, path = 1, Path("explorer.html")
        while path.exists():
            number += 1
            path = Path(f"explorer-{number}.html")
        try:
            self.export(path)
        except (LabError, OSError) as error:
            self.face.fail(error)
        else:
            names = f"{path.name} and {path.with_suffix('.json').name}"
            self.face.status(f"Saved {names} in {Path.cwd()}.")

    # ---- from a change to a result

    def _change_input(self, wanted: Choice) -> None:
        """Another text, task or scorer: score anew; hand-made edits belong to the old scores."""
        self.choice = wanted.plain
        self._restart()

    def _restart(self) -> None:
        self.scored = self.planned = self.outcome = self.latency = None
        choice = self.choice
        what = "Scoring" if self.exploration.is_loaded(choice) else "Loading the model and scoring"
        self.face.status(f"{what}...")
        self.face.waiting()
        self._worker.submit(lambda _: self.exploration.score(choice), self._take_scored, self.face.fail, 0.02)

    def _take_scored(self, scored: Scored) -> None:
        self.scored = scored
        self.face.status(notices=scored.notices)
        self._replan(self.choice, delay=0.0)

    def _replan(self, wanted: Choice, delay: float = DEBOUNCE) -> None:
        """Another budget or other edits: the cheap parts at once, the rest when the slider rests."""
        self.choice, scored = wanted, self.scored
        if scored is None:  # still scoring: what it gives is planned with this choice
            return
        if scored.sensitivity is None and len(scored.tokens) > INLINE:  # a router's plan is a run
            self.face.waiting()
            self._worker.submit(
                lambda _: self.exploration.plan(wanted, scored), self._take_planned, self.face.fail, delay
            )
            return
        try:
            planned = self.exploration.plan(wanted, scored)
        except LabError as error:
            self._worker.cancel()
            self.face.fail(error)
        else:
            self._take_planned(planned, delay)

    def _take_planned(self, planned: Planned, delay: float = 0.0) -> None:
        assert self.scored is not None
        fresh = self.planned is None or planned.sensitivity is not self.planned.sensitivity
        self.planned, self.outcome, self.latency = planned, None, None
        if fresh and (view := self.view()) is not None:
            self.face.draw_scores(view)
        self.face.draw_plan(planned, self.choice)
        if self.face.shows_error:
            self.face.status(notices=self.scored.notices)
        self.face.waiting()
        self._run(delay)

    def _run(self, delay: float) -> None:
        """Run the cut model and look into the chosen unit; then measure."""
        if self.scored is None or self.planned is None:
            return
        choice, scored, planned, unit = self.choice, self.scored, self.planned, self.unit

        def job(_: Callable[[], bool]) -> tuple[Outcome, View | None]:
            outcome = self.exploration.run(choice, scored, planned.mask, unit)
            if unit is None or self._drawn == (scored, unit):
                return outcome, None
            return outcome, unit_view(self.exploration, choice, scored, unit)

        def done(result: tuple[Outcome, View | None]) -> None:
            self.outcome, inside = result
            self.face.settle(planned, choice)
            self.face.draw_outcome(scored, self.outcome, self.exploration.lab(choice).labels)
            if inside is not None and unit is not None:
                self.face.draw_drill(inside)
                self._drawn = (scored, unit)
            self._measure(FIRST_SECONDS)

        self._worker.submit(job, done, self.face.fail, delay)

    def _measure(self, seconds: float) -> None:
        """Measure the time: a first answer soon, then a better one."""
        if self.scored is None or self.planned is None:
            return
        choice, scored, planned = self.choice, self.scored, self.planned

        def job(stale: Callable[[], bool]) -> LatencyTable:
            rounds = self.exploration.rounds_in(choice, scored, seconds)
            return self.exploration.latency(choice, scored, planned.mask, rounds, stale)

        def done(table: LatencyTable) -> None:
            self.latency = table
            more = seconds < LATER_SECONDS
            self.face.draw_time(
                table, "Measuring more rounds..." if more else about_scorer(choice, scored, planned)
            )
            if more:
                self._measure(LATER_SECONDS)

        self._worker.submit(job, done, self.face.fail)
