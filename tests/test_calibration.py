"""Cost tables: the fit, interpolation, files that are stale or foreign, and budgets in time."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import random_mask, toy_anatomy, toy_inputs, toy_model

from dsgp_lab import DynamicPruner, LabError, Mask, SubNetwork, calibration, make_scorer, plan_mask
from dsgp_lab.calibration import calibrate
from dsgp_lab.cost import Macs
from dsgp_lab.cost_table import CostPoint, CostTable, Machine, counts
from dsgp_lab.latency_budget import LatencyBudget
from dsgp_lab.pruner import Timings
from dsgp_lab.results import Prediction, PrunedRun
from dsgp_lab.router import Router, RouterShape
from dsgp_lab.router_planner import BatchPlanner, Planner
from dsgp_lab.sensitivity import lengths

MODEL = toy_model("bert")
ANATOMY = toy_anatomy(MODEL)
SUB = SubNetwork(ANATOMY)
INPUTS = toy_inputs(MODEL, [9, 3, 12])
TRUTH = CostPoint(1, 10, fixed=1.0, head=0.1, block=0.2, run=0.05)
TABLE = CostTable(
    Machine.of(SUB),
    (TRUTH, replace(TRUTH, tokens=20, fixed=2.0), replace(TRUTH, batch=8, fixed=8.0)),
    (3 * ANATOMY.num_heads, 3 * ANATOMY.num_blocks),
    seconds=1.0,
)


def test_the_costs_behind_the_times_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that a made-up run turns, by the mask it was given."""
    now = [0.0]
    monkeypatch.setattr(calibration.time, "perf_counter", lambda: now[0])

    class Made(SubNetwork):
        def select(self, mask: Mask) -> tuple:
            return mask  # type: ignore[return-value]

        def run(self, inputs: object, plan: object) -> torch.Tensor:
            now[0] += 1e-3 * TRUTH.time(*counts(plan))  # type: ignore[arg-type]
            return torch.empty(0)

    made = Made.__new__(Made)
    made.anatomy, made.packed, made.copies = ANATOMY, SUB.packed, SUB.copies  # no weights are run
    table = calibrate(made, batches=(1,), tokens=(10,), seconds=1.0)
    found = table.at(1, 10)
    for name in ("fixed", "head", "block", "run"):
        assert getattr(found, name) == pytest.approx(getattr(TRUTH, name), rel=0.001)
    mask = random_mask(ANATOMY, seed=4)
    assert table.predict(mask, 10) == pytest.approx(TRUTH.time(*counts(mask)), rel=0.001)


def test_a_real_measurement() -> None:
    table = calibrate(SUB, batches=(1, 2), tokens=(4, 8), seconds=1.0)
    assert len(table.points) == 4
    assert all(value >= 0 for p in table.points for value in (p.fixed, p.head, p.block, p.run))
    assert table.dense(8) > 0
    assert table.machine == Machine.of(SUB)
    assert "extra run" in str(table)
    assert table._repr_html_().count("<tr>") == 5


def test_between_and_beyond_the_grid() -> None:
    assert TABLE.at(1, 15).fixed == pytest.approx(1.5)
    assert TABLE.at(1, 30).fixed == pytest.approx(3.0)
    assert TABLE.at(1, 1).fixed == pytest.approx(0.1)
    assert TABLE.at(2, 10).fixed == pytest.approx(2.0)
    assert TABLE.dense(10) == pytest.approx(1 + 12 * 0.1 + 18 * 0.2)


def test_tables_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(LabError, match=r"no cost table.*dsgp-lab calibrate"):
        CostTable.load(SUB)
    path = TABLE.save()
    assert tmp_path in path.parents
    assert CostTable.load(SUB) == TABLE


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("torch", "1.0", "torch 1.0, here"),
        ("device", "an abacus", "device an abacus"),
        ("threads", 99, "threads 99"),
    ],
)
def test_stale_and_foreign_tables_are_noticed(tmp_path: Path, field: str, value: object, said: str) -> None:
    path = replace(TABLE, machine=replace(TABLE.machine, **{field: value})).save(tmp_path / "table.json")
    with pytest.raises(LabError, match=f"measured elsewhere: {said}.*dsgp-lab calibrate"):
        CostTable.load(SUB, path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"machine": {}}'])
def test_damaged_tables(tmp_path: Path, text: str) -> None:
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(LabError, match="damaged cost table"):
        CostTable.load(SUB, path)
    raw = json.loads(TABLE.save(path).read_text())
    path.write_text(json.dumps(raw | {"points": [{"batch": 1}]}))
    with pytest.raises(LabError, match="damaged cost table"):
        CostTable.load(SUB, path)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("4 ms", 4.0), ("at most 4 ms", 4.0), ("0.5 of dense", 2.9), (" .5  of dense ", 2.9), ("4.0ms", 4.0)],
)
def test_budgets_are_read(text: str, milliseconds: float) -> None:
    assert LatencyBudget.parse(text, TABLE).milliseconds(10) == pytest.approx(milliseconds)


@pytest.mark.parametrize("text", ["", "4", "0 ms", "-1 ms", "1.5 of dense", "nan ms", "fast", None, 4.0])
def test_budgets_that_are_none(text: object) -> None:
    with pytest.raises(LabError, match=r"latency budget of .*0\.6 of dense"):
        LatencyBudget.parse(text, TABLE)  # type: ignore[arg-type]


