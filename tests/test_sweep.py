"""Sweeps: plans, keys, files that are whole or refused, claims, resuming, two at once."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from cells import card, data_of_cards, fake_run, silent

from dsgp_lab import LabError, cli
from dsgp_lab.evaluate import cell_files
from dsgp_lab.evaluate import sweep as sweep_module
from dsgp_lab.evaluate.cell import Cell, CellResult, key_of
from dsgp_lab.evaluate.cell_files import cell_path, claimed, read_cell, read_cells, write_cell
from dsgp_lab.evaluate.methods import METHODS, OF_TWIN, ROUTED, STATIC, available_methods
from dsgp_lab.evaluate.run_cell import run_cell
from dsgp_lab.evaluate.sweep import make_cells, processes, sweep
from dsgp_lab.evaluate.sweep_plan import group_cells, plan_cells
from dsgp_lab.regimes import trained_folder


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of cards for sst2 and mrpc; returns its checkpoints."""
    home = tmp_path / "data"
    home.mkdir()
    return data_of_cards(home, monkeypatch, ("sst2", "mrpc"))


@pytest.fixture
def few(cards: Path) -> list[Cell]:
    """Five cells on the teaching set."""
    wanted = ("dense", "random", "router", "mismatched", "twin")
    return plan_cells(["sst2"], ["frozen"], wanted, keeps=(0.5,), say=silent)


# Cells and their keys


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "imdb"}, "Got task 'imdb'"),
        ({"regime": "warm"}, "regime='warm'"),
        ({"method": "michel"}, "method 'michel'"),
        ({"keep": 1.5}, r"keep=1\.5"),
        ({"split": "test"}, r"split 'test' of sst2\. Allowed: train, validation, teaching"),
        ({"limit": 0}, "limit=0"),
        ({"method": "dense"}, r"dense with keep=0\.5"),
    ],
)
def test_cells_that_cannot_be(changes: dict[str, object], message: str) -> None:
    with pytest.raises(LabError, match=message):
        replace(Cell("sst2", "frozen", "random", 0.5), **changes)  # type: ignore[arg-type]


def test_the_key_changes_with_every_part_of_a_cell(cards: Path) -> None:
    cell = Cell("sst2", "frozen", "router", 0.5, split="teaching")
    others = [
        replace(cell, task="mrpc"),
        replace(cell, method="mismatched"),
        replace(cell, keep=0.25),
        replace(cell, seed=1),
        replace(cell, limit=24),
        replace(cell, split="validation"),
    ]
    assert len({each.key for each in (cell, *others)}) == 7
    assert cell.key == replace(cell).key == key_of(json.loads(json.dumps(cell.configuration())))


def test_the_key_follows_the_files_and_not_their_place(cards: Path, tmp_path: Path) -> None:
    cell = Cell("sst2", "frozen", "router", 0.5, split="teaching")
    static = Cell("sst2", "frozen", "static_fisher", 0.5, split="teaching")
    before = cell.key, static.key
    moved = tmp_path / "elsewhere"
    card(trained_folder("sst2", "frozen", root=moved), router__safetensors="r" * 64)
    assert replace(cell, root=moved).key == cell.key
    card(cards / "sst2" / "frozen", router__safetensors="another")
    assert cell.key != before[0]
    assert static.key == before[1]  # it does not use the router
    card(cards / "sst2", adapter_model__safetensors="another")
    assert static.key != before[1]


def test_a_cell_without_its_checkpoint(cards: Path) -> None:
    with pytest.raises(LabError, match=r"joint.card\.json, which cannot be read"):
        _ = Cell("sst2", "joint", "router", 0.5).key


# Plans


