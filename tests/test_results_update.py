"""Published predictions, and a table that is kept but for what a new sweep has of it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cells import card, data_of_cards, fake_run, silent

from dsgp_lab import LabError, cli
from dsgp_lab.evaluate.cell import Cell, CellResult
from dsgp_lab.evaluate.cell_files import cell_path, write_cell
from dsgp_lab.evaluate.published import PREDICTIONS, read_published, write_published
from dsgp_lab.evaluate.results_rows import GLUE_AVERAGE, table_of
from dsgp_lab.evaluate.results_table import README, Results, results_folder, write_results
from dsgp_lab.regimes import Regime, trained_folder
from dsgp_lab.tasks import get_task, metrics

REGIMES: tuple[Regime, ...] = ("frozen", "adaptive")
METHODS = ("twin", "router")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for sweeps beside a data folder of cards, for three tasks in two regimes."""
    home = tmp_path / "data"
    home.mkdir()
    data_of_cards(home, monkeypatch, ("sst2", "stsb", "mnli"))
    for task in ("sst2", "stsb", "mnli"):
        trained(task, "w")
    return tmp_path


def trained(task: str, digest: str, twin_too: bool = True) -> None:
    """Cards of an adaptive checkpoint and its twin."""
    for twin in (False, True)[: 1 + twin_too]:
        folder = trained_folder(task, "adaptive", twin)
        card(folder, adapter_model__safetensors=digest * 64, router__safetensors=digest * 64)


def cells_of(task: str, regimes: tuple[Regime, ...] = REGIMES, split: str | None = None) -> list[Cell]:
    """The dense cell of a task and those of its regimes."""
    chosen = split or get_task(task).dev_splits[0]
    pruned = [Cell(task, regime, name, 0.5, 0, chosen) for regime in regimes for name in METHODS]
    return [Cell(task, "frozen", "dense", 1.0, 0, chosen), *pruned]


def swept(folder: Path, cells: list[Cell], wrong: int = 0) -> Path:
    """Cells as a sweep leaves them; of the pruned ones so many more predictions are changed."""
    folder.mkdir(exist_ok=True)
    for cell in cells:
        write_cell(changed(fake_run(cell), 0 if cell.method == "dense" else wrong), cell_path(folder, cell))
    return folder


def changed(result: CellResult, number: int) -> CellResult:
    predictions = result.predictions.copy()
    predictions.loc[: number - 1, "prediction"] = 1 - predictions["prediction"]
    task = get_task(result.cell.task)
    values = metrics(task, predictions["prediction"].tolist(), predictions["label"].tolist())
    return replace(result, predictions=predictions, metrics=values)


def rows_of(results: Results, task: str, regime: str) -> pd.DataFrame:
    rows = results.rows
    return rows[(rows["task"] == task) & (rows["regime"] == regime)].reset_index(drop=True)


def test_published_predictions_give_the_same_rows(project: Path) -> None:
    """All values, intervals and tests; labels and positions stand once for each task and split."""
    import pyarrow.parquet as pq

    every = [cell for task in ("sst2", "stsb", "mnli") for cell in cells_of(task)]
    every += cells_of("mnli", ("frozen",), "validation_mismatched")
    results = [fake_run(cell) for cell in every]
    write_published(results, project / PREDICTIONS)
    read = read_published(project / PREDICTIONS)
    assert sorted(map(str, (r.cell for r in read))) == sorted(map(str, every))
    assert {r.cell: r.record for r in read} == {r.cell: r.record for r in results}
    (before, draws), (after, drawn) = (table_of(cells, resamples=50) for cells in (results, read))
    pd.testing.assert_frame_equal(before, after, rtol=1e-5)  # STS-B's made-up predictions are in float64
    np.testing.assert_allclose(draws, drawn, atol=1e-4)
    labels = pq.read_table(project / PREDICTIONS, columns=["label"])["label"]
    assert len(labels) - labels.null_count == 4
    contents = (project / PREDICTIONS).read_bytes()
    write_published(results[::-1], project / PREDICTIONS)
    assert (project / PREDICTIONS).read_bytes() == contents


def test_an_update_is_what_a_whole_sweep_would_give(project: Path) -> None:
    """One task's regime anew: the table, averages included, is that of all cells swept again."""
    every = [cell for task in ("sst2", "stsb", "mnli") for cell in cells_of(task)]
    old = write_results(swept(project / "old", every), say=silent)
    trained("sst2", "v")
    again = cells_of("sst2", ("adaptive",))
    some = swept(project / "some", again, wrong=20)
    made = Results.of(some, silent, results_folder())
    fresh = {str(cell) for cell in again}
    swept(project / "whole", [cell for cell in every if str(cell) not in fresh])
    whole = Results.of(swept(project / "whole", again, wrong=20), silent)
    pd.testing.assert_frame_equal(made.rows, whole.rows, rtol=1e-5)
    pd.testing.assert_frame_equal(made.averages, whole.averages, atol=1e-3)
    assert not rows_of(made, "sst2", "adaptive").equals(rows_of(old, "sst2", "adaptive"))
    assert rows_of(made, "sst2", "frozen").equals(rows_of(old, "sst2", "frozen"))
    assert len(made.cells) == len(every)
    for table in (made, Results.load()):  # one with cells, one that leaves the predictions as they are
        text = (table.write() / README).read_text("utf-8")
        assert "by the dense checkpoints\nand in regime frozen, adaptive. From it" in text


