"""Int8 runs: near float32 under every mask, for single inputs, batches and routers; nothing else is read."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import odd_masks, one, random_mask, toy_anatomy, toy_inputs, toy_model

from dsgp_lab import Mask, Router, SubNetwork
from dsgp_lab.int8 import Int8Network, quantised
from dsgp_lab.router import RouterShape
from dsgp_lab.router_planner import Planner

ANATOMY = toy_anatomy(toy_model("bert"))
INPUTS = toy_inputs(ANATOMY.model, [9, 3, 12, 5])
SUB, INT8 = SubNetwork(ANATOMY), Int8Network(ANATOMY)


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=9))
def test_a_value_is_off_by_half_a_step_at_most(numbers: list[float]) -> None:
    values = torch.tensor([numbers])
    whole, scale = quantised(values, dim=1)
    assert whole.dtype == torch.int8
    assert (whole * scale - values).abs().max() <= 0.501 * scale + 1e-9


def test_int8_is_near_float32_under_every_mask() -> None:
    spread = float(SUB.dense(INPUTS).std())
    for mask in odd_masks(ANATOMY).values():
        for each in (one(INPUTS, 2), INPUTS):
            difference = (INT8(each, mask).logits - SUB(each, mask).logits).abs().max()
            assert difference < 0.1 * spread
    assert 0 < (INT8.dense(INPUTS) - SUB.dense(INPUTS)).abs().max() < 0.1 * spread


def test_each_input_under_its_own_mask() -> None:
    mask = random_mask(ANATOMY, 4, seed=3)
    together = INT8(INPUTS, mask)
    assert together.groups == 4
    for row in range(4):
        alone = INT8(one(INPUTS, row), mask[row]).logits[0]
        torch.testing.assert_close(together.logits[row], alone, atol=1e-5, rtol=0)


def test_a_router_decides_on_the_way() -> None:
    torch.manual_seed(0)
    router = Router(RouterShape.of(ANATOMY)).eval()
    with torch.no_grad():
        router.w2.normal_()
        router.bias.fill_(-4.0)
    planner, alone = Planner(router, 0.5), one(INPUTS, 0)
    logits = INT8.run(alone, planner)
    assert 0 < float(planner.mask.keep_share[0]) < 1
    torch.testing.assert_close(logits, INT8(alone, planner.mask).logits, atol=1e-5, rtol=0)


def test_weights_take_a_quarter() -> None:
    ffn = INT8.packed[0].ffn
    assert ffn.weight.dtype == ffn.out_weight.dtype == torch.int8  # type: ignore[attr-defined]
    none = ~Mask.full(ANATOMY)
    torch.testing.assert_close(INT8(INPUTS, none).logits, SUB(INPUTS, none).logits, atol=1e-6, rtol=0)


def test_an_unknown_execution_is_refused() -> None:
    with pytest.raises(ValueError, match="execution='fast'"):
        INT8(INPUTS, Mask.full(ANATOMY, 4), "fast")  # type: ignore[arg-type]
