"""From the cells of a sweep to a row each: losses against the dense model, intervals, tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.cell import Cell, CellResult
from dsgp_lab.evaluate.equal_macs import EQUAL_MACS, equal_macs_gains
from dsgp_lab.evaluate.methods import BY_LOT, CASCADE, DENSE, METHODS, MISMATCHED, OTHER_TASK, TWIN
from dsgp_lab.evaluate.paired import RESAMPLES, mcnemar, percentile_interval, resampled_metric
from dsgp_lab.regimes import REGIMES
from dsgp_lab.tasks import TASKS, get_task

if TYPE_CHECKING:
    import pandas as pd

GLUE_AVERAGE = tuple(task for task in TASKS if task != "wnli")
"""The eight tasks of the average. WNLI is none: its dev set repeats training sentences with other labels."""

RECORD_KEYS = (
    "task",
    "regime",
    "method",
    "keep",
    "macs",
    "seed",
    "metric",
    "value",
    "dense",
    "loss",
    "ci_low",
    "ci_high",
    "n",
)
"""Columns that every row has a value in."""

DECIMALS = 6
"""Decimals that are kept, so that other machines' rounding leaves the table as it is."""

AVERAGE_COLUMNS = (
    "regime",
    "method",
    "keep",
    "tasks",
    "macs",
    "value",
    "loss",
    "ci_low",
    "ci_high",
    "gain_twin",
    "gain_twin_low",
    "gain_twin_high",
    "gain_equal_macs",
    "gain_equal_macs_low",
    "gain_equal_macs_high",
)
"""Columns of the averages."""

RIVALS = (TWIN, MISMATCHED, OTHER_TASK, BY_LOT)
"""Methods that the others of the same regime, budget and seed are compared with directly; the last one is
the rival of cascades alone."""


def task_label(task: str, split: str) -> str:
    """The name of a task in tables; MNLI's second dev split has a name of its own.

    >>> task_label("mnli", "validation_mismatched"), task_label("sst2", "teaching")
    ('mnli-mm', 'sst2')
    """
    return "mnli-mm" if split == "validation_mismatched" else task


def current_cells(cells: Sequence[CellResult], say: Callable[[str], None] = print) -> list[CellResult]:
    """One cell a row of the table: the newest, where checkpoints or teaching sets have changed since.

    Raises:
        LabError: several splits or limits of one task, or several trainings under one seed.
    """
    newest: dict[tuple[Any, ...], CellResult] = {}
    for result in sorted(cells, key=lambda result: result.record["started"]):
        cell = result.cell
        key = (task_label(cell.task, cell.split), cell.regime, cell.method, cell.keep, cell.seed)
        old = newest.get(key)
        if old is not None and (old.cell.split, old.cell.limit) == (cell.split, cell.limit):
            if old.cell.root != cell.root:
                raise LabError(
                    got=f"{cell} from {old.cell.root or 'the project'} and from {cell.root or 'the project'}",
                    allowed="one training a seed",
                    hint="sweep each root with a seed of its own, and remove one of these cells",
                )
            say(
                f"{cell}: made on {old.record['started']} and again, with other files, on"
                f" {result.record['started']}; the later one counts."
            )
        newest[key] = result
    settings: dict[str, set[tuple[str, int | None]]] = {}
    for result in cells:
        cell = result.cell
        settings.setdefault(task_label(cell.task, cell.split), set()).add((cell.split, cell.limit))
    for label, found in settings.items():
        if len(found) > 1:
            raise LabError(
                got=f"cells of {label} on " + " and on ".join(sorted(f"{s}, limit {n}" for s, n in found)),
                allowed="one split and limit a task",
                hint="sweep each into a folder of its own",
            )
    return list(newest.values())