def test_regimes_without_predictions_are_kept_as_they_are(project: Path) -> None:
    old = write_results(
        swept(project / "old", [c for t in ("sst2", "mnli") for c in cells_of(t)]), say=silent
    )
    (results_folder() / PREDICTIONS).unlink()
    for task in ("sst2", "mnli"):
        trained(task, "v")
        swept(project / "new", cells_of(task, ("adaptive",)), wrong=20)
    made = Results.of(project / "new", silent, results_folder())
    assert made.rows[["task", "regime", "method"]].equals(old.rows[["task", "regime", "method"]])
    assert made.averages[["regime", "method"]].equals(old.averages[["regime", "method"]])
    for table, before in ((made.rows, old.rows), (made.averages, old.averages)):
        for regime, same in zip(REGIMES, (True, False), strict=True):
            mine, theirs = (t.loc[t["regime"] == regime, "loss"].tolist() for t in (table, before))
            assert (mine == theirs) is same
    made.write()
    assert {cell.cell.regime for cell in read_published(results_folder() / PREDICTIONS)} == set(REGIMES)
    assert Results.load().rows.equals(made.rows)


def test_rows_that_get_lost_are_named(project: Path) -> None:
    old = write_results(
        swept(project / "old", [c for t in ("sst2", "mnli") for c in cells_of(t)]), say=silent
    )
    said: list[str] = []
    again = [cell for cell in cells_of("sst2", ("adaptive",)) if cell.method != "twin"]
    made = Results.of(swept(project / "new", again), said.append, results_folder())
    assert len(made.rows) == len(old.rows) - 1
    assert [line for line in said if "not in the new one" in line] == [
        "Rows of the old table that are not in the new one: sst2 adaptive twin."
        " Sweep these too, if they are to stay."
    ]
    said.clear()
    Results.of(swept(project / "whole", cells_of("sst2", ("adaptive",))), said.append, results_folder())
    assert not [line for line in said if "not in the new one" in line]


def test_a_table_that_would_lack_a_task_is_refused(project: Path) -> None:
    write_results(swept(project / "old", [c for t in ("sst2", "mnli") for c in cells_of(t)]), say=silent)
    (results_folder() / PREDICTIONS).unlink()
    swept(project / "new", cells_of("sst2", ("adaptive",)))
    with pytest.raises(LabError, match=r"no cells of mnli in regime adaptive, new or published.*sweep these"):
        Results.of(project / "new", silent, results_folder())


def test_rows_of_another_dense_checkpoint_are_refused(project: Path) -> None:
    write_results(swept(project / "old", [c for t in ("sst2", "mnli") for c in cells_of(t)]), say=silent)
    (results_folder() / PREDICTIONS).unlink()
    folder = project / "new"
    for task in ("sst2", "mnli"):
        swept(folder, cells_of(task, ("adaptive",)))
    dense = cells_of("sst2")[0]
    write_cell(changed(fake_run(dense), 9), cell_path(folder, dense))
    with pytest.raises(LabError, match="rows of sst2 against another dense checkpoint"):
        Results.of(folder, silent, results_folder())


def test_predictions_that_cannot_be_read(project: Path) -> None:
    path = project / PREDICTIONS
    with pytest.raises(LabError, match=r"predictions\.parquet, which does not exist.*fetch"):
        read_published(path)
    write_published([fake_run(cell) for cell in cells_of("sst2")], path)
    whole = path.read_bytes()
    for spoiled in (b"", whole[: len(whole) // 2], b"PAR1" + whole[4:40] + bytes(40) + whole[80:]):
        path.write_bytes(spoiled)
        with pytest.raises(LabError, match="which cannot be read"):
            read_published(path)
    dense = fake_run(cells_of("sst2")[0])
    older = dense.record | {"configuration": dense.record["configuration"] | {"format": 1}}
    write_published([replace(dense, record=older)], path)
    with pytest.raises(LabError, match="cells of another format than 2"):
        read_published(path)


def test_the_command_updates(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["dsgp-lab", "results", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), capsys.readouterr().err

    write_results(swept(project / "old", [c for t in ("sst2", "mnli") for c in cells_of(t)]), say=silent)
    trained("sst2", "v")
    new = swept(project / "new", cells_of("sst2", ("adaptive",)), wrong=20)
    before = Results.load()
    code, said = call("--update")
    assert code == 2
    assert "--update without --from" in said
    code, said = call("--from", str(new), "--update", "--write")
    assert code == 0, said
    after = Results.load()
    assert len(after.rows) == len(before.rows)
    assert not after.rows.equals(before.rows)
    assert call("--from", str(results_folder() / PREDICTIONS))[0] == 0


def test_the_projects_predictions_give_its_table() -> None:
    """Every row, interval and mean of the regimes that predictions are published of."""
    shipped = Results.load()
    made = Results.of(results_folder() / PREDICTIONS, silent)
    regimes = set(made.rows["regime"]) - {"frozen"}
    assert "adaptive" in regimes
    for ours, theirs in ((made.rows, shipped.rows), (made.averages, shipped.averages)):
        for regime in regimes:
            mine, kept = (t[t["regime"] == regime].reset_index(drop=True) for t in (ours, theirs))
            pd.testing.assert_frame_equal(mine, kept, atol=1e-4)
    assert set(GLUE_AVERAGE) <= set(made.rows["task"])
