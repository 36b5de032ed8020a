"""The spread between seeds: what it is made of, and what it says where seeds are missing."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from dsgp_lab import LabError
from dsgp_lab.evaluate.results_rows import AVERAGE_COLUMNS, GLUE_AVERAGE
from dsgp_lab.evaluate.results_table import Results
from dsgp_lab.evaluate.seed_spread import Z95, SeedSpread, Spread, seed_spread, seed_spreads

SEEDS = {"cola": (1.0, 3.0, 5.0), "rte": (0.0, 1.0)}
"""Losses by seed; every other task of the average has one."""


def row(
    task: str, seed: int, loss: float, method: str = "router", gain: float = math.nan
) -> dict[str, object]:
    return {
        "task": task,
        "regime": "adaptive",
        "method": method,
        "keep": 0.5,
        "seed": seed,
        "loss": loss,
        "ci_low": loss - Z95,  # a standard error of one point
        "ci_high": loss + Z95,
        "gain_twin": gain,
        "gain_twin_low": gain - 2 * Z95,
        "gain_twin_high": gain + 2 * Z95,
    }


def table(tasks: tuple[str, ...] = GLUE_AVERAGE) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The router's rows; and their mean, whose interval has a standard error of 0.3."""
    rows = [row(task, seed, loss) for task in tasks for seed, loss in enumerate(SEEDS.get(task, (2.0,)))]
    mean = {"regime": "adaptive", "method": "router", "keep": 0.5, "tasks": len(tasks), "loss": 2.0}
    ends = {"ci_low": 2 - 0.3 * Z95, "ci_high": 2 + 0.3 * Z95}
    return pd.DataFrame(rows), pd.DataFrame([mean | ends]).reindex(columns=list(AVERAGE_COLUMNS))


def test_the_spread_of_a_task_and_of_the_mean() -> None:
    spread = seed_spread(*table(), "adaptive")
    found = {each.task: each for each in spread.spreads}
    assert found["cola"].values == (1.0, 3.0, 5.0)
    assert found["cola"].seeds == pytest.approx(2)
    assert found["cola"].examples == pytest.approx(1)
    assert math.isnan(found["sst2"].seeds)
    usual = math.sqrt((4 + 0.5) / 2)
    by_hand = math.sqrt(4 / 3 + 0.5 / 2 + 6 * usual**2) / 8  # three seeds, two, and six tasks with one
    assert spread.of_mean("router", 0.5) == pytest.approx(by_hand)
    weights = (4 * (1 / 3 + 3) / 64, 0.5 * (1 / 2 + 3) / 64)  # each of the two tasks speaks for three others
    assert sum(weights) == pytest.approx(by_hand**2)
    of_seeds = sum(weights) ** 2 / (weights[0] ** 2 / 2 + weights[1] ** 2 / 1)
    freedom = of_seeds * ((by_hand**2 + 0.3**2) / by_hand**2) ** 2
    assert spread.freedom("router", 0.5) == pytest.approx(freedom)
    value, low, high = spread.interval("router", 0.5)
    assert value == pytest.approx(2)
    assert (high - low) / 2 == pytest.approx(t.ppf(0.975, freedom) * math.hypot(0.3, by_hand))