def table_of(cells: Sequence[CellResult], resamples: int = RESAMPLES) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows of the results table, sorted, and each row's loss under every resample [rows, resamples].

    Values, losses, gains and their intervals are in points of 100. `dense` is the dense checkpoint's value,
    `loss` is dense - value with its paired bootstrap interval; `p_dense` and `p_twin` are McNemar's exact
    test where the metric is accuracy; `gain_twin` and so on (`RIVALS`) are value minus that method's, of
    the same regime, budget and seed; `gain_equal_macs` is that over the twin at the MACs that ran (see
    `equal_macs`). NaN where there is nothing to compare with.

    Raises:
        LabError: a task without its dense cell, or cells on different examples or other dense weights.
    """
    import pandas as pd

    groups: dict[str, list[CellResult]] = {}
    for result in sorted(cells, key=lambda result: _place(result.cell)):
        groups.setdefault(task_label(result.cell.task, result.cell.split), []).append(result)
    made = [pair for label, group in groups.items() for pair in _task_rows(label, group, resamples)]
    rows = pd.DataFrame([row for row, _ in made]).astype({"limit": "Int64"})
    losses = np.array([drawn for _, drawn in made])
    gains = zip(*equal_macs_gains(rows, losses), strict=True)
    equal = [_gain(EQUAL_MACS, value, drawn) for value, drawn in gains]
    rows = rows.join(pd.DataFrame(equal, index=rows.index))
    tests = ["p_dense", "p_twin"]  # not rounded: small ones say how small
    return rows.round({name: DECIMALS for name in rows if name not in tests}), losses


def average(rows: pd.DataFrame, draws: np.ndarray) -> pd.DataFrame:
    """Mean loss over the tasks of GLUE's average for each regime, method and budget, in points.

    rows and draws [rows, resamples] as `table_of` gives them. Seeds are averaged within a task first. `tasks`
    counts the tasks that are there: averages over different tasks do not compare. The interval resamples the
    examples of each task independently; it knows nothing of the choice of tasks. `gain_twin` is the mean loss
    of the twin minus that of the method, where both have the same tasks, over the seeds that both have;
    `gain_equal_macs` likewise, over the twin at the MACs that ran.
    """
    import pandas as pd

    first = {task: TASKS[task].dev_splits[0] for task in GLUE_AVERAGE}
    chosen = rows[rows["split"] == rows["task"].map(first)]
    made: dict[tuple[Any, ...], dict[str, Any]] = {}
    places: dict[tuple[Any, ...], dict[str, dict[int, int]]] = {}  # of the rows, by task and seed
    for key, group in chosen.groupby(["regime", "method", "keep"], sort=False):
        by_task = group.groupby("task", sort=False)
        places[key] = {task: dict(zip(mine["seed"], mine.index, strict=True)) for task, mine in by_task}
        losses = _mean_draws([draws[list(by_seed.values())] for by_seed in places[key].values()])
        low, high = percentile_interval(losses)
        means = by_task[["macs", "value", "loss"]].mean().mean()
        made[key] = (
            {"tasks": len(by_task), **means, "ci_low": low, "ci_high": high}
            | _no_gain(TWIN)
            | _no_gain(EQUAL_MACS)
        )
    losses = rows["loss"].to_numpy()
    equal, equal_draws = equal_macs_gains(rows, draws)
    for (regime, method, keep), row in made.items():
        mine, rival = places[regime, method, keep], places.get((regime, TWIN, keep))
        if method == TWIN or rival is None or set(mine) != set(rival):
            continue
        pairs = [[(rival[task][s], mine[task][s]) for s in mine[task] if s in rival[task]] for task in mine]
        if all(pairs):
            value = np.mean([np.mean([losses[twin] - losses[own] for twin, own in of]) for of in pairs])
            drawn = _mean_draws([np.stack([draws[twin] - draws[own] for twin, own in of]) for of in pairs])
            row |= _gain(TWIN, float(value), drawn)
        there = [
            [place for place in by_seed.values() if not np.isnan(equal[place])] for by_seed in mine.values()
        ]
        if all(there):
            value = np.mean([equal[seeds].mean() for seeds in there])
            row |= _gain(EQUAL_MACS, float(value), _mean_draws([equal_draws[seeds] for seeds in there]))
    lines = [dict(zip(AVERAGE_COLUMNS, key, strict=False)) | row for key, row in made.items()]
    table = pd.DataFrame(lines, columns=list(AVERAGE_COLUMNS))
    numbers = dict.fromkeys(AVERAGE_COLUMNS[3:], "float64") | {"keep": "float64", "tasks": "int64"}
    return table.astype(numbers).round(DECIMALS - 2)  # the rows are rounded already


def _task_rows(
    label: str, group: Sequence[CellResult], resamples: int
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Each cell's row and losses [resamples], for the cells of one task."""
    task = get_task(group[0].cell.task)
    metric = task.metrics[0]
    names = [(r.cell.regime, r.cell.method, r.cell.keep, r.cell.seed) for r in group]
    base = next((i for i, name in enumerate(names) if name[:2] == ("frozen", DENSE)), None)
    if base is None:
        raise LabError(
            got=f"cells of {label} without the dense model's",
            allowed="a sweep with the cell frozen, dense",
            hint=f"run dsgp-lab sweep --tasks {task.name} into the same folder; it adds that cell",
        )
    for result in group:
        _check_pairs(result, group[base])
    labels = group[base].predictions["label"].to_numpy()
    predictions = np.stack([result.predictions["prediction"].to_numpy() for result in group])
    drawn = 100 * resampled_metric(task, predictions, labels, resamples=resamples).T
    values = [100 * result.metrics[metric] for result in group]
    hits = predictions == labels if metric == "accuracy" else None
    for i, (result, name) in enumerate(zip(group, names, strict=True)):
        losses = drawn[base] - drawn[i]
        low, high = percentile_interval(losses)
        row = {
            "task": label,
            "split": result.cell.split,
            "limit": result.cell.limit,
            "regime": result.cell.regime,
            "method": result.cell.method,
            "keep": result.cell.keep,
            "macs": float(result.predictions["share"].mean()),
            "seed": result.cell.seed,
            "root": None if result.cell.root is None else str(result.cell.root),
            "metric": metric,
            "value": values[i],
            "dense": values[base],
            "loss": values[base] - values[i],
            "ci_low": low,
            "ci_high": high,
            "n": len(labels),
            "p_dense": np.nan if hits is None else mcnemar(hits[i], hits[base]),
            "p_twin": np.nan,
        }
        for rival in RIVALS:
            place = (name[0], rival, *name[2:])
            other = names.index(place) if place in names and name[1] != rival else None
            if rival == BY_LOT and (name[1] != CASCADE or task.is_regression):
                other = None  # the control of cascades; without classes nothing is drawn
            row |= _no_gain(rival)
            if other is not None:
                row |= _gain(rival, values[i] - values[other], drawn[i] - drawn[other])
                if rival == TWIN and hits is not None:
                    row["p_twin"] = mcnemar(hits[i], hits[other])
        yield row, losses


