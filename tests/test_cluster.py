"""Sweeps on a Dask cluster of processes, one of which is killed in the middle."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cells import data_of_cards, fake_run, silent
from typer.testing import CliRunner

from dsgp_lab import LabError
from dsgp_lab.cli import app
from dsgp_lab.evaluate.cell import Cell, CellResult
from dsgp_lab.evaluate.cell_files import read_cells
from dsgp_lab.evaluate.cluster import cluster
from dsgp_lab.evaluate.run_cell import run_cell
from dsgp_lab.evaluate.sweep import sweep
from dsgp_lab.evaluate.sweep_plan import plan_cells

distributed = pytest.importorskip(
    "distributed", reason="no dask.distributed: pip install 'dsgp_lab[cluster]'"
)
pytestmark = pytest.mark.slow


def run_and_die_once(cell: Cell, notes: Path) -> CellResult:
    """Note cells that are begun and done; the first worker to begin a third one dies in it."""
    place = notes / "begun"
    with place.open("a") as file:
        file.write(f"{os.getpid()} {cell.key}\n")
    mine = [line for line in place.read_text().splitlines() if line.startswith(f"{os.getpid()} ")]
    if len(mine) == 3:
        try:
            (notes / "died").touch(exist_ok=False)
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    result = fake_run(cell)
    with (notes / "done").open("a") as file:
        file.write(f"{cell.key}\n")
    return result


@contextmanager
def two_workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of two processes of one thread each, which find this package and these tests."""
    paths = [str(Path(__file__).parent), *sys.path]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        silence_logs=50,
    ) as made:
        yield made


@pytest.fixture
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two workers and a data folder of cards."""
    home = tmp_path / "data"
    home.mkdir()
    data_of_cards(home, monkeypatch, ("sst2", "mrpc"))
    with two_workers(monkeypatch) as made:
        yield made


def test_real_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models are loaded, pruned and evaluated in the workers, with the very results of this process."""
    cells = plan_cells(
        ["sst2"], ["frozen"], ("random", "router"), (0.5,), limit=8, split="teaching", say=silent
    )
    with two_workers(monkeypatch) as made, cluster(made.scheduler_address) as executor:
        done = sweep(cells, tmp_path / "sweep", executor, say=silent)
    assert {outcome.state for outcome in done.outcomes} == {"made"}
    stored = {result.cell: result for result in read_cells(tmp_path / "sweep")}
    assert set(stored) == set(cells)
    assert [cell.method for cell in cells] == ["dense", "random", "router"]
    for cell in cells:
        mine, theirs = run_cell(cell).predictions, stored[cell].predictions
        assert len(theirs) == 8
        assert mine["idx"].tolist() == theirs["idx"].tolist()
        for own, other in zip(mine["logits"], theirs["logits"], strict=True):
            assert other == pytest.approx(own, abs=1e-4)
    assert 0.3 < stored[cells[2]].predictions["share"].mean() < 0.7


def test_a_killed_worker_costs_its_cell_and_nothing_else(workers: Any, tmp_path: Path) -> None:
    wanted = ("dense", "random", "static_fisher", "mismatched", "twin", "router")
    cells = plan_cells(["sst2", "mrpc"], ["frozen"], wanted, keeps=(0.35, 0.5), say=silent)
    notes = tmp_path / "notes"
    notes.mkdir()
    run = partial(run_and_die_once, notes=notes)
    with cluster(workers.scheduler_address) as executor:
        made = sweep(cells, tmp_path / "sweep", executor, say=silent, run=run)
    assert (notes / "died").exists(), "no worker died: the test shows nothing"
    assert Counter(outcome.cell.key for outcome in made.outcomes) == Counter(cell.key for cell in cells)
    stored = read_cells(tmp_path / "sweep")
    assert {result.cell.key for result in stored} == {cell.key for cell in cells}
    assert Counter((notes / "done").read_text().split()) == Counter(cell.key for cell in cells)
    begun = [line.split() for line in (notes / "begun").read_text().splitlines()]
    assert len(begun) == len(cells) + 1  # the cell that died with its worker was begun twice
    assert len({pid for pid, _ in begun}) >= 2
    assert not list((tmp_path / "sweep").glob("*.claim"))


def test_the_command(workers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells that are there already need no model: the command only has to hand them over and back."""
    monkeypatch.chdir(tmp_path)
    cells = plan_cells(["sst2"], ["frozen"], ("dense", "random"), keeps=(0.5,), say=silent)
    sweep(cells, "made", say=silent, run=fake_run)
    choice = ["--tasks", "sst2", "--regimes", "frozen", "--methods", "dense,random", "--keeps", "0.5"]
    command = ["sweep", *choice, "--out", "made", "--scheduler", workers.scheduler_address]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert re.search(r"cells there +2", done.output)


def test_a_scheduler_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsgp_lab.evaluate.cluster.PATIENCE", "1s")
    for address in ("tcp://127.0.0.1:1", "nowhere"):
        with pytest.raises(LabError, match=r"no Dask scheduler at .*dask scheduler"), cluster(address):
            pass


def test_a_scheduler_without_workers() -> None:
    settings = {"n_workers": 0, "host": "127.0.0.1", "dashboard_address": None, "silence_logs": 50}
    refused = pytest.raises(LabError, match="without workers")
    with distributed.LocalCluster(**settings) as made, refused, cluster(made.scheduler_address):
        pass


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(LabError, match=r"dsgp_lab\[cluster\]"), cluster("tcp://127.0.0.1:1"):
        pass