def test_available_methods(cards: Path, tmp_path: Path) -> None:
    assert list(available_methods("sst2", "frozen")) == [name for name in METHODS if name != "other_task"]
    without = [name for name in METHODS if name not in ROUTED]
    assert list(available_methods("sst2", "frozen", tmp_path / "other")) == without
    assert available_methods("sst2", "joint") == ()
    assert available_methods("cola", "frozen") == ()
    card(trained_folder("sst2", "joint"), router__safetensors="j")
    assert list(available_methods("sst2", "joint")) == [
        name for name in METHODS if name not in (*OF_TWIN, "other_task")
    ]
    card(trained_folder("sst2", "shared"), router__safetensors="s")
    assert {"router", "other_task"} <= set(available_methods("mrpc", "shared"))
    assert available_methods("wnli", "shared") == ()


def test_a_plan_has_everything_that_is_there(cards: Path) -> None:
    said: list[str] = []
    cells = plan_cells(keeps=(0.25, 0.5), seeds=(0, 1), say=said.append)
    assert {cell.task for cell in cells} == {"sst2", "mrpc"}
    assert {cell.method for cell in cells} == set(METHODS) - {"other_task"}
    assert {cell.split for cell in cells} == {"teaching"}
    assert [line for line in said if "teaching set is used instead" in line] == said != []
    per_method = Counter(cell.method for cell in cells if cell.task == "sst2")
    every = dict.fromkeys(set(METHODS) - {"other_task"}, 2)
    assert per_method == every | {"dense": 1, "random": 4, "mismatched": 4, "cascade_by_lot": 4}
    assert cells[0].method == "dense"
    assert len(set(cells)) == len(cells)


def test_a_plan_leaves_out_what_is_not_there_and_says_so(cards: Path, tmp_path: Path) -> None:
    said: list[str] = []
    root = tmp_path / "other"
    cells = plan_cells(
        ["sst2", "cola"],
        ["frozen", "joint"],
        ["router", "random"],
        split="teaching",
        root=root,
        say=said.append,
    )
    assert {(cell.regime, cell.method) for cell in cells} == {("frozen", "dense"), ("frozen", "random")}
    assert said == [
        "sst2 frozen: no checkpoint for router; left out.",
        "sst2 joint: no checkpoint for router, random; left out.",
        "cola: no dense checkpoint to compare with; left out.",
    ]


def test_plans_that_cannot_be(cards: Path) -> None:
    with pytest.raises(LabError, match=r"method 'michel'\. Allowed: dense"):
        plan_cells(methods=["michel"])
    with pytest.raises(LabError, match=r"regime 'warm'\. Allowed: frozen, joint"):
        plan_cells(regimes=["warm"])
    with pytest.raises(LabError, match="task 'imdb'"):
        plan_cells(["imdb"])
    with pytest.raises(LabError, match="no-glue"):  # asked for by name, so nothing else will do
        plan_cells(["sst2"], split="validation")
    with pytest.raises(LabError, match=r"split 'test' of sst2"):
        plan_cells(["sst2"], split="test")
    with pytest.raises(LabError, match="a sweep without a cell"):
        plan_cells(["cola"], say=silent)


def test_cells_that_share_a_run_stay_together(cards: Path) -> None:
    cells = plan_cells(["sst2"], keeps=(0.25, 0.5), seeds=(0, 1), say=silent)
    groups = group_cells(list(reversed(cells)))
    assert [cell for group in groups for cell in group] == cells
    for group in groups:
        names = {cell.method for cell in group}
        assert names in ({"router", "mismatched"}, *({name} for name in METHODS))
        if "router" in names:
            assert len({cell.keep for cell in group}) == 1
        assert len(group) == 1 or names & {"router", *STATIC}


# Files


def test_a_cell_is_read_as_it_was_written(few: list[Cell], tmp_path: Path) -> None:
    made = fake_run(few[2])
    path = cell_path(tmp_path, few[2])
    write_cell(made, path)
    read = read_cell(path)
    assert read.cell == made.cell
    assert read.metrics == made.metrics
    assert read.record == made.record
    assert read.predictions.drop(columns="logits").equals(made.predictions.drop(columns="logits"))
    assert [list(row) for row in read.predictions["logits"]] == [
        list(row) for row in made.predictions["logits"]
    ]
    assert os.listdir(tmp_path / "data") != []
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == [path.name]
    assert "mean share of MACs" in str(read)