@given(st.integers(0, 999), st.floats(0.25, 1.0))
def test_plans_stay_within_the_predicted_time(seed: int, share: float) -> None:
    budget = LatencyBudget(share, "of dense", TABLE)
    scores = replace(make_scorer("random")(ANATOMY, INPUTS), seconds=0.0)
    for row, tokens in enumerate(lengths(INPUTS).tolist()):
        mask = plan_mask(scores, None, lengths(INPUTS), budget)[row]  # type: ignore[arg-type]
        assert TABLE.predict(mask, tokens) <= budget.milliseconds(tokens) + 1e-9


def test_the_whole_budget_keeps_everything_and_more_time_keeps_more() -> None:
    scores = replace(make_scorer("wanda_sp")(ANATOMY, INPUTS), oracle=True)
    kept = []
    for share in (0.4, 0.7, 1.0):
        mask = plan_mask(scores, None, lengths(INPUTS), LatencyBudget(share, "of dense", TABLE))  # type: ignore[arg-type]
        kept.append(float(mask.keep_share.mean()))
    assert kept == sorted(kept)
    assert kept[-1] == 1.0
    assert kept[0] < 0.5


def test_the_scorers_time_counts_unless_it_is_an_oracle() -> None:
    scores = replace(make_scorer("random")(ANATOMY, INPUTS), seconds=3 * 2e-3, oracle=False)
    budget = LatencyBudget(4.0, "ms", TABLE)
    masks = [plan_mask(replace(scores, oracle=o), None, lengths(INPUTS), budget) for o in (False, True)]  # type: ignore[arg-type]
    for row, tokens in enumerate(lengths(INPUTS).tolist()):
        charged, free = masks[0][row], masks[1][row]
        assert TABLE.predict(charged, tokens) <= 2.0 + 1e-9 < TABLE.predict(free, tokens) <= 4.0 + 1e-9


def test_impossible_and_mixed_budgets() -> None:
    scores = replace(make_scorer("random")(ANATOMY, INPUTS), seconds=0.0)
    with pytest.raises(LabError, match=r"0\.1 ms for 9 tokens.*a run without any unit"):
        plan_mask(scores, None, lengths(INPUTS), LatencyBudget(0.1, "ms", TABLE))  # type: ignore[arg-type]
    with pytest.raises(LabError, match=r"scope='layer'.*latency budget"):
        plan_mask(scores, None, lengths(INPUTS), LatencyBudget(0.5, "of dense", TABLE), "layer")  # type: ignore[arg-type]


def test_a_pruner_with_a_latency_budget() -> None:
    budget = LatencyBudget(0.5, "of dense", TABLE)
    batch = DynamicPruner(SUB, "first_order", budget)(INPUTS)
    for row, tokens in enumerate(lengths(INPUTS).tolist()):
        assert TABLE.predict(batch.mask[row], tokens) <= budget.milliseconds(tokens) + 1e-9
    assert math.isfinite(batch.timings.total)


@pytest.mark.parametrize("rows", [[0], [0, 1, 2]])
def test_a_routers_time_counts_too(rows: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Deciding takes 2 of 4 ms: what runs is what runs in 2 ms without a router."""
    inputs = {name: values[rows] for name, values in INPUTS.items()}
    router = Router(RouterShape.of(ANATOMY, "layerwise", width=8))
    router.start_from_ranking(torch.rand(ANATOMY.num_layers, router.shape.num_units))
    budget, kind = LatencyBudget(4.0, "ms", TABLE), Planner if len(rows) == 1 else BatchPlanner
    seconds = property(lambda self: 2e-3 * len(rows), lambda self, value: None)
    monkeypatch.setattr(kind, "seconds", seconds, raising=False)
    batch = DynamicPruner(SUB, router, budget)(inputs)
    wanted = LatencyBudget(2.0, "ms", TABLE).share(int(lengths(inputs).max()))
    alone = DynamicPruner(SUB, router, wanted)(inputs)
    assert torch.equal(batch.mask.blocks, alone.mask.blocks)
    with pytest.raises(LabError, match=r"2 ms for .*a run without any unit"):
        DynamicPruner(SUB, router, LatencyBudget(2.0, "ms", TABLE))(inputs)


def test_a_run_above_its_budget_says_so() -> None:
    run = PrunedRun(
        text="x",
        tokens=("x",) * 10,
        keep=LatencyBudget(4.0, "ms", TABLE),
        prediction=Prediction("a", 0, (), 0.0, (0.0,)),
        dense=Prediction("a", 0, (), 0.0, (0.0,)),
        sensitivity=replace(make_scorer("random")(ANATOMY, INPUTS), seconds=1e-3),
        mask=Mask.full(ANATOMY),
        macs=Macs(1, 1, 0, charged=True),
        timings=Timings(1.0, 0.0, 0.0, 1.0, 1.0),
        predicted_ms=3.5,
    )
    assert "Above the budget: 4.50 ms predicted, scoring included, and 4.00 ms allowed." in str(run)
    assert "Above" not in str(replace(run, predicted_ms=3.0))
    assert "Above" not in str(replace(run, keep=0.5))
