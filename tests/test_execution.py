"""How a batch runs is chosen by the cost table; what comes out never depends on it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import random_mask, toy_anatomy, toy_inputs, toy_model

from dsgp_lab import Mask, SubNetwork, execution, together
from dsgp_lab.calibration import calibrate
from dsgp_lab.cost_table import CostPoint, CostTable, Machine
from dsgp_lab.execution import choose, measure_mixed, predict_executions
from dsgp_lab.sensitivity import lengths

ANATOMY = toy_anatomy(toy_model("bert"))
SUB = SubNetwork(ANATOMY)
INPUTS = toy_inputs(ANATOMY.model, [9, 3, 12, 5])
LENGTHS = lengths(INPUTS)
UNITS = (ANATOMY.num_layers * ANATOMY.num_heads, ANATOMY.num_layers * ANATOMY.num_blocks)


def table(alone: float, batch: float, mixed: float, unit: float = 0.1, run: float = 0.01) -> CostTable:
    """A table with these fixed costs of one input and of four."""
    one = CostPoint(1, 10, fixed=alone, head=unit, block=unit, run=run)
    four = replace(one, batch=4, fixed=batch, head=2 * unit, block=2 * unit, mixed=mixed)
    return CostTable(Machine.of(SUB), (one, four), UNITS, seconds=1.0)


def chosen(costs: CostTable, mask: Mask) -> str:
    return choose(costs, mask, mask.groups(), LENGTHS)


def two_masks() -> Mask:
    """Four inputs under two masks that share no unit."""
    mask = random_mask(ANATOMY, seed=3)
    return Mask.stack([mask, ~mask, mask, ~mask])


def test_the_cheapest_execution_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "GATHER_SAVES", 1)
    different = random_mask(ANATOMY, 4, keep=0.6, seed=1)
    assert chosen(table(alone=1.0, batch=1.5, mixed=50.0), two_masks()) == "groups"
    assert chosen(table(alone=0.01, batch=50.0, mixed=50.0), different) in ("each", "groups")
    assert chosen(table(alone=50.0, batch=60.0, mixed=0.0), different) == "together"
    assert chosen(table(alone=50.0, batch=60.0, mixed=0.0, run=5.0), different) == "union"
    assert choose(None, different, different.groups(), LENGTHS) == "together"


def test_what_each_execution_is_predicted_to_take() -> None:
    """Worked by hand: two inputs of 10 tokens, no block gathered; masks of one head, of the other heads."""
    heads = torch.zeros(2, ANATOMY.num_layers, ANATOMY.num_heads, dtype=torch.bool)
    heads[0, 0, 0] = heads[1, 0, 1] = heads[1, 1, 0] = True
    mask = Mask(heads, torch.zeros(2, ANATOMY.num_layers, ANATOMY.num_blocks, dtype=torch.bool))
    point = CostPoint(1, 10, fixed=1.0, head=0.1, block=0.2, run=0.05)
    costs = CostTable(
        Machine.of(SUB), (point, replace(point, batch=2, fixed=1.5, head=0.2, mixed=0.3)), UNITS, 1.0
    )
    found = predict_executions(costs, mask, mask.groups(), torch.tensor([10, 10]))
    each = (1.0 + 0.1) + (1.0 + 0.2)
    union = 1.5 + 3 * 0.2 + 0.3
    assert found == pytest.approx({"together": union, "union": union, "groups": each, "each": each})


def test_gathering_counts_the_rows_of_the_inputs_that_keep_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "GATHER_SAVES", 1)
    blocks = torch.zeros(4, ANATOMY.num_layers, ANATOMY.num_blocks, dtype=torch.bool)
    blocks[1, 0, 0] = True  # an input of 3 of 29 tokens
    mask = Mask(torch.zeros(4, ANATOMY.num_layers, ANATOMY.num_heads, dtype=torch.bool), blocks)
    found = predict_executions(table(1.0, 2.0, 0.5), mask, mask.groups(), LENGTHS)
    share = (1 + execution.GATHER_COSTS) * 3 / 29
    assert found["union"] - found["together"] == pytest.approx((1 - share) * 0.2 - 0.01)


@given(
    st.integers(0, 999),
    st.floats(0.05, 0.95),
    *[st.floats(0, 10) for _ in range(4)],
)
def test_no_table_changes_the_logits(
    seed: int, keep: float, alone: float, batch: float, mixed: float, run: float
) -> None:
    mask = random_mask(ANATOMY, 4, keep, seed)
    sub = SubNetwork(ANATOMY)
    sub._tables[torch.get_num_threads()] = table(alone, batch, mixed, run=run)
    found = sub(INPUTS, mask)
    assert found.execution == chosen(table(alone, batch, mixed, run=run), mask)
    torch.testing.assert_close(found.logits, SUB(INPUTS, mask, "each").logits, atol=1e-5, rtol=0)


def test_the_users_table_is_used(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("dsgp_lab.cost_table.table_path", lambda machine: tmp_path / "table.json")
    assert SubNetwork(ANATOMY)(INPUTS, two_masks()).execution == "together"
    table(alone=1.0, batch=1.5, mixed=50.0).save(tmp_path / "table.json")
    assert SubNetwork(ANATOMY)(INPUTS, two_masks()).execution == "groups"
    (tmp_path / "table.json").write_text("{", "utf-8")
    assert SubNetwork(ANATOMY)(INPUTS, two_masks()).execution == "together"


def test_calibration_measures_what_different_masks_take() -> None:
    found = calibrate(SUB, batches=(1, 3), tokens=(4,), seconds=0.1)
    assert found.points[0].mixed == 0
    assert found.points[1].mixed >= 0
    assert measure_mixed(SUB, INPUTS, union_ms=0.0) > 0
    assert measure_mixed(SUB, INPUTS, union_ms=1e9) == 0
