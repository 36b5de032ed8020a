"""Sweeps: many cells into a folder, one file each, so that a killed sweep goes on where it stopped.

Several sweeps may work on one folder at the same time, in one process, in several, or on any executor.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.cell import Cell, CellResult
from dsgp_lab.evaluate.cell_files import cell_path, claimed, read_cell, write_cell
from dsgp_lab.evaluate.run_cell import run_cell
from dsgp_lab.evaluate.sweep_plan import group_cells
from dsgp_lab.report import Report
from dsgp_lab.whole_files import make_folder

POLL_SECONDS = 1.0
"""Wait before looking again at cells that another sweep works on."""

State = Literal["made", "made anew", "there", "elsewhere"]


@dataclass(frozen=True)
class Outcome:
    """What became of a cell in a sweep.

    state: made now; "made anew", its file was damaged; there already; or another sweep works on it.
    seconds: the time it took here. metrics: empty where another sweep works on it.
    """

    cell: Cell
    state: State
    seconds: float
    metrics: dict[str, float]

    def __str__(self) -> str:
        """One line of progress."""
        values = ", ".join(f"{name} {value:.4f}" for name, value in self.metrics.items())
        how = {"made": f"{self.seconds:.1f} s", "made anew": f"{self.seconds:.1f} s, its file was damaged"}
        return f"{self.cell}: {values} ({how.get(self.state, self.state)})"


@dataclass(frozen=True)
class Sweep:
    """A finished sweep: an outcome a cell, in the order in which they were done; seconds of all."""

    folder: Path
    outcomes: tuple[Outcome, ...]
    seconds: float

    def report(self) -> Report:
        """How many cells were made, were there, were damaged."""
        states = [outcome.state for outcome in self.outcomes]
        rows = [(f"cells {state}", str(states.count(state))) for state in dict.fromkeys(states)]
        return Report(f"Sweep in {self.folder}", (*rows, ("time", clock(self.seconds))))

    def __str__(self) -> str:
        """A text table."""
        return self.report().text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.report().html()


def sweep(
    cells: Sequence[Cell],
    folder: Path | str,
    executor: Executor | None = None,
    say: Callable[[str], None] = print,
    run: Callable[[Cell], CellResult] = run_cell,
) -> Sweep:
    """Make every cell's file in `folder`, in this process or on an executor; what is there is kept.

    A damaged file is made anew. Cells that another sweep works on are waited for, and taken over if that
    sweep dies. `run` makes one cell; on an executor of processes it must be picklable. In a terminal a bar
    shows the progress, elsewhere `say` gets a line a cell.

    Raises:
        LabError: whatever `run` raises for a cell; cells that were done stay.
    """
    folder, start = Path(folder), time.perf_counter()
    make_folder(folder)
    wanted = list(dict.fromkeys(cells))
    outcomes: list[Outcome] = []
    with _Watch(len(wanted), say) as watch:

        def note(outcome: Outcome) -> None:
            outcomes.append(outcome)
            watch.tell(outcome)

        missing = []
        for cell in wanted:
            try:
                stored = _stored(cell_path(folder, cell))
            except LabError:
                stored = None  # damaged; `make_cells` says so
            if stored is None:
                missing.append(cell)
            else:
                note(Outcome(cell, "there", 0.0, stored.metrics))
        waiting = 0
        while missing:
            elsewhere = []
            for outcome in _run_groups(group_cells(missing), folder, executor, run):
                if outcome.state == "elsewhere":
                    elsewhere.append(outcome.cell)
                else:
                    note(outcome)
            if len(elsewhere) not in (0, waiting):
                say(f"Another sweep makes {len(elsewhere)} of these cells; waiting for it.")
            waiting = len(elsewhere)
            if waiting:
                time.sleep(POLL_SECONDS)
            missing = elsewhere
    return Sweep(folder, tuple(outcomes), time.perf_counter() - start)


def processes(number: int) -> AbstractContextManager[Executor | None]:
    """An executor of that many fresh processes; None, the process itself, for 1."""
    if number == 1:
        return nullcontext()
    # a fork would copy the locks of torch's threads in whatever state they are
    return ProcessPoolExecutor(number, mp_context=get_context("spawn"))


def make_cells(cells: Sequence[Cell], folder: Path, run: Callable[[Cell], CellResult]) -> Iterator[Outcome]:
    """Make cells one by one, each under a claim; those that another process works on are passed over."""
    for cell in cells:
        path, start = cell_path(folder, cell), time.perf_counter()
        with claimed(path) as mine:
            if not mine:
                yield Outcome(cell, "elsewhere", 0.0, {})
                continue
            state: State = "made"
            try:
                result = _stored(path)
            except LabError:
                result, state = None, "made anew"
            if result is None:
                result = run(cell)
                write_cell(result, path)
            else:
                state = "there"  # another sweep has just finished it
        yield Outcome(cell, state, time.perf_counter() - start, result.metrics)


def clock(seconds: float) -> str:
    """A duration for people.

    >>> clock(8.4), clock(200), clock(7500)
    ('8 s', '3 min 20 s', '2 h 5 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _stored(path: Path) -> CellResult | None:
    """A finished cell, None if there is none; LabError if it is damaged."""
    return read_cell(path) if path.exists() else None


def _run_groups(
    groups: Sequence[Sequence[Cell]],
    folder: Path,
    executor: Executor | None,
    run: Callable[[Cell], CellResult],
) -> Iterator[Outcome]:
    if executor is None:
        for group in groups:
            yield from make_cells(group, folder, run)
        return
    futures = [executor.submit(_make_all, group, folder, run) for group in groups]
    try:
        for future in as_completed(futures):
            yield from future.result()
    finally:  # after an error, what has not begun is not begun
        for future in futures:
            future.cancel()


def _make_all(cells: Sequence[Cell], folder: Path, run: Callable[[Cell], CellResult]) -> list[Outcome]:
    return list(make_cells(cells, folder, run))


class _Watch:
    """Progress with the time left: a bar in a terminal, else a line a cell."""

    def __init__(self, total: int, say: Callable[[str], None]) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        self._total, self._say = total, say
        self._done = self._made = 0
        self._start = time.perf_counter()
        self._bar: Progress | None = None
        if say is print and sys.stdout.isatty():
            self._bar = Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._row = self._bar.add_task("cells", total=total)

    def __enter__(self) -> _Watch:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def tell(self, outcome: Outcome) -> None:
        self._done += 1
        self._made += outcome.state != "there"
        if self._bar is not None:
            self._bar.console.print(str(outcome), highlight=False, markup=False)
            self._bar.advance(self._row)
            return
        left = ""
        if self._made and self._done < self._total:  # cells that were there took no time
            each = (time.perf_counter() - self._start) / self._made
            left = f"; about {clock(each * (self._total - self._done))} left"
        self._say(f"[{self._done}/{self._total}] {outcome}{left}")
