"""Verdicts follow from the table's intervals, and say what is missing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cells import made_cell

from dsgp_lab import LabError
from dsgp_lab.evaluate.results_rows import average, table_of
from dsgp_lab.evaluate.results_table import Results
from dsgp_lab.evaluate.verdicts import (
    Verdict,
    claim_verdicts,
    claims_report,
    gain_verdicts,
    judge,
    loss_verdicts,
    mean_gain,
    savings,
)
from dsgp_lab.regimes import REGIMES

TASKS = ("cola", "sst2", "mrpc", "wnli")
KINDS = {"twin": 0.3, "router": 0.12, "mismatched": 0.3, "static_fisher": 0.35}


def results(**changes: object) -> Results:
    """Frozen: dense, and four methods at two budgets on four tasks, one of which is in no average."""
    cells = [made_cell(task, flip=0.1, n=300, **changes) for task in TASKS]
    for task in TASKS:
        for method, flip in KINDS.items():
            for keep in (0.3, 0.8):
                wrong = 0.1 + (flip - 0.1) * (1 - keep) / 0.7
                cells.append(made_cell(task, method, keep, flip=wrong, n=300, **changes))
    rows, draws = table_of(cells, resamples=400)
    return Results(rows, average(rows, draws), ("a machine",))


@pytest.fixture(scope="module")
def table() -> Results:
    return results()


def test_an_answer_needs_the_whole_interval() -> None:
    assert judge(1.1, 2, limit=1) == "yes"
    assert judge(0.9, 2, limit=1) == "undecided"
    assert judge(0, 0.9, limit=1) == "no"
    assert judge(0, 0) == "undecided"


def test_losses_are_judged_by_their_averages(table: Results) -> None:
    found = loss_verdicts(table, limit=12)
    assert [(each.regime, each.keep) for each in found.entries[:2]] == [("frozen", 0.3), ("frozen", 0.8)]
    mine = table.averages[table.averages["method"] == "router"].set_index("keep")
    for each in found.entries[:2]:
        row = mine.loc[each.keep]
        assert (each.value, each.low, each.high) == (row["loss"], row["ci_low"], row["ci_high"])
        assert (each.tasks, each.macs) == (3, each.keep)  # WNLI is in no average
        assert each.answer == judge(-row["ci_high"], -row["ci_low"], -12)
    assert loss_verdicts(table, limit=1000).answers("frozen") == {0.3: "yes", 0.8: "yes"}
    assert loss_verdicts(table, limit=-1000).answers("frozen") == {0.3: "no", 0.8: "no"}
    assert found.question == "Does the router lose less than 12 points?"
    assert loss_verdicts(table, method="dense").answers("frozen") == {1.0: "yes"}


def test_the_claim_is_judged_at_the_largest_budget_that_is_small_enough(table: Results) -> None:
    by_budget = {each.keep: each for each in loss_verdicts(table).entries if each.tasks}
    assert claim_verdicts(table).entries[0] == by_budget[0.3]
    assert claim_verdicts(table, fewer=0.2).entries[0] == by_budget[0.8]
    assert claim_verdicts(table, fewer=0.9).answers("frozen") == {}
    assert claim_verdicts(table).question == "40 % fewer MACs and less than 1 point lost?"
    assert [each.regime for each in claim_verdicts(table).entries] == list(REGIMES)


def test_a_budget_measured_on_fewer_tasks_is_not_compared(table: Results) -> None:
    """It may be the easier tasks that it was measured on."""
    averages = table.averages.copy()
    averages.loc[averages["keep"] == 0.3, "tasks"] = 2
    fewer = Results(table.rows, averages, ())
    assert claim_verdicts(fewer).answers("frozen") == {}
    assert claim_verdicts(fewer, fewer=0.2).entries[0].keep == 0.8
    assert {each.keep for each in savings(fewer, limit=1000).found.values() if each} == {0.8}


def test_results_of_other_splits_have_gains_and_no_averages() -> None:
    """A sweep of teaching sets: no GLUE, so no averages; the tasks' own intervals are there."""
    found = gain_verdicts(results(split="teaching"))
    assert found.entries[0].tasks == 3
    assert found.answers("frozen")[0.3] == "yes"


def test_regimes_without_results_say_so(table: Results) -> None:
    for found in (loss_verdicts(table), gain_verdicts(table), gain_verdicts(table, "mismatched")):
        assert [each.regime for each in found.entries] == ["frozen", "frozen", *REGIMES[1:]]
        assert {each.answer for each in found.entries[2:]} == {"no results"}
        assert found.answers("joint") == {}
        assert str(found.entries[-1]) == "adaptive: no results"


def test_the_gain_over_the_twin_is_that_of_the_averages(table: Results) -> None:
    mine = table.averages[table.averages["method"] == "router"].set_index("keep")
    for each in gain_verdicts(table).entries[:2]:
        row = mine.loc[each.keep]
        assert (each.value, each.low, each.high) == tuple(
            row[f"gain_twin{end}"] for end in ("", "_low", "_high")
        )
    assert gain_verdicts(table).answers("frozen")[0.3] == "yes"


