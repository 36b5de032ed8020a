"""Gains on the static twin at equal operations.

Budgets are met on calibration texts. On others a method runs a little more or less of the model than its
twin, and where little is left, a hundredth of the MACs is worth half a point. So the twin's loss at the MACs
that a method really ran is read off the straight line through its two nearest budgets. For accuracy that is
what a lot would give that draws one of these two masks for each input, with the mean MACs right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dsgp_lab.evaluate.methods import DENSE, TWIN

if TYPE_CHECKING:
    import pandas as pd

EQUAL_MACS = "equal_macs"
"""Name of the rival in columns and verdicts."""

REACH = 0.05
"""How far beyond the smallest and the largest budget of the twin the line is still read, share of MACs."""


def on_the_line(macs: Sequence[float], at: float) -> tuple[int, int, float] | None:
    """Which two of rising shares of MACs the line at `at` goes through, and the weight of the second.

    None with fewer than two, or further beyond the ends than `REACH` or than these two lie apart.

    >>> first, second, weight = on_the_line([0.25, 0.35, 0.5], 0.38)
    >>> first, second, round(weight, 3)
    (1, 2, 0.2)
    >>> on_the_line([0.25, 0.35], 0.7) is None
    True
    """
    if len(macs) < 2 or not macs[0] - REACH <= at <= macs[-1] + REACH:
        return None
    second = int(np.clip(np.searchsorted(macs, at), 1, len(macs) - 1))
    low, high = macs[second - 1], macs[second]
    weight = (at - low) / (high - low) if high > low else np.inf
    return (second - 1, second, weight) if -1 <= weight <= 2 else None


def equal_macs_gains(rows: pd.DataFrame, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each row's gain at equal MACs in points [rows], and under every resample [rows, resamples].

    rows and draws as `table_of` has them. A row is compared with the twin of its own task, regime and seed;
    NaN where that has not two budgets, and for twins and dense models.
    """
    values, drawn = np.full(len(rows), np.nan), np.full_like(draws, np.nan)
    losses = rows["loss"].to_numpy()
    for _, group in rows.groupby(["task", "regime", "seed"], sort=False):
        twins = group[group["method"] == TWIN].sort_values("macs")
        shares, places = twins["macs"].tolist(), twins.index
        for row in group[~group["method"].isin((TWIN, DENSE))].itertuples():
            found = on_the_line(shares, float(row.macs))
            if found is not None:
                first, second, weight = places[found[0]], places[found[1]], found[2]
                values[row.Index] = _mixed(losses[first], losses[second], weight) - losses[row.Index]
                drawn[row.Index] = _mixed(draws[first], draws[second], weight) - draws[row.Index]
    return values, drawn


def _mixed(first: np.ndarray, second: np.ndarray, weight: float) -> np.ndarray:
    return (1 - weight) * first + weight * second
