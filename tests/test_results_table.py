"""The results table: paired statistics against brute force, which cells count, what is written."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cells import data_of_cards, fake_run, made_cell, silent
from scipy import stats
from sklearn.metrics import accuracy_score, matthews_corrcoef

from dsgp_lab import LabError, cli
from dsgp_lab.evaluate.cell import Cell, CellResult
from dsgp_lab.evaluate.paired import BATCH, mcnemar, paired_difference, percentile_interval, resampled_metric
from dsgp_lab.evaluate.published import PREDICTIONS
from dsgp_lab.evaluate.results_report import readme
from dsgp_lab.evaluate.results_rows import GLUE_AVERAGE, RECORD_KEYS, average, current_cells, table_of
from dsgp_lab.evaluate.results_table import AVERAGES, README, ROWS, Results, write_results
from dsgp_lab.evaluate.sweep import sweep
from dsgp_lab.evaluate.sweep_plan import plan_cells
from dsgp_lab.tasks import TASKS, metrics

KEYS = ["task", "regime", "method", "keep", "macs", "seed", "metric", "value", "dense", "loss"]
KEYS += ["ci_low", "ci_high", "n"]


# Paired statistics


def judged(task: str, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of three methods [3, n] of falling quality, and labels [n]."""
    flips = enumerate((0.1, 0.3, 0.6))
    results = [made_cell(task, "random", 0.5, flip=flip, n=n, noise=i) for i, flip in flips]
    labels = results[0].predictions["label"].to_numpy()
    return np.stack([result.predictions["prediction"] for result in results]), labels


@pytest.mark.parametrize(
    ("task", "metric"),
    [
        ("sst2", lambda labels, given: accuracy_score(labels, given)),
        ("mnli", lambda labels, given: accuracy_score(labels, given)),
        ("cola", lambda labels, given: matthews_corrcoef(labels, given)),
        ("stsb", lambda labels, given: stats.pearsonr(labels, given).statistic),
    ],
)
def test_resamples_match_brute_force(task: str, metric: Callable[[np.ndarray, np.ndarray], float]) -> None:
    """The same resamples, one call of the library's metric each."""
    predictions, labels = judged(task)
    resamples = BATCH + 7  # more than one batch, and not a whole number of them
    drawn = resampled_metric(task, predictions, labels, resamples=resamples, seed=4)
    assert drawn.shape == (resamples, 3)
    chance = np.random.default_rng([4, *task.encode()])
    places = np.concatenate([chance.integers(40, size=(size, 40)) for size in (BATCH, 7)])
    expected = [[metric(labels[rows], given[rows]) for given in predictions] for rows in places]
    assert np.allclose(drawn, expected, atol=1e-9)


