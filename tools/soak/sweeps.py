"""Sweeps that are killed at random moments, and two processes on one folder."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cells import data_of_cards, fake_run, silent
from figures import Figure

from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.cell import Cell, CellResult
from dsgp_lab.evaluate.cell_files import cell_path, read_cell
from dsgp_lab.evaluate.run_cell import run_cell
from dsgp_lab.evaluate.sweep import sweep
from dsgp_lab.evaluate.sweep_plan import plan_cells

Run = Callable[[Cell], CellResult]
KILLS_A_FOLDER = 10


@contextmanager
def made_up_cells(number: int) -> Iterator[tuple[Path, list[Cell]]]:
    """An empty folder and cells of a data folder without models."""
    with TemporaryDirectory() as home, pytest.MonkeyPatch.context() as patch:
        data_of_cards(Path(home), patch)
        keeps = [round(0.2 + 0.8 * i / number, 4) for i in range(number)]
        cells = plan_cells(["sst2"], ["frozen"], ["random"], keeps, say=silent)
        yield Path(home) / "sweep", cells[:number]


def work(cells: list[Cell], folder: Path, run: Run, pause: float) -> None:
    """A sweep that notes the cells it begins; what a killed process runs."""

    def noting(cell: Cell) -> CellResult:
        with (folder / "begun").open("a") as file:
            file.write(f"{cell.key}\n")
        time.sleep(pause)
        return run(cell)

    sweep(cells, folder, say=silent, run=noting)


def begun(folder: Path) -> list[str]:
    """Keys of the cells that were begun, in that order."""
    path = folder / "begun"
    return path.read_text().split() if path.exists() else []


def killed(
    cells: list[Cell],
    folder: Path,
    kills: int,
    run: Run,
    between: tuple[float, float],
    chance: random.Random,
) -> Counter[str]:
    """Kill a sweep again and again after so many seconds, then let it end; count what went wrong."""
    processes = get_context("fork" if run is fake_run else "spawn")
    wrong: Counter[str] = Counter(torn=0, doubled=0, lost=0, left=0, inside=0)
    whole: dict[Path, bytes] = {}
    for _ in range(kills):
        before = len(begun(folder))
        process = processes.Process(target=work, args=(cells, folder, run, 0.0))
        process.start()
        process.join(chance.uniform(*between))
        wrong["inside"] += process.is_alive()
        process.kill()  # SIGKILL
        process.join()
        wrong["doubled"] += sum(folder / f"{key}.parquet" in whole for key in begun(folder)[before:])
        wrong["torn"] += sum(path.read_bytes() != content for path, content in whole.items())
        for path in folder.glob("*.parquet"):
            try:
                read_cell(path)
            except LabError:
                wrong["torn"] += 1
            whole[path] = path.read_bytes()
    done = sweep(cells, folder, say=silent, run=run)
    states = {outcome.cell: outcome.state for outcome in done.outcomes}
    wrong["lost"] += sum(states.get(cell) not in ("made", "there") for cell in cells)
    wrong["left"] += sum(path.suffix in (".tmp", ".claim") for path in folder.iterdir())
    return wrong


def judged(check: str, wrong: Counter[str], kills: int, cells: int) -> Figure:
    """The figure of killed sweeps."""
    bad = wrong["torn"] + wrong["doubled"] + wrong["lost"] + wrong["left"]
    found = (
        f"{kills} kills, {wrong['inside']} while it worked, {cells} cells: {wrong['lost']} lost,"
        f" {wrong['doubled']} run twice, {wrong['torn']} torn, {wrong['left']} files left over"
    )
    return Figure(check, found, "0 of each", bad == 0 and wrong["inside"] > 0)


def killed_sweep(kills: int = 50, cells: int = 40, seed: int = 0) -> Figure:
    """Kill sweeps of made-up cells with SIGKILL at random moments; a new folder every ten kills."""
    chance, wrong, total = random.Random(seed), Counter[str](), 0
    while kills > total:
        here = min(KILLS_A_FOLDER, kills - total)
        with made_up_cells(cells) as (folder, planned):
            sweep(planned[:1], folder / "first", say=silent, run=fake_run)  # which loads libraries
            start = time.perf_counter()
            sweep(planned, folder / "trial", say=silent, run=fake_run)
            whole = time.perf_counter() - start
            folder.mkdir(exist_ok=True)
            wrong.update(killed(planned, folder, here, fake_run, (0, 1.5 * whole / here), chance))
        total += here
    return judged("sweep killed at random moments", wrong, total, cells * -(-total // KILLS_A_FOLDER))


def killed_real_sweep(kills: int = 3, seed: int = 0) -> Figure:
    """The same with the embedded model on eight sentences of the teaching set, and equal to a quiet run."""
    chance = random.Random(seed)
    asked = (["sst2"], ["frozen"], ["random"], [0.3, 0.5, 0.7])
    plan = plan_cells(*asked, limit=8, split="teaching", say=silent)
    with TemporaryDirectory() as home:
        folder, quiet = Path(home) / "killed", Path(home) / "quiet"
        folder.mkdir()
        quiet.mkdir()
        process = get_context("spawn").Process(target=work, args=(plan, quiet, run_cell, 0.0))
        start = time.perf_counter()
        process.start()
        process.join()
        seconds = time.perf_counter() - start
        wrong = killed(plan, folder, kills, run_cell, (0.3 * seconds, seconds), chance)
        pairs = [(read_cell(cell_path(folder, c)), read_cell(cell_path(quiet, c))) for c in plan]
        wrong["lost"] += sum(not a.predictions.equals(b.predictions) for a, b in pairs)
    return judged("the same with a real model", wrong, kills, len(plan))


def two_processes(cells: int = 40) -> Figure:
    """Two processes begin the same sweep on one folder at the same time."""
    with made_up_cells(cells) as (folder, planned):
        folder.mkdir()
        context = get_context("fork")
        both = [context.Process(target=work, args=(planned, folder, fake_run, 0.01)) for _ in range(2)]
        for process in both:
            process.start()
        for process in both:
            process.join()
        codes = [process.exitcode for process in both]
        runs = Counter(begun(folder))
        torn = lost = 0
        for cell in planned:
            try:
                path = cell_path(folder, cell)
                lost += not path.exists() or read_cell(path).cell != cell
            except LabError:
                torn += 1
    twice = sum(count > 1 for count in runs.values())
    found = f"{cells} cells: {lost} lost, {twice} run twice, {torn} torn; exit codes {codes}"
    good = not (lost or twice or torn or any(codes))
    return Figure("two processes on one folder", found, "0 of each", good)


if os.name != "posix":
    raise SystemExit("The soak needs Linux or macOS.")