def test_a_writer_that_dies_leaves_no_half_file(
    few: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, path = fake_run(few[1]), cell_path(tmp_path, few[1])
    left = tmp_path / f".{path.stem}.{'0' * 32}.tmp"  # by one that had no time to clean up
    left.write_bytes(b"half")

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cell_files.os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        write_cell(made, path)
    assert [p for p in tmp_path.iterdir() if p.is_file()] == []


def test_every_damage_is_seen(few: list[Cell], tmp_path: Path) -> None:
    made, path = fake_run(few[1]), cell_path(tmp_path, few[1])
    write_cell(made, path)
    whole = path.read_bytes()
    for damage in (whole[: len(whole) // 2], b"", whole[:-1], b"not parquet"):
        path.write_bytes(damage)
        with pytest.raises(LabError, match="run the same sweep again"):
            read_cell(path)
    noticed = 0
    for place in range(60, len(whole) // 2, 97):  # one byte each, within the pages
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            read = read_cell(path)
        except LabError:
            noticed += 1
        else:  # a byte that nothing depends on
            assert read.predictions["prediction"].equals(made.predictions["prediction"])
    assert noticed
    path.unlink()
    with pytest.raises(LabError, match="which does not exist"):
        read_cell(path)


def test_a_cell_under_another_name_or_of_another_format(
    few: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = tmp_path / "0123.parquet"
    write_cell(fake_run(few[1]), wrong)
    with pytest.raises(LabError, match="another cell's name"):
        read_cell(wrong)
    right = cell_path(tmp_path, few[1])
    write_cell(fake_run(few[1]), right)
    monkeypatch.setattr(cell_files, "FORMAT", 99)
    with pytest.raises(LabError, match=r"a cell of format \d+\. Allowed: format 99"):
        read_cell(right)


def test_a_folder_without_cells(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="without cells"):
        read_cells(tmp_path)
    with pytest.raises(LabError, match="which does not exist"):
        read_cells(tmp_path / "none")


# Claims


def test_a_claim_is_held_by_one_and_released(tmp_path: Path) -> None:
    path = tmp_path / "abc.parquet"
    with claimed(path) as mine, claimed(path) as second:
        assert (mine, second) == (True, False)
        owner = json.loads((tmp_path / "abc.claim").read_text("utf-8"))
        assert owner["pid"] == os.getpid()
        assert {"host", "time"} <= owner.keys()
    assert list(tmp_path.iterdir()) == []

    def fails() -> None:
        with claimed(path):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert list(tmp_path.iterdir()) == []


def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    "case",
    [
        "dead",
        "outdated",
        "old and elsewhere",
        "old and unreadable",
        "old",
        "alive",
        "elsewhere",
        "half written",
    ],
)
def test_only_stale_claims_are_taken_over(tmp_path: Path, case: str) -> None:
    path, claim = tmp_path / "abc.parquet", tmp_path / "abc.claim"
    host = "another.host" if case.endswith("elsewhere") else cell_files.socket.gethostname()
    owner = {
        "pid": gone() if case == "dead" or case.endswith("elsewhere") else os.getpid(),
        "host": host,
        "time": 0.0,
    }
    claim.write_text("{" if case in ("old and unreadable", "half written") else json.dumps(owner), "utf-8")
    if case.startswith(("old", "outdated")):
        age = cell_files.STALE_SECONDS if case.startswith("old") else cell_files.OUTDATED_SECONDS
        before = time.time() - age - 60
        os.utime(claim, (before, before))
    with claimed(path) as mine:
        assert mine == (case in ("dead", "outdated", "old and elsewhere", "old and unreadable"))
    assert claim.exists() != mine


def test_a_claim_that_another_took_over_is_not_released(tmp_path: Path) -> None:
    path, claim = tmp_path / "abc.parquet", tmp_path / "abc.claim"
    with claimed(path):
        claim.write_text(json.dumps({"pid": os.getpid(), "host": "another.host"}), "utf-8")
    assert claim.exists()


# Sweeps


def test_a_sweep_makes_every_cell_once(few: list[Cell], tmp_path: Path) -> None:
    said: list[str] = []
    out = tmp_path / "sweep"
    first = sweep([*few, few[0]], out, say=said.append, run=fake_run)
    assert [outcome.state for outcome in first.outcomes] == ["made"] * 5
    assert sorted(p.name for p in out.iterdir()) == sorted(f"{cell.key}.parquet" for cell in few)
    assert len(said) == 5
    assert re.match(
        r"\[1/5\] sst2 frozen dense keep 1: accuracy 0\.\d{4} \(0\.\d s\); about \d s left$", said[0]
    )
    assert "left" not in said[-1]
    assert re.search(r"cells made +5", str(first))

    def never(cell: Cell) -> CellResult:
        raise AssertionError(cell)

    again = sweep(few, out, say=said.append, run=never)
    assert [outcome.state for outcome in again.outcomes] == ["there"] * 5
    assert {o.cell: o.metrics for o in again.outcomes} == {o.cell: o.metrics for o in first.outcomes}


def test_a_killed_sweep_goes_on(few: list[Cell], tmp_path: Path) -> None:
    ran: list[Cell] = []

    def dies_at_the_third(cell: Cell) -> CellResult:
        ran.append(cell)
        if len(ran) == 3:
            raise KeyboardInterrupt
        return fake_run(cell)

    out = tmp_path / "sweep"
    with pytest.raises(KeyboardInterrupt):
        sweep(few, out, say=silent, run=dies_at_the_third)
    assert len(list(out.iterdir())) == 2  # whole cells; no claim, nothing half written
    whole = {path: path.read_bytes() for path in out.iterdir()}
    resumed = sweep(few, out, say=silent, run=fake_run)
    assert [outcome.state for outcome in resumed.outcomes] == ["there"] * 2 + ["made"] * 3
    assert all(path.read_bytes() == content for path, content in whole.items())


def test_a_damaged_cell_is_made_anew_and_said(few: list[Cell], tmp_path: Path) -> None:
    out, said = tmp_path / "sweep", list[str]()
    sweep(few, out, say=silent, run=fake_run)
    path = cell_path(out, few[3])
    path.write_bytes(path.read_bytes()[:-40])
    again = sweep(few, out, say=said.append, run=fake_run)
    states = {outcome.cell: outcome.state for outcome in again.outcomes}
    assert states == dict.fromkeys(few, "there") | {few[3]: "made anew"}
    assert [line for line in said if "its file was damaged" in line and str(few[3]) in line]
    assert read_cell(path).cell == few[3]


def counting(runs: list[Cell]) -> Callable[[Cell], CellResult]:
    """A slow `run` that notes its cells."""

    def run(cell: Cell) -> CellResult:
        runs.append(cell)
        time.sleep(0.05)
        return fake_run(cell)

    return run


def test_two_sweeps_share_the_work(few: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_module, "POLL_SECONDS", 0.02)
    runs: list[Cell] = []
    said: list[str] = []
    out = tmp_path / "sweep"
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(sweep, few, out, None, said.append, counting(runs)) for _ in range(2)]
        done = [future.result() for future in both]
    assert Counter(runs) == dict.fromkeys(few, 1)
    for each in done:
        assert {outcome.cell for outcome in each.outcomes} == set(few)
        assert {outcome.state for outcome in each.outcomes} <= {"made", "there"}
    assert [line for line in said if line.startswith("Another sweep makes")]
    assert len(read_cells(out)) == 5


def test_a_cell_finished_meanwhile_is_not_made_again(few: list[Cell], tmp_path: Path) -> None:
    """The other sweep ends between the look at the folder and the claim."""
    write_cell(fake_run(few[0]), cell_path(tmp_path, few[0]))
    (outcome,) = make_cells(few[:1], tmp_path, counting(runs := []))
    assert (outcome.state, runs) == ("there", [])


def test_a_sweep_on_an_executor(few: list[Cell], tmp_path: Path) -> None:
    runs: list[Cell] = []
    with ThreadPoolExecutor(3) as pool:
        done = sweep(few, tmp_path / "sweep", pool, silent, counting(runs))
    assert Counter(runs) == dict.fromkeys(few, 1)
    assert {outcome.state for outcome in done.outcomes} == {"made"}

    def fails(cell: Cell) -> CellResult:
        raise LabError(got="nothing", allowed="something", hint="try again")

    with ThreadPoolExecutor(1) as pool, pytest.raises(LabError, match="Got nothing"):
        sweep(few, tmp_path / "other", pool, silent, fails)
    assert list((tmp_path / "other").iterdir()) == []
    assert pickle.loads(pickle.dumps((few, run_cell, done))) == (few, run_cell, done)


@pytest.mark.slow
def test_processes_and_a_kill(few: list[Cell], tmp_path: Path) -> None:
    """A sweep killed without a chance to clean up; one of two processes then finishes its work."""
    out = tmp_path / "sweep"
    code = (
        "import pickle, sys, time; from cells import fake_run; from dsgp_lab.evaluate.sweep import sweep\n"
        "def run(cell):\n"
        "    if cell.method == 'router': print('hangs', flush=True); time.sleep(600)\n"
        "    return fake_run(cell)\n"
        "sweep(pickle.load(open(sys.argv[1], 'rb')), sys.argv[2], run=run)\n"
    )
    (tmp_path / "cells.pickle").write_bytes(pickle.dumps(few))
    search = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    killed = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "cells.pickle"), str(out)],
        env=os.environ | {"PYTHONPATH": search},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert killed.stdout is not None
    for line in killed.stdout:
        if line.startswith("hangs"):
            break
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert len(list(out.glob("*.claim"))) == 1
    before = len(list(out.glob("*.parquet")))
    assert 0 < before < 5
    with processes(2) as executor:
        done = sweep(few, out, executor, silent, fake_run)
    states = Counter(outcome.state for outcome in done.outcomes)
    assert states == {"there": before, "made": 5 - before}
    assert len(read_cells(out)) == 5
    assert not list(out.glob("*.claim"))


# The command


def test_the_command(
    cards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def sweep_without_models(cells: list[Cell], out: Path, executor: object) -> object:
        assert executor is None
        return sweep(cells, out, run=fake_run)

    monkeypatch.setattr(sweep_module, "sweep", sweep_without_models)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dsgp-lab", "sweep", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    out = tmp_path / "sweep"
    asked = ("--tasks", "sst2, mrpc", "--methods", "router,twin", "--keeps", "0.25,0.5", "--out", str(out))
    code, said, error = call(*asked)
    assert (code, error) == (0, "")
    assert "sst2: DSGP_GLUE_DIR=" in said
    assert said.count("sst2 frozen router keep 0.25: accuracy") == 1
    assert re.search(r"cells made +10", said)
    assert len(read_cells(out)) == 10
    assert re.search(r"cells there +10", call(*asked)[1])
    for option, message in (
        ("--keeps=half", "keeps 'half'"),
        ("--seeds=0.5", "seeds '0.5'"),
        ("--methods=michel", "method 'michel'"),
        ("--tasks=imdb", "task 'imdb'"),
        ("--keeps=1.5", r"keep=1.5"),
        ("--limit=0", "limit=0"),
    ):
        code, _, error = call(option, "--out", str(out))
        assert code == 2, option
        assert message in error
        assert "Traceback" not in error
