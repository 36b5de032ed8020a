"""A sweep with a progress bar: it runs in a worker thread, and the curve grows as results come in."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.cell import TEACHING, Cell, CellResult
from dsgp_lab.evaluate.cell_files import cell_path, read_cell
from dsgp_lab.evaluate.methods import DENSE, available_methods
from dsgp_lab.evaluate.results_curve import results_curve
from dsgp_lab.evaluate.results_rows import table_of
from dsgp_lab.evaluate.run_cell import run_cell
from dsgp_lab.evaluate.sweep import POLL_SECONDS, Outcome, clock, make_cells
from dsgp_lab.evaluate.sweep_plan import plan_cells
from dsgp_lab.panels.controls import SHORT, button, close_all, wrapping
from dsgp_lab.panels.face import error_html
from dsgp_lab.panels.live_figure import live
from dsgp_lab.panels.worker import Worker
from dsgp_lab.views.view import View
from dsgp_lab.whole_files import make_folder

if TYPE_CHECKING:
    import pandas as pd

    from dsgp_lab.lab import Lab

BUDGETS = (0.3, 0.4, 0.5, 0.6, 0.8)
RESAMPLES = 500
"""Bootstrap resamples for a curve that is still growing: fewer than in the results table."""

FIRST = ("router", "twin", "static_first_order", "random", "oracle_first_order")
"""Methods that are chosen at the start, where they are there."""


class SweepPanel:
    """The panel of `lab.sweep_panel()`. Display it as the last line of a cell.

    `rows` is the results table so far, as in `Results.rows` (None before two cells are done); `start()` and
    `cancel()` are the buttons; `wait()` waits for the end, `close()` ends the panel and its work.
    """

    def __init__(
        self, lab: Lab, folder: str | Path | None = None, run: Callable[[Cell], CellResult] = run_cell
    ) -> None:
        if lab.task is None:
            raise LabError(
                got=f"a sweep of {lab.name!r}, which is no embedded task",
                allowed="a lab of a GLUE task",
                hint="judge your own data with dsgp-lab evaluate",
            )
        self._task, self._regime, self._run_cell = lab.task.name, lab.regime, run
        self._own = tempfile.mkdtemp(prefix="dsgp-sweep-") if folder is None else None
        self.folder = Path(self._own or str(folder))
        self.rows: pd.DataFrame | None = None
        self.outcomes: list[Outcome] = []
        self._worker = Worker("sweep")
        self._make_controls()

    def start(self) -> None:
        """Plan the chosen cells and run what is not there yet."""
        said: list[str] = []
        try:
            cells = plan_cells(
                [self._task],
                [self._regime],
                list(self.methods.value),
                sorted(self.budgets.value),
                limit=self.limit.value or None,
                split=self.split.value or None,
                say=said.append,
            )
        except LabError as error:
            self.status.value = error_html(error)
            return
        self.outcomes, self.rows = [], None
        self.bar.max, self.bar.value = len(cells), 0
        self.status.value = escape(" ".join(said))
        self._busy(True)
        began = time.perf_counter()

        def job(stale: Callable[[], bool]) -> None:
            make_folder(self.folder)
            done: list[CellResult] = []
            missing = list(cells)
            while missing:
                elsewhere = []
                for outcome in (each for cell in missing for each in self._make(cell)):
                    if stale():
                        return
                    if outcome.state == "elsewhere":
                        elsewhere.append(outcome.cell)
                        continue
                    done.append(read_cell(cell_path(self.folder, outcome.cell)))
                    self._worker.tell(stale, self._take, self._judge(outcome, done, len(cells), began))
                missing = elsewhere
                if missing:
                    self._worker.tell(stale, self._wait_for, len(missing))
                    time.sleep(POLL_SECONDS)

        self._worker.submit(job, lambda _: self._finish("Done."), self._fail)

    def cancel(self) -> None:
        """Stop after the cell that is running; what is done stays."""
        self._worker.cancel()
        self._finish("Cancelled. What was done stays: Start goes on from there.")

    def wait(self, timeout: float = 600.0) -> bool:
        """Wait until everything is done (in scripts and tests)."""
        return self._worker.wait(timeout)

    def close(self) -> None:
        """Stop all work, remove the panel, and its folder if it is the panel's own."""
        self._worker.close()
        close_all(self.widget)
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)

    def view(self) -> View | None:
        """The curve so far; None before there is one."""
        return None if self.rows is None else results_curve(self.rows, self._task, self._regime)

    def __repr__(self) -> str:
        """How far it is."""
        head = f"Sweep of {self._task}, {self._regime}: {len(self.outcomes)} cells done"
        view = self.view()
        return head if view is None else f"{head}\n{view.digest}"

    def _repr_mimebundle_(self, **_: Any) -> Any:
        """The live panel; elsewhere its words."""
        bundle = self.widget._repr_mimebundle_()
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return dict(data) | {"text/plain": repr(self)}, metadata

    def _make_controls(self) -> None:
        names = [name for name in available_methods(self._task, self._regime) if name != DENSE]
        tall = w.Layout(height="150px", width="300px")
        self.methods = w.SelectMultiple(
            options=names,
            value=[n for n in FIRST if n in names],
            description="methods",
            layout=tall,
            style=SHORT,
        )
        self.budgets = w.SelectMultiple(
            options=[(f"{keep:.0%}", keep) for keep in (0.2, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)],
            value=BUDGETS,
            description="budgets",
            layout=w.Layout(height="150px", width="180px"),
            style=SHORT,
        )
        self.limit = w.BoundedIntText(
            value=64,
            max=100_000,
            description="examples (0: all)",
            style=SHORT,
            layout=w.Layout(width="220px"),
        )
        self.split = w.Dropdown(
            options=[("teaching set", TEACHING), ("GLUE's dev set, where it is", "")],
            description="data",
            style=SHORT,
        )
        self.start_button = button("Start", "Run the chosen methods at the chosen budgets", self.start)
        self.cancel_button = button("Cancel", "Stop after the cell that is running", self.cancel)
        self.close_button = button("Close", "End the panel and its work", self.close)
        self.bar = w.IntProgress(min=0, max=1, layout=w.Layout(flex="1 1 300px"))
        self.left, self.status = w.HTML(), w.HTML()
        self.figure_box = w.VBox(layout=w.Layout(overflow="auto"))
        buttons = w.HBox([self.start_button, self.cancel_button, self.close_button])
        settings = w.VBox([self.split, self.limit, buttons])
        self.widget = w.VBox(
            [
                w.HBox([self.methods, self.budgets, settings], layout=wrapping()),
                w.HBox([self.bar, self.left], layout=wrapping()),
                self.status,
                self.figure_box,
            ],
            layout=w.Layout(width="100%"),
        )
        self.widget.add_class("dsgp-sweep")
        self._busy(False)

    def _judge(
        self, outcome: Outcome, done: Sequence[CellResult], total: int, began: float
    ) -> tuple[Outcome, pd.DataFrame | None, str]:
        """What a finished cell adds: the table so far, and the time left; in the worker thread."""
        rows = table_of(done, RESAMPLES)[0] if len(done) > 1 else None
        number = len(self.outcomes) + 1
        seconds = (time.perf_counter() - began) / number * (total - number)
        left = f"about {clock(seconds)} left" if number < total else ""
        return outcome, rows, left

    def _take(self, found: tuple[Outcome, pd.DataFrame | None, str]) -> None:
        outcome, rows, left = found
        self.outcomes.append(outcome)
        self.bar.value = len(self.outcomes)
        self.left.value = escape(f"{len(self.outcomes)} of {self.bar.max} cells. {left}")
        self.status.value = escape(str(outcome))
        if rows is None or set(rows["method"]) == {DENSE}:
            return
        self.rows = rows
        view = self.view()
        assert view is not None
        old = self.figure_box.children
        words = w.HTML(f"<details><summary>In words</summary><pre>{escape(view.digest)}</pre></details>")
        self.figure_box.children = (live(view), words)
        for child in old:
            child.close()

    def _make(self, cell: Cell) -> Iterator[Outcome]:
        return make_cells([cell], self.folder, self._run_cell)

    def _wait_for(self, number: int) -> None:
        self.status.value = f"Another sweep makes {number} of these cells; waiting for it."

    def _finish(self, sentence: str) -> None:
        self._busy(False)
        self.status.value = escape(sentence)

    def _fail(self, error: BaseException) -> None:
        self._busy(False)
        self.status.value = error_html(error)

    def _busy(self, busy: bool) -> None:
        self.start_button.disabled, self.cancel_button.disabled = busy, not busy