def _check_pairs(result: CellResult, dense: CellResult) -> None:
    """Refuse a cell that cannot be compared with the dense cell example by example."""
    columns = ["idx", "label"]
    if not result.predictions[columns].equals(dense.predictions[columns]):
        raise LabError(
            got=f"{result.cell} on other examples than the dense cell",
            allowed="cells of one version of the data",
            hint="sweep them anew into a folder of their own",
        )
    files = [each.record["configuration"]["checkpoints"].get(DENSE) for each in (result, dense)]
    if files[0] not in (None, files[1]):
        raise LabError(
            got=f"{result.cell}, made with another dense checkpoint than the dense cell",
            allowed="cells of one dense checkpoint",
            hint="run the sweep again, and remove cells of the old checkpoint, or use a new folder",
        )


def _mean_draws(tasks: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over tasks of their means over seeds [resamples]; each task is [seeds, resamples]."""
    mean: np.ndarray = np.mean([task.mean(0) for task in tasks], axis=0)
    return mean


def _gain(rival: str, value: float, draws: np.ndarray) -> dict[str, float]:
    low, high = percentile_interval(draws)
    return {f"gain_{rival}": value, f"gain_{rival}_low": low, f"gain_{rival}_high": high}


def _no_gain(rival: str) -> dict[str, float]:
    return dict.fromkeys((f"gain_{rival}", f"gain_{rival}_low", f"gain_{rival}_high"), np.nan)


def _place(cell: Cell) -> tuple[Any, ...]:
    """A cell's place in the table."""
    task, method = list(TASKS).index(cell.task), list(METHODS).index(cell.method)
    return task, cell.split, REGIMES.index(cell.regime), method, cell.keep, cell.seed