def test_seeds_that_are_alike_leave_the_interval_over_examples() -> None:
    rows, averages = table()
    alike = seed_spread(rows.assign(loss=2.0), averages, "adaptive")
    assert alike.freedom("router", 0.5) == math.inf
    assert alike.interval("router", 0.5) == pytest.approx((2, 2 - 0.3 * Z95, 2 + 0.3 * Z95), abs=1e-4)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Three seeds of eight tasks, with a training each or one for all, 2,000 times."""
    draw = np.random.default_rng(0)
    for regime, own in (("adaptive", True), ("shared", False)):
        held = held_by_196 = 0
        for _ in range(2000):
            seeds = draw.normal(0, 1, (8, 3)) if own else np.repeat(draw.normal(0, 1, (1, 3)), 8, axis=0)
            spreads = tuple(
                Spread(task, "router", 0.5, tuple(values), 0.5)
                for task, values in zip(GLUE_AVERAGE, seeds, strict=True)
            )
            found = float(seeds.mean() + draw.normal(0, 0.3))
            ends = {("router", 0.5): (found, found - 0.3 * Z95, found + 0.3 * Z95)}
            spread = SeedSpread(regime, "loss", spreads, ends)
            _, low, high = spread.interval("router", 0.5)
            held += low <= 0 <= high
            held_by_196 += abs(found) <= Z95 * math.hypot(0.3, spread.of_mean("router", 0.5))
        assert 0.91 <= held / 2000 <= 0.97
        assert own or held_by_196 / 2000 < 0.9  # one training for all: three of them are too few for that


def test_the_order_of_rows_does_not_matter() -> None:
    rows, averages = table()
    turned = seed_spread(rows.iloc[::-1], averages, "adaptive")
    assert {each.task: each.values for each in turned.spreads}["cola"] == (1.0, 3.0, 5.0)
    assert turned.of_mean("router", 0.5) == pytest.approx(
        seed_spread(rows, averages, "adaptive").of_mean("router", 0.5)
    )


def test_the_report_names_the_tasks_with_several_seeds() -> None:
    text = str(seed_spread(*table(), "adaptive"))
    assert "router, cola" in text
    assert "2.00 (1.00)" in text
    assert "sst2" not in text
    assert "mean of 8 [95 %]" in text


def test_one_training_for_all_tasks_moves_them_together() -> None:
    """Two seeds, the second one worse by 2 points on every task; independent tasks would hide most of it."""
    rows, averages = table()
    both = pd.DataFrame([row(task, seed, 2.0 * seed) for task in GLUE_AVERAGE for seed in (0, 1)])
    spread = seed_spread(both.assign(regime="shared"), averages.assign(regime="shared"), "shared")
    assert spread.of_mean("router", 0.5) == pytest.approx(1)
    assert "mean of 8 [95 %]" in str(spread)
    some = seed_spread(rows.assign(regime="shared"), averages.assign(regime="shared"), "shared")
    assert math.isnan(some.of_mean("router", 0.5))  # six tasks have one seed
    assert "nan" not in str(some)
    assert "mean of 8" not in str(some.report().rows)


def test_no_mean_without_all_tasks() -> None:
    spread = seed_spread(*table(("cola", "rte")), "adaptive")
    assert "mean of 8 [95 %]" not in str(spread)
    assert all(math.isnan(end) for end in spread.interval("router", 0.5))
    assert math.isnan(spread.of_mean("router", 0.35))


def test_gains_are_paired_seed_by_seed() -> None:
    rows, averages = table()
    gains = pd.DataFrame([row("cola", seed, 0.0, "cascade", gain) for seed, gain in enumerate((1.0, 2.0))])
    losses, spread = seed_spreads(pd.concat([rows, gains], ignore_index=True), averages, "adaptive")
    assert (losses.measure, spread.measure) == ("loss", "gain_twin")
    assert [(each.method, each.values) for each in spread.spreads] == [("cascade", (1.0, 2.0))]
    assert spread.spreads[0].examples == pytest.approx(2)


def test_a_method_without_seeds_at_a_budget_has_no_mean_there() -> None:
    rows, averages = table()
    other = averages.assign(method="twin", keep=0.35)
    twins = pd.DataFrame([row("cola", seed, loss, "twin") for seed, loss in enumerate((1.0, 2.0))])
    both = pd.concat([averages, other, averages.assign(method="twin")], ignore_index=True)
    text = str(seed_spread(pd.concat([rows, twins.assign(keep=0.35)], ignore_index=True), both, "adaptive"))
    assert "nan" not in text


def test_a_task_with_one_seed_at_a_budget_has_no_spread_there() -> None:
    rows, averages = table()
    more = pd.DataFrame([row("rte", 0, 1.0), row("cola", 0, 1.0), row("cola", 1, 2.0)]).assign(keep=0.6)
    text = str(seed_spread(pd.concat([rows, more], ignore_index=True), averages, "adaptive"))
    assert "nan" not in text
    assert [line.split()[2:] for line in text.splitlines() if "router, rte" in line] == [
        ["2", "0.71", "(1.00)", "-"]
    ]
    assert [line.split()[2] for line in text.splitlines() if "router, cola" in line] == ["3"]


def test_mistakes_are_named() -> None:
    rows, averages = table()
    with pytest.raises(LabError, match=r"measure 'macs'.*loss, gain_twin"):
        seed_spread(rows, averages, "adaptive", "macs")  # type: ignore[arg-type]
    with pytest.raises(LabError, match=r"'frozen'.*the table has adaptive.*make seeds"):
        seed_spread(rows, averages, "frozen")
    assert seed_spreads(rows[rows["seed"] == 0], averages, "adaptive") == ()


def test_the_committed_table_says_what_seeds_move() -> None:
    results = Results.load()
    titles = [report.title for report in results.reports()]
    assert "Regime adaptive: points lost, by seed" in titles
    for regime in ("frozen", "shared_frozen"):
        assert f"Regime {regime}: points gained on the static twin at equal MACs, by seed" in titles
    shared = seed_spread(results.rows, results.averages, "shared_frozen")
    counts = {len(each.values) for each in shared.spreads}
    assert counts == {3, 5}  # of all tasks alike, since one training serves all
    assert not math.isnan(shared.of_mean("router", 0.5))
    assert "Regime joint: points lost, by seed" not in titles
    spread = seed_spread(results.rows, results.averages, "adaptive")
    row = results.averages.query("regime == 'adaptive' and method == 'router' and keep == 0.5").iloc[0]
    value, low, high = spread.interval("router", 0.5)
    assert value == row["loss"]
    assert low < row["ci_low"] < row["ci_high"] < high