@pytest.mark.parametrize("task", ["sst2", "cola", "stsb"])
def test_the_paired_interval_is_scipys(task: str) -> None:
    """Another implementation of the paired bootstrap with other draws: equal up to their number."""
    (mine, theirs, _), labels = judged(task, n=200)
    interval = paired_difference(task, mine, theirs, labels, resamples=4_000)

    def value(given: np.ndarray, truth: np.ndarray) -> float:
        return float(np.mean(given == truth) if task == "sst2" else np.corrcoef(given, truth)[0, 1])

    def difference(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> float:
        return value(x, z) - value(y, z)

    assert interval.value == pytest.approx(difference(mine, theirs, labels))
    other = stats.bootstrap(
        (mine, theirs, labels),
        difference,
        paired=True,
        vectorized=False,
        n_resamples=1_000,
        method="percentile",
        random_state=np.random.default_rng(1),
    ).confidence_interval
    width = other.high - other.low
    assert (interval.low, interval.high) == pytest.approx(tuple(other), abs=0.15 * width)


def test_pairing_narrows_the_interval() -> None:
    (mine, theirs, _), labels = judged("sst2", n=200)
    drawn = resampled_metric("sst2", [mine, mine, theirs], labels)
    assert percentile_interval(drawn[:, 0] - drawn[:, 1]) == (0.0, 0.0)
    low, high = percentile_interval(drawn[:, 0] - drawn[:, 2])
    assert low < np.mean(mine == labels) - np.mean(theirs == labels) < high


@pytest.mark.parametrize("task", ["cola", "stsb"])
def test_a_correlation_with_a_constant_counts_as_zero(task: str) -> None:
    _, labels = judged(task)
    constant = np.full(len(labels), 0.1 if task == "stsb" else 1.0)
    drawn = resampled_metric(task, [constant], labels, resamples=60)
    assert (drawn == metrics(task, constant.tolist(), labels.tolist())[TASKS[task].metrics[0]]).all()


def test_predictions_that_do_not_fit() -> None:
    for predictions, labels in (([[1, 0]], [1]), ([1, 0], [1, 0]), ([[]], [])):
        with pytest.raises(LabError, match=r"Allowed: predictions \[methods, examples\]"):
            resampled_metric("sst2", predictions, labels)  # type: ignore[arg-type]


def test_mcnemar() -> None:
    """Against the binomial sum, and against the usual example with 6 and 1 discordant pairs."""
    hits, others = [True] * 6 + [False] + [True] * 20, [False] * 6 + [True] + [True] * 20
    assert mcnemar(hits, others) == pytest.approx(2 * (1 + 7) / 2**7)
    assert mcnemar(others, hits) == mcnemar(hits, others)
    assert mcnemar(hits, hits) == 1.0
    assert mcnemar([True] * 5, [False] * 5) == pytest.approx(2 / 2**5)


# Rows


def grid(tasks: tuple[str, ...] = ("sst2",), n: int = 60) -> list[CellResult]:
    """Dense, router, twin and mismatched of these tasks at one budget."""
    kinds = {"dense": (1.0, 0.1), "twin": (0.5, 0.35), "router": (0.5, 0.2), "mismatched": (0.5, 0.4)}
    return [
        made_cell(task, method, keep, flip=flip, n=n)
        for task in tasks
        for method, (keep, flip) in kinds.items()
    ]


def test_a_row_is_what_its_cells_say() -> None:
    cells = {result.cell.method: result for result in grid()}
    rows, draws = table_of(list(cells.values()), resamples=300)
    assert draws.shape == (4, 300)
    assert rows["method"].tolist() == ["dense", "twin", "router", "mismatched"]
    row = rows.set_index("method").loc["router"]
    hits = {name: cell.predictions["prediction"] == cell.predictions["label"] for name, cell in cells.items()}
    assert row["value"] == pytest.approx(100 * hits["router"].mean())
    assert row["dense"] == pytest.approx(100 * hits["dense"].mean())
    assert row["loss"] == pytest.approx(row["dense"] - row["value"])
    labels = cells["dense"].predictions["label"]
    given = {name: cell.predictions["prediction"] for name, cell in cells.items()}
    for column, better, worse in (
        (("loss", "ci_low", "ci_high"), "dense", "router"),
        (("gain_twin", "gain_twin_low", "gain_twin_high"), "router", "twin"),
        (("gain_mismatched", "gain_mismatched_low", "gain_mismatched_high"), "router", "mismatched"),
    ):
        expected = paired_difference("sst2", given[better], given[worse], labels, resamples=300)
        wanted = [100 * expected.value, 100 * expected.low, 100 * expected.high]
        assert row[list(column)].tolist() == pytest.approx(wanted, abs=1e-5)
    assert row["p_dense"] == mcnemar(hits["router"], hits["dense"])
    assert row["p_twin"] == mcnemar(hits["router"], hits["twin"])
    assert (row["macs"], row["n"], row["metric"], row["seed"]) == (0.5, 60, "accuracy", 0)
    dense, twin = rows.iloc[0], rows.iloc[1]
    assert (dense["loss"], dense["ci_low"], dense["ci_high"], dense["p_dense"]) == (0, 0, 0, 1)
    assert np.isnan([dense["gain_twin"], twin["gain_twin"], twin["p_twin"]]).all()


def test_another_regime_is_compared_with_the_dense_checkpoint() -> None:
    own = {"checkpoints": {"joint": {}}}
    unpruned = made_cell("sst2", "dense", flip=0.3, regime="joint", noise=1, configuration=own)
    router = made_cell("sst2", "router", 0.5, flip=0.3, regime="joint", configuration=own)
    rows, _ = table_of([*grid(), unpruned, router], resamples=50)
    assert rows["dense"].nunique() == 1
    joint = rows[rows["regime"] == "joint"].set_index("method")
    assert joint.loc["dense", "loss"] == pytest.approx(rows.loc[0, "dense"] - joint.loc["dense", "value"])
    assert np.isnan(joint.loc["router", "gain_twin"])  # the twin is another regime's


def test_where_no_accuracy_is_no_mcnemar() -> None:
    rows, _ = table_of(grid(("cola", "stsb", "mrpc")), resamples=50)
    tested = rows.groupby("task")["p_dense"].apply(lambda p: bool(p.notna().all()))
    assert tested.to_dict() == {"cola": False, "stsb": False, "mrpc": True}
    assert rows.groupby("task")["metric"].first().to_dict() == {
        "cola": "matthews",
        "stsb": "pearson",
        "mrpc": "accuracy",
    }


def test_seeds_are_rows_of_their_own() -> None:
    more = [made_cell("sst2", "mismatched", 0.5, flip=0.5, seed=seed) for seed in (1, 2)]
    rows, _ = table_of([*grid(), *more], resamples=50)
    assert rows.loc[rows["method"] == "mismatched", "seed"].tolist() == [0, 1, 2]
    router = rows[rows["method"] == "router"].iloc[0]
    same = rows[(rows["method"] == "mismatched") & (rows["seed"] == 0)].iloc[0]
    assert router["gain_mismatched"] == pytest.approx(router["value"] - same["value"])


def test_cells_that_cannot_be_compared() -> None:
    with pytest.raises(LabError, match=r"cells of sst2 without the dense model's.*--tasks sst2"):
        table_of(grid()[1:])
    fewer = made_cell("sst2", "router", 0.25, n=59)
    with pytest.raises(LabError, match=r"router keep 0\.25 on other examples"):
        table_of([*grid(), fewer])
    other = made_cell("sst2", "router", 0.25, configuration={"checkpoints": {"dense": {"adapter": "b"}}})
    with pytest.raises(LabError, match="with another dense checkpoint"):
        table_of([*grid(), other])


def test_the_newest_cell_counts_and_the_older_is_named() -> None:
    old = made_cell("sst2", "router", 0.5, flip=0.5, noise=2, started="2029-01-01T00:00:00+00:00")
    said: list[str] = []
    kept = current_cells([*grid(), old], said.append)
    assert old not in kept
    assert len(kept) == 4
    assert len(said) == 1
    assert "sst2 frozen router keep 0.5: made on 2029" in said[0]


def test_cells_of_several_trainings_or_settings_are_refused() -> None:
    second = made_cell("sst2", "router", 0.5, root=Path("seed1"))
    with pytest.raises(LabError, match=r"from the project and from seed1\. Allowed: one training a seed"):
        current_cells([*grid(), second], silent)
    with pytest.raises(LabError, match="teaching, limit None and on validation, limit None"):
        current_cells([*grid(), made_cell("sst2", split="teaching")], silent)
    with pytest.raises(LabError, match="one split and limit a task"):
        current_cells([*grid(), made_cell("sst2", "router", 0.25, limit=24)], silent)
    mismatched = made_cell("mnli", split="validation_mismatched")
    kept = current_cells([*grid(("mnli",)), mismatched], silent)  # MNLI has two dev splits
    assert set(table_of(kept, resamples=20)[0]["task"]) == {"mnli", "mnli-mm"}


# Averages


def test_the_average_is_of_eight_tasks_and_excludes_wnli() -> None:
    """Against the same sum done by hand; neither WNLI nor MNLI's second split nor teaching sets count."""
    cells = grid((*GLUE_AVERAGE, "wnli"))
    extra = [
        made_cell("mnli", name, keep, split="validation_mismatched", flip=0.6)
        for name, keep in (("dense", 1.0), ("router", 0.5))
    ]
    rows, draws = table_of([*cells, *extra], resamples=200)
    assert set(rows["task"]) == {*GLUE_AVERAGE, "wnli", "mnli-mm"}
    assert len(GLUE_AVERAGE) == 8
    means = average(rows, draws).set_index("method")
    for method in ("dense", "twin", "router", "mismatched"):
        places = [i for i, row in rows.iterrows() if row["method"] == method and row["task"] in GLUE_AVERAGE]
        assert len(places) == 8
        losses = np.mean(draws[places], axis=0)
        low, high = percentile_interval(losses)
        row = means.loc[method]
        assert row["tasks"] == 8
        assert row["loss"] == pytest.approx(rows.loc[places, "loss"].mean(), abs=1e-3)
        assert (row["ci_low"], row["ci_high"]) == pytest.approx((low, high), abs=1e-3)
    gain = means.loc["twin", "loss"] - means.loc["router", "loss"]
    assert means.loc["router", "gain_twin"] == pytest.approx(gain, abs=1e-3)
    assert means.loc["router", "gain_twin_low"] < gain < means.loc["router", "gain_twin_high"]
    assert np.isnan(means.loc["twin", "gain_twin"])


def test_tasks_are_resampled_independently() -> None:
    """The average of eight intervals is narrower than one of them by about the root of eight."""
    rows, draws = table_of(grid(tuple(task for task in GLUE_AVERAGE if task not in ("cola", "stsb"))))
    router = rows["method"] == "router"
    widths = (rows["ci_high"] - rows["ci_low"])[router]
    mean = average(rows, draws).set_index("method").loc["router"]
    expected = np.sqrt((widths**2).sum()) / router.sum()
    assert mean["ci_high"] - mean["ci_low"] == pytest.approx(expected, rel=0.1)
    among = np.corrcoef(draws[router.to_numpy()])
    assert np.abs(among - np.eye(len(among))).max() < 0.1


def test_seeds_are_averaged_within_a_task_first() -> None:
    more = [made_cell("sst2", "mismatched", 0.5, flip=0.9, seed=seed) for seed in (1, 2)]
    rows, draws = table_of([*grid(("sst2", "rte")), *more], resamples=50)
    mine = rows[rows["method"] == "mismatched"]
    expected = mine.groupby("task")["loss"].mean().mean()
    means = average(rows, draws).set_index("method").loc["mismatched"]
    assert means["loss"] == pytest.approx(expected, abs=1e-3)
    assert means["tasks"] == 2


def test_the_gain_over_the_twin_pairs_the_seeds_that_both_have() -> None:
    """A twin of another seed that the router lacks counts in the twin's mean, and not in the difference."""
    grid_rows = grid(("sst2", "rte"))
    alone = average(*table_of(grid_rows, resamples=50)).set_index("method").loc["router"]
    more = [made_cell("sst2", "twin", 0.5, flip=0.9, seed=seed) for seed in (1, 2)]
    rows, draws = table_of([*grid_rows, *more], resamples=50)
    means = average(rows, draws).set_index("method")
    for name in ("gain_twin", "gain_twin_low", "gain_twin_high"):
        assert means.loc["router", name] == alone[name]
    assert means.loc["twin", "loss"] > means.loc["router", "loss"] + alone["gain_twin"] + 5
    both = [*grid_rows, *more, *[made_cell("sst2", "router", 0.5, flip=0.2, seed=seed) for seed in (1, 2)]]
    rows, draws = table_of(both, resamples=50)
    losses = rows[rows["method"].isin(["twin", "router"])].groupby(["method", "task"])["loss"].mean()
    expected = losses["twin"].mean() - losses["router"].mean()
    gain = average(rows, draws).set_index("method").loc["router", "gain_twin"]
    assert gain == pytest.approx(expected, abs=1e-2)
    other = [made_cell("sst2", "router", 0.5, flip=0.2, seed=3)]
    without = [cell for cell in grid_rows if (cell.cell.task, cell.cell.method) != ("sst2", "router")]
    means = average(*table_of([*without, *other], resamples=50)).set_index("method")
    assert np.isnan(means.loc["router", "gain_twin"])  # no seed in common


def test_the_readme_names_a_folder_for_checkpoints_of_other_seeds() -> None:
    elsewhere = made_cell("sst2", "twin", 0.5, seed=2, root=Path("runs/seed2"))
    other = made_cell("rte", "router", 0.25, seed=2, root=Path("runs/seed2"), regime="adaptive")
    more = [other, elsewhere, made_cell("sst2", "random", 0.5, seed=1)]
    text = readme(*_both([*grid(("sst2", "rte")), *more]), ("a machine",))
    project, first, second = re.findall(r"dsgp-lab sweep .*", text)
    assert "--tasks rte --regimes adaptive --methods router --keeps 0.25" in first
    assert "--seeds 0,1 --split" in project
    expected = "dsgp-lab sweep --tasks sst2 --regimes frozen --methods twin --keeps 0.5 --seeds 2"
    assert second == f"{expected} --root runs/seed2 --split validation --out runs/sweep"


def test_an_average_of_fewer_tasks_is_not_printed() -> None:
    some = Results(*_both(grid(("sst2", "rte"))), ("a machine",))
    assert "mean of 8  " not in str(some)
    every = Results(*_both(grid(GLUE_AVERAGE)), ("a machine",))
    assert re.search(r"^mean of 8 +0\.5 +0\.500 ", str(every), re.MULTILINE)


def test_a_task_and_the_averages_have_a_row_each_method_and_a_column_each_budget() -> None:
    more = [made_cell("sst2", "router", 0.25, flip=0.4)]
    seeds = [made_cell("sst2", "mismatched", 0.5, flip=0.9, seed=1)]
    table = Results(*_both([*grid(("sst2", "rte")), *more, *seeds]), ("a machine",))
    report = table.task_report("sst2")
    assert report.header == ("", "at 0.25", "at 0.5")
    lines = {row[0]: row[1:] for row in report.rows}
    assert list(lines) == ["frozen, twin", "frozen, router", "frozen, mismatched"]
    assert lines["frozen, twin"][0] == "-"
    mine = table.rows.query("task == 'sst2' and method == 'mismatched'")[["loss", "ci_low", "ci_high"]].mean()
    assert lines["frozen, mismatched"][1] == f"{mine.iloc[0]:.2f} [{mine.iloc[1]:.2f}, {mine.iloc[2]:.2f}]"
    assert "60 examples" in report.notes[0]
    means = table.average_report()
    assert [row[:2] for row in means.rows if row[0] == "frozen, router"] == [
        ("frozen, router", "1"),  # at 0.25 on one task, at 0.5 on two: rows of their own
        ("frozen, router", "2"),
    ]
    with pytest.raises(LabError, match=r"task 'cola'\. Allowed: sst2, rte"):
        table.task_report("cola")


def test_complete_averages_are_those_over_all_tasks_of_the_regime() -> None:
    more = [made_cell("sst2", "router", 0.25, flip=0.4), made_cell("cola", "dense", 1.0)]
    table = Results(*_both([*grid(("sst2", "rte")), *more]), ("a machine",))
    assert set(table.averages["tasks"]) == {1, 2, 3}  # a task with nothing but its dense model asks for none
    complete = table.complete_averages()
    assert set(complete["tasks"]) == {2}
    assert len(complete) == len(table.averages[table.averages["method"] != "dense"]) - 1


def test_what_is_known_is_compared_on_common_tasks() -> None:
    oracle = [made_cell(task, "oracle_signed", 0.5, flip=0.05) for task in ("rte", "wnli")]
    table = Results(*_both([*grid(("sst2", "rte", "wnli")), *oracle]), ("a machine",))
    report = table.knowledge_report("frozen")
    assert [row[0] for row in report.rows] == ["twin", "router", "oracle_signed"]
    assert report.notes == ("Tasks: rte.",)
    rte = table.rows[table.rows["task"] == "rte"].set_index("method")["loss"]
    assert [row[1] for row in report.rows] == [f"{rte[row[0]]:.2f}" for row in report.rows]
    more = [made_cell("sst2", "oracle_signed", 0.25, flip=0.05), made_cell("rte", "router", 0.25, flip=0.2)]
    wider = Results(*_both([*grid(("sst2", "rte", "wnli")), *oracle, *more]), ("a machine",))
    assert wider.knowledge_report("frozen").header == ("", "at 0.5")  # at 0.25 no task has all methods
    assert wider.knowledge_report("shared").rows == ()


def _both(cells: list[CellResult]) -> tuple:
    rows, draws = table_of(cells, resamples=100)
    return rows, average(rows, draws)


# Files and commands


@pytest.fixture
def swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep's folder with two tasks on the teaching sets; data/results is beside it."""
    home = tmp_path / "data"
    home.mkdir()
    data_of_cards(home, monkeypatch, ("sst2", "rte"))
    cells = plan_cells(methods=["random", "router", "twin"], keeps=(0.35, 0.5), say=silent)
    sweep(cells, tmp_path / "sweep", say=silent, run=fake_run)
    return tmp_path / "sweep"


def test_results_are_written_and_read(swept: Path, tmp_path: Path) -> None:
    made = write_results(swept, say=silent)
    home = tmp_path / "data" / "results"
    assert sorted(path.name for path in home.iterdir()) == sorted([ROWS, AVERAGES, README, PREDICTIONS])
    contents = {path.name: path.read_bytes() for path in home.iterdir()}
    read = Results.load()
    assert read.rows.equals(made.rows)
    assert read.machines == ("a machine",)
    assert str(read) == str(made)
    write_results(swept, say=silent)
    assert {path.name: path.read_bytes() for path in home.iterdir()} == contents  # byte by byte
    assert made.averages.empty  # teaching sets are no GLUE
    text = contents[README].decode()
    command = "dsgp-lab sweep --tasks sst2,rte --regimes frozen --methods dense,random,twin,router"
    assert f"{command} --keeps 0.35,0.5 --seeds 0 --split teaching --out runs/sweep\n" in text
    assert "dsgp-lab results --from runs/sweep --write" in text
    assert str(tmp_path) not in text
    for report in made.reports():
        assert report.markdown() in text
        assert report.title in made._repr_html_()
    assert [report.title for report in made.reports()] == [
        "Dense checkpoints, points",
        "Regime frozen, budget 0.35: points lost against the dense checkpoint",
        "Regime frozen, budget 0.5: points lost against the dense checkpoint",
        "Regime frozen: the router, points",
    ]


def test_a_damaged_cell_stops_the_table(swept: Path) -> None:
    path = next(swept.iterdir())
    path.write_bytes(b"")
    with pytest.raises(LabError, match="run the same sweep again"):
        Results.of(swept)


def test_a_results_file_that_is_missing_or_damaged(swept: Path, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"which does not exist.*dsgp-lab sweep --out runs/sweep"):
        Results.load()
    home = Results.of(swept).write(tmp_path / "other")
    (home / ROWS).write_bytes(b"PAR1")
    with pytest.raises(LabError, match="which cannot be read"):
        Results.load(home)


def test_the_command(
    swept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dsgp-lab", "results", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    code, said, error = call()
    assert (code, said) == (2, "")
    assert "dsgp-lab results --from runs/sweep --write" in error
    code, said, error = call("--write")
    assert (code, said) == (2, "")
    assert "--write without --from" in error
    code, said, error = call("--from", str(swept), "--write")
    assert code == 0
    assert "Written to" in error
    assert call()[1] == said
    assert "Regime frozen: the router, points" in said
    code, said, error = call("--json")
    assert (code, error) == (0, "")
    records = json.loads(said)
    assert len(records) == 14
    assert all(list(record) == KEYS == list(RECORD_KEYS) for record in records)
    assert not [record for record in records if None in record.values()]
    assert json.loads(call("--json", "--from", str(swept))[1]) == records
    keeps = {record["keep"] for record in records}
    assert keeps == {1.0, 0.35, 0.5}
    assert Cell("sst2", "frozen", "router", 0.35).keep in keeps