def test_a_mean_made_from_the_tasks_intervals_is_close_to_the_bootstrap(table: Results) -> None:
    router = table.rows[(table.rows["method"] == "router") & (table.rows["task"] != "wnli")]
    mine = table.averages[table.averages["method"] == "router"].set_index("keep")
    for keep, group in router.groupby("keep"):
        value, low, high, tasks = mean_gain(group, "twin")
        row = mine.loc[keep]
        assert tasks == 3
        assert value == pytest.approx(row["gain_twin"], abs=1e-3)
        width = row["gain_twin_high"] - row["gain_twin_low"]
        assert (low, high) == pytest.approx((row["gain_twin_low"], row["gain_twin_high"]), abs=0.1 * width)


def test_where_tasks_differ_the_gain_is_made_from_those_with_both(table: Results) -> None:
    """One task's twin is missing: the averages have no gain, the verdict is on the two others."""
    rows = table.rows.copy()
    rows.loc[rows["task"] == "cola", ["gain_twin", "gain_twin_low", "gain_twin_high"]] = np.nan
    averages = table.averages.assign(gain_twin=np.nan)
    first = gain_verdicts(Results(rows, averages, ())).entries[0]
    assert first.tasks == 2
    group = rows[(rows["method"] == "router") & (rows["keep"] == 0.3) & rows["task"].isin(("sst2", "mrpc"))]
    assert first.value == pytest.approx(group["gain_twin"].mean())


def test_seeds_are_averaged_within_a_task(table: Results) -> None:
    rows = table.rows[(table.rows["method"] == "router") & (table.rows["keep"] == 0.3)]
    twice = rows.loc[rows.index.repeat(2)]
    assert mean_gain(twice, "mismatched") == pytest.approx(mean_gain(rows, "mismatched"))


def test_savings_take_the_smallest_budget_that_is_sure(table: Results) -> None:
    found = savings(table, limit=1000).found
    assert {method for _, method in found} == {"router", "twin", "static_fisher"}
    assert {each.keep for each in found.values() if each} == {0.3}
    nothing = savings(table, limit=-1000)
    assert set(nothing.found.values()) == {None}
    assert "none of those measured" in str(nothing)
    limit = max(each.high for each in loss_verdicts(table, method="twin").entries if each.keep == 0.8) + 0.01
    chosen = savings(table, limit, ["twin", "router"]).found
    assert chosen["frozen", "twin"] is not None
    assert chosen["frozen", "twin"].keep == 0.8


def test_a_cascade_is_compared_with_a_draw_by_lot() -> None:
    cells = [made_cell(task, flip=0.1, n=300) for task in ("sst2", "stsb")]
    for method, flip in (("twin", 0.3), ("cascade", 0.15), ("cascade_by_lot", 0.35), ("router", 0.2)):
        cells += [made_cell(task, method, 0.3, flip=flip, n=300) for task in ("sst2", "stsb")]
    rows, draws = table_of(cells, resamples=400)
    assert set(rows.loc[rows["gain_cascade_by_lot"].notna(), "method"]) == {"cascade"}
    assert set(rows.loc[rows["gain_cascade_by_lot"].notna(), "task"]) == {"sst2"}  # a regression has no lot
    found = gain_verdicts(Results(rows, average(rows, draws), ()), "cascade_by_lot", "cascade")
    assert found.answers("frozen") == {0.3: "yes"}
    assert found.entries[0].tasks == 1
    older = rows.drop(columns=[name for name in rows if "by_lot" in name])
    before = gain_verdicts(Results(older, average(rows, draws), ()), "cascade_by_lot", "cascade")
    assert {each.answer for each in before.entries} == {"no results"}


def test_reports_print(table: Results) -> None:
    text = str(gain_verdicts(table))
    assert "Is the router better than its static twin?" in text
    assert "no results" in text
    assert "<table>" in loss_verdicts(table)._repr_html_()
    assert "<table>" in savings(table)._repr_html_()
    one = Verdict("joint", 0.5, "yes", 0.5, 1.234, 0.5, 2.0, 1)
    assert str(one) == "joint at 0.5: yes, 1.23 points [0.50, 2.00], one task"
    assert math.isnan(Verdict("joint", math.nan, "no results").value)


def test_mistakes(table: Results) -> None:
    with pytest.raises(LabError, match="rival='random'"):
        gain_verdicts(table, "random")  # type: ignore[arg-type]
    with pytest.raises(LabError, match="a draw by lot is its control"):
        gain_verdicts(table, "cascade_by_lot")
    with pytest.raises(LabError, match="method 'routr'"):
        loss_verdicts(table, method="routr")


def test_three_claims_side_by_side(table: Results) -> None:
    report = claims_report(table, limit=60)
    paper, frozen, *others = report.rows
    assert paper[:3] == ("(the paper)", "40 %", "under 60")
    enough = savings(table, 60).found
    mine = enough["frozen", "router"]
    rivals = [enough["frozen", name] for name in ("twin", "static_fisher")]
    assert mine is not None
    assert frozen[1] == f"{100 * (1 - mine.macs):.0f} %"
    best = min(each.macs for each in rivals if each)
    assert frozen[3] == f"{100 * (1 - mine.macs / best):.0f} %"
    claim = claim_verdicts(table, limit=60).entries[0]
    assert frozen[2].endswith(f", {claim.answer}")
    assert frozen[4] == "3"
    assert [row[0] for row in others] == list(REGIMES[1:])
    assert {cell for row in others for cell in row[1:]} == {"-"}
    assert claims_report(table, limit=-99).rows[1][1::2] == ("-", "-")  # no budget is enough
