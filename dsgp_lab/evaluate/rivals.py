"""Which static mask is as accurate as a router: looked up in the results table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsgp_lab.evaluate.methods import DENSE, ROUTER_METHOD, STATIC, TWIN

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Rival:
    """The cheapest static method that is at least as accurate as a task's router at `router_keep`.

    method: its name, or "dense", whose budget is 1; keep: its budget; value, router_value: points of 100 in
    the results table, means over splits and seeds. Both are estimates: neither interval is asked for.
    """

    task: str
    regime: str
    router_keep: float
    router_value: float
    method: str
    keep: float
    value: float


def find_rival(rows: pd.DataFrame, task: str, regime: str, keep: float) -> Rival | str:
    """The rival in a results table's rows, or a sentence that says why there is none."""
    mine = rows[(rows["task"] == task) & (rows["regime"] == regime)]
    value = mine.groupby(["method", "keep"])["value"].mean()
    if (ROUTER_METHOD, keep) not in value.index:
        return f"the results table has no router for {task} at {keep:g} in regime {regime}."
    wanted = float(value[(ROUTER_METHOD, keep)])
    found = [
        (float(budget), method, float(points))
        for (method, budget), points in value.items()
        if method in (*STATIC, TWIN)
    ]
    found.append((1.0, DENSE, float(mine["dense"].mean())))
    as_good = [each for each in found if each[2] >= wanted]
    if not as_good:
        return "no static mask of the results table is as accurate, nor is the dense model."
    budget, method, points = min(as_good)
    return Rival(task, regime, keep, wanted, method, budget, points)


def routed_settings(rows: pd.DataFrame) -> list[tuple[str, str, float]]:
    """Task, regime and budget of every router in the table, larger budgets first."""
    mine = rows[rows["method"] == ROUTER_METHOD]
    found = {(str(r.task), str(r.regime), float(r.keep)) for r in mine.itertuples()}
    return sorted(found, key=lambda each: (each[0], each[1], -each[2]))
