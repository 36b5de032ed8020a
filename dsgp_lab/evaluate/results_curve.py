"""From rows of results to the curve of one task in one regime."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.methods import DENSE
from dsgp_lab.regimes import Regime
from dsgp_lab.views.curves import budget_curves, method_curves
from dsgp_lab.views.view import View

if TYPE_CHECKING:
    import pandas as pd


def results_curve(rows: pd.DataFrame, task: str, regime: Regime, keep: float | None = None) -> View:
    """Points against the dense model over operations, a line a method; `keep` is marked.

    rows: as in `Results.rows`.

    Raises:
        LabError: no rows of this task and regime besides the dense model's.
    """
    mine = rows[(rows["task"] == task) & (rows["regime"] == regime) & (rows["method"] != DENSE)]
    if mine.empty:
        there = dict.fromkeys(
            f"{a} {b}"
            for a, b, c in zip(rows["task"], rows["regime"], rows["method"], strict=True)
            if c != DENSE
        )
        raise LabError(
            got=f"no results of {task!r} in the regime {regime}",
            allowed=", ".join(there) or "none at all",
            hint="choose one of these, or make some with dsgp-lab sweep or lab.sweep_panel()",
        )
    return budget_curves(
        {task: method_curves(mine)}, title=f"{task}, {regime}: loss and operations", mark=keep
    )
