"""A results table that is kept but for what a new sweep has of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.cell import Cell, CellResult
from dsgp_lab.evaluate.methods import DENSE, METHODS
from dsgp_lab.evaluate.results_rows import DECIMALS, task_label
from dsgp_lab.regimes import REGIMES
from dsgp_lab.tasks import TASKS

if TYPE_CHECKING:
    import pandas as pd

BASE = ("frozen", DENSE)
"""Regime and method of the cell that all others of its task are compared with: every sweep has it."""

PLACE = ("task", "split", "regime", "method", "keep", "seed")
"""Columns by which rows are sorted."""

SHOWN = 6
"""How many of the methods that are lost are named."""


def joined(new: Sequence[CellResult], published: Sequence[CellResult]) -> list[CellResult]:
    """New cells, and the published ones of the tasks and regimes that no new one is of.

    So cells of another training of the same task never stand beside new ones.
    """
    taken = {_part(each.cell) for each in new if not _is_base(each.cell)}
    bases = {_part(each.cell) for each in new if _is_base(each.cell)}
    there = (each for each in published if _part(each.cell) not in (bases if _is_base(each.cell) else taken))
    return [*new, *there]


def updated(
    old: tuple[pd.DataFrame, pd.DataFrame], new: tuple[pd.DataFrame, pd.DataFrame]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows and averages of an old table, whose regimes that the new one has are the new one's.

    Raises:
        LabError: a regime in the new one lacks a task that the old one has of it, or the old rows were
            compared with other dense checkpoints.
    """
    import pandas as pd

    (old_rows, old_means), (rows, means) = old, new
    made = set(rows.loc[~_base_rows(rows), "regime"])
    for regime in sorted(made):
        before, now = (set(t.loc[~_base_rows(t) & (t["regime"] == regime), "task"]) for t in (old_rows, rows))
        if lost := sorted(before - now):
            raise LabError(
                got=f"no cells of {', '.join(lost)} in regime {regime}, new or published",
                allowed="all tasks that the table has of a regime",
                hint="sweep these in that regime into the same folder",
            )
    dense = rows.groupby("task")["dense"].first()
    replaced = _base_rows(old_rows) & old_rows["task"].isin(dense.index)
    kept = old_rows[~old_rows["regime"].isin(made) & ~replaced]
    other = (
        kept["task"].map(dense).astype(float) - kept["dense"]
    ).abs() > 2 * 10**-DECIMALS  # False where there is none
    if other.any():
        raise LabError(
            got=f"rows of {', '.join(sorted(set(kept.loc[other, 'task'])))} against another dense checkpoint",
            allowed="a table of the dense checkpoints that the sweep had",
            hint="sweep all regimes of these tasks",
        )
    every = pd.concat([rows, kept]).astype({"limit": "Int64"})
    every = every.sort_values(list(PLACE), key=_ranks, kind="stable", ignore_index=True)
    both = pd.concat([means, old_means[~old_means["regime"].isin(made) & ~_base_rows(old_means)]])
    ranks = {key: rank for rank, key in enumerate(dict.fromkeys(_keys(every)))}
    order = sorted(range(len(both)), key=[ranks[key] for key in _keys(both)].__getitem__)
    return every, both.iloc[order].reset_index(drop=True)


def without_successor(old: pd.DataFrame, new: pd.DataFrame) -> str | None:
    """A sentence on rows of an old table that a new one has not, for example methods that were not swept."""
    columns = ["task", "regime", "method", "keep", "seed"]
    there = set(new[columns].itertuples(index=False, name=None))
    lost = [row for row in old[columns].itertuples(index=False, name=None) if row not in there]
    if not lost:
        return None
    names = dict.fromkeys(f"{task} {regime} {method}" for task, regime, method, _, _ in lost)
    shown = ", ".join(list(names)[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return (
        f"Rows of the old table that are not in the new one: {shown}. Sweep these too, if they are to stay."
    )


def _ranks(column: pd.Series) -> pd.Series:
    """What a column is sorted by: names in their own order, others as they are."""
    if column.name == "task":
        return column.map(
            {task_label(task, split): i for i, task in enumerate(TASKS) for split in TASKS[task].splits}
        )
    names = {"regime": REGIMES, "method": tuple(METHODS)}.get(str(column.name))
    return column if names is None else column.map({name: rank for rank, name in enumerate(names)})


def _keys(table: pd.DataFrame) -> list[tuple[Any, ...]]:
    return list(table[["regime", "method", "keep"]].itertuples(index=False, name=None))


def _base_rows(table: pd.DataFrame) -> pd.Series:
    return (table["regime"] == BASE[0]) & (table["method"] == BASE[1])


def _is_base(cell: Cell) -> bool:
    return (cell.regime, cell.method) == BASE


def _part(cell: Cell) -> tuple[str, str]:
    return task_label(cell.task, cell.split), cell.regime
