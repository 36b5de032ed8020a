"""Gains at equal MACs: the line by hand, what it means for accuracy, the mean over tasks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from cells import made_cell
from hypothesis import given
from hypothesis import strategies as st

from dsgp_lab.evaluate.cell import CellResult
from dsgp_lab.evaluate.equal_macs import REACH, equal_macs_gains, on_the_line
from dsgp_lab.evaluate.results_rows import GLUE_AVERAGE, average, table_of
from dsgp_lab.evaluate.results_table import Results
from dsgp_lab.evaluate.seed_spread import seed_spreads
from dsgp_lab.evaluate.verdicts import gain_verdicts

GAIN = ["gain_equal_macs", "gain_equal_macs_low", "gain_equal_macs_high"]


def frame(*rows: tuple[str, int, float, float]) -> pd.DataFrame:
    """Rows of a table of one task: method, seed, share of MACs, loss."""
    made = pd.DataFrame(rows, columns=["method", "seed", "macs", "loss"])
    return made.assign(task="sst2", regime="frozen")


def spent(result: CellResult, share: float) -> CellResult:
    """The cell, as if it had run that share of the MACs."""
    return replace(result, predictions=result.predictions.assign(share=share))


def grid(task: str, share: float = 0.45) -> list[CellResult]:
    """Dense, the twin at two budgets, and a router at the larger one, which runs `share` of the MACs."""
    kinds = {"dense": (1.0, 0.1, 1.0), "twin": (0.5, 0.2, 0.5), "router": (0.5, 0.25, share)}
    cells = [spent(made_cell(task, name, keep, flip=flip), at) for name, (keep, flip, at) in kinds.items()]
    return [*cells, made_cell(task, "twin", 0.25, flip=0.6)]


@given(
    st.lists(st.floats(0.1, 1.0), min_size=2, max_size=5, unique=True).map(sorted),
    st.floats(0, 1),
)
def test_the_line_goes_through_the_point(macs: list[float], at: float) -> None:
    found = on_the_line(macs, at)
    if found is None:
        beyond = max(macs[0] - at, at - macs[-1])
        apart = macs[1] - macs[0] if at < macs[0] else macs[-1] - macs[-2]
        assert beyond > REACH or beyond > apart * (1 - 1e-9)
        return
    first, second, weight = found
    assert second == first + 1
    assert (1 - weight) * macs[first] + weight * macs[second] == pytest.approx(at)
    inside = macs[0] <= at <= macs[-1]
    assert not inside or -1e-9 <= weight <= 1 + 1e-9


def test_no_line_without_two_budgets() -> None:
    assert on_the_line([0.5], 0.5) is None
    assert on_the_line([0.5, 0.5], 0.5) is None
    assert on_the_line([0.5, 0.5001], 0.52) is None  # too near each other to say what lies beyond


def test_gains_by_hand() -> None:
    """Twins at 0.2 and 0.4 of the MACs lose 6 and 2 points: so 3 at 0.35, and 1.2 at 0.44."""
    rows = frame(
        ("twin", 0, 0.4, 2.0),
        ("router", 0, 0.35, 2.5),
        ("twin", 0, 0.2, 6.0),
        ("cascade", 0, 0.44, 2.0),
        ("random", 0, 0.6, 1.0),
        ("dense", 0, 1.0, 0.0),
        ("router", 1, 0.35, 0.0),
    )
    draws = np.stack([rows["loss"], rows["loss"] + (rows["method"] == "twin")], axis=1)
    values, drawn = equal_macs_gains(rows, draws)
    assert values[[1, 3]].tolist() == pytest.approx([0.5, -0.8])
    assert np.isnan(values[[0, 2, 4, 5, 6]]).all()  # twins, out of reach, the dense model, another seed
    assert drawn[1].tolist() == pytest.approx([0.5, 1.5])
    assert drawn[3].tolist() == pytest.approx([-0.8, 0.2])


def test_at_the_twins_own_macs_it_is_the_gain_over_the_twin() -> None:
    rows, _ = table_of(grid("sst2", share=0.5), resamples=100)
    row = rows.set_index("method").loc["router"]
    assert row[GAIN].tolist() == pytest.approx(
        row[["gain_twin", "gain_twin_low", "gain_twin_high"]].tolist(), abs=1e-5
    )


def test_for_accuracy_it_is_a_lot_between_two_masks() -> None:
    """A fifth of the inputs under the smaller mask, drawn many times: the accuracy of the line."""
    cells = {(each.cell.method, each.cell.keep): each.predictions for each in grid("sst2")}
    rows, _ = table_of(grid("sst2"), resamples=20)
    row = rows.set_index("method").loc["router"]
    hits = {
        name: (table["prediction"] == table["label"]).to_numpy(dtype=float) for name, table in cells.items()
    }
    lots = np.random.default_rng(0).random((20_000, len(hits["twin", 0.25]))) < 0.2
    mixed = np.where(lots, hits["twin", 0.25], hits["twin", 0.5])
    gain = 100 * (hits["router", 0.5].mean() - mixed.mean())
    assert row["gain_equal_macs"] == pytest.approx(gain, abs=0.1)


def test_the_mean_over_tasks_is_that_of_the_rows() -> None:
    rows, draws = table_of([cell for task in GLUE_AVERAGE for cell in grid(task)], resamples=200)
    mean = average(rows, draws).set_index(["method", "keep"]).loc["router", 0.5]
    own = rows[rows["method"] == "router"]
    assert mean["gain_equal_macs"] == pytest.approx(own["gain_equal_macs"].mean(), abs=1e-3)
    assert mean["gain_equal_macs"] > mean["gain_twin"]  # it ran less than the twin, whose curve is steep
    assert mean["gain_equal_macs_low"] < mean["gain_equal_macs"] < mean["gain_equal_macs_high"]


def test_a_table_from_before_has_no_answer() -> None:
    rows, draws = table_of([cell for task in GLUE_AVERAGE for cell in grid(task)], resamples=50)
    old = Results(rows.drop(columns=GAIN), average(rows, draws).drop(columns=GAIN), ("a machine",))
    assert gain_verdicts(old, "equal_macs").answers("frozen") == {}
    assert "at equal MACs" in old.reports()[-1].text()
    assert seed_spreads(old.rows, old.averages, "frozen") == ()


def test_the_verdict_is_the_averages() -> None:
    rows, draws = table_of([cell for task in GLUE_AVERAGE for cell in grid(task)], resamples=200)
    results = Results(rows, average(rows, draws), ("a machine",))
    entry = next(each for each in gain_verdicts(results, "equal_macs").entries if each.regime == "frozen")
    mean = results.averages.set_index(["method", "keep"]).loc["router", 0.5]
    assert [entry.value, entry.low, entry.high] == mean[GAIN].tolist()
    assert entry.macs == pytest.approx(0.45)
