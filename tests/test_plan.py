"""Plan: within the budget, nothing that fits left out, best units first."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dsgp_lab import CostModel, LabError, Mask, Sensitivity, plan_mask

COST = CostModel(num_layers=3, num_heads=4, num_blocks=6, hidden_size=32, head_dim=8, block_size=8)
LENGTHS = torch.tensor([3, 25, 128])
BLOCKS_CHEAPER = CostModel(3, 4, 6, 32, 8, 4)
HEADS_CHEAPER = CostModel(3, 4, 6, 32, 8, 64)


def scores(
    seed: int, scorer_share: float = 0.0, signed: bool = True, oracle: bool | None = None
) -> Sensitivity:
    """Random scores of three inputs, by a scorer that costs this share of the dense MACs."""
    generator = torch.Generator().manual_seed(seed)
    heads, blocks = torch.randn(3, 3, 4, generator=generator), torch.randn(3, 3, 6, generator=generator)
    if not signed:
        heads, blocks = heads.abs(), blocks.abs()
    macs = (scorer_share * COST.dense(LENGTHS)).long()
    return Sensitivity(heads, blocks, "toy", macs, oracle=scorer_share == 0 if oracle is None else oracle)


def layer_macs(cost: CostModel, mask: Mask) -> torch.Tensor:
    """MACs [batch, layers]."""
    heads, blocks = mask.heads.sum(-1), mask.blocks.sum(-1)
    return heads * cost.head(LENGTHS)[:, None] + blocks * cost.block(LENGTHS)[:, None]


keeps = st.floats(0.001, 1.0)
costs = st.sampled_from([COST, BLOCKS_CHEAPER, HEADS_CHEAPER])
seeds = st.integers(0, 9999)


@given(seeds, keeps, costs, st.booleans())
def test_budget_is_kept_and_used_up(seed: int, keep: float, cost: CostModel, signed: bool) -> None:
    """Also with negative scores: a unit that fits is never left out."""
    mask = plan_mask(scores(seed, signed=signed), cost, LENGTHS, keep)
    budget = keep * cost.dense(LENGTHS).double()
    left = budget - cost.masked(mask, LENGTHS)
    assert (left >= -1e-6 * budget).all()
    for row in range(3):
        length = int(LENGTHS[row])
        if not mask.heads[row].all():
            assert left[row] < cost.head(length)
        if not mask.blocks[row].all():
            assert left[row] < cost.block(length)


@given(seeds, keeps, costs)
def test_budget_is_kept_and_used_up_in_every_layer(seed: int, keep: float, cost: CostModel) -> None:
    mask = plan_mask(scores(seed), cost, LENGTHS, keep, scope="layer")
    budget = keep * cost.layer(LENGTHS).double()[:, None]
    left = budget - layer_macs(cost, mask)
    assert (left >= -1e-6 * budget).all()
    smaller_head = cost.head(LENGTHS)[:, None].expand(3, 3)
    smaller_block = cost.block(LENGTHS)[:, None].expand(3, 3)
    assert (left < smaller_head)[~mask.heads.all(-1)].all()
    assert (left < smaller_block)[~mask.blocks.all(-1)].all()


@given(seeds, st.lists(keeps, min_size=2, max_size=6), costs, st.sampled_from(["global", "layer"]))
def test_more_budget_never_keeps_less(seed: int, shares: list[float], cost: CostModel, scope: Any) -> None:
    kept = [cost.masked(plan_mask(scores(seed), cost, LENGTHS, k, scope), LENGTHS) for k in sorted(shares)]
    assert all((less <= more).all() for less, more in pairwise(kept))


@given(seeds, costs, st.sampled_from(["global", "layer"]))
def test_the_whole_budget_keeps_everything(seed: int, cost: CostModel, scope: Any) -> None:
    assert (plan_mask(scores(seed), cost, LENGTHS, 1, scope).keep_share == 1).all()


@given(seeds, st.floats(0.2, 1.0), st.sampled_from(["global", "layer"]))
def test_best_units_of_a_kind_come_first(seed: int, keep: float, scope: Any) -> None:
    """Within a kind all cost the same, so no unit that runs has a lower score than one that does not."""
    given_scores = scores(seed)
    mask = plan_mask(given_scores, COST, LENGTHS, keep, scope)
    for values, kept in ((given_scores.heads, mask.heads), (given_scores.blocks, mask.blocks)):
        rows = (
            (values.flatten(1), kept.flatten(1))
            if scope == "global"
            else (
                values.flatten(0, 1),
                kept.flatten(0, 1),
            )
        )
        for row_values, row_kept in zip(*rows, strict=True):
            if row_kept.any() and not row_kept.all():
                assert row_values[row_kept].min() >= row_values[~row_kept].max()


def test_score_per_mac_decides_between_kinds() -> None:
    """A head with twice a block's score and less than twice its MACs goes first, and the other way round."""
    length = torch.tensor([25])
    head, block = COST.head(25), COST.block(25)
    zero = torch.zeros(1, 3, 4), torch.zeros(1, 3, 6)
    for factor in (0.9, 1.1):
        heads, blocks = zero[0].clone(), zero[1].clone()
        heads[0, 1, 2], blocks[0, 2, 3] = factor * head / block, 1.0
        only_one = Sensitivity(heads, blocks, "toy", torch.zeros(1))
        mask = plan_mask(only_one, COST, length, max(head, block) / COST.dense(25))
        assert bool(mask.heads[0, 1, 2]) == (factor > 1)
        assert bool(mask.blocks[0, 2, 3]) == (factor < 1)


def test_equal_scores_fall_to_the_earlier_unit_every_time() -> None:
    flat = Sensitivity(torch.ones(3, 3, 4), torch.ones(3, 3, 6), "toy", torch.zeros(3))
    a, b = (plan_mask(flat, COST, LENGTHS, 0.5) for _ in range(2))
    assert torch.equal(a.heads, b.heads)
    assert torch.equal(a.blocks, b.blocks)
    firsts = a.blocks.int().flatten(1)
    assert torch.equal(firsts, firsts.sort(descending=True, dim=1).values)


def test_inputs_are_planned_apart() -> None:
    batch = scores(1)
    together = plan_mask(batch, COST, LENGTHS, 0.5)
    for row in range(3):
        alone = plan_mask(batch[row], COST, LENGTHS[row : row + 1], 0.5)
        assert torch.equal(alone.heads, together[row].heads)
        assert torch.equal(alone.blocks, together[row].blocks)


@given(seeds, st.integers(0, 3), st.floats(0.76, 1.0), st.sampled_from(["global", "layer"]))
def test_the_floor_holds_in_every_layer(seed: int, floor: int, keep: float, scope: Any) -> None:
    batch = scores(seed)
    mask = plan_mask(batch, COST, LENGTHS, keep, scope, floor)
    assert (mask.heads.sum(-1) >= floor).all()
    assert (mask.blocks.sum(-1) >= floor).all()
    assert (COST.masked(mask, LENGTHS) <= keep * COST.dense(LENGTHS) * (1 + 1e-6)).all()
    for values, kept in ((batch.heads, mask.heads), (batch.blocks, mask.blocks)):
        best = values.argsort(-1, descending=True)[..., :floor]
        assert kept.gather(-1, best).all()  # and it is the best units that stay


def test_a_floor_may_be_all_there_is() -> None:
    """As many heads as blocks: the floor is the whole model, and its MACs are exactly the budget."""
    cost = CostModel(3, 4, 4, 32, 8, 8)
    flat = Sensitivity(torch.ones(2, 3, 4), torch.ones(2, 3, 4), "toy", torch.zeros(2))
    assert (plan_mask(flat, cost, LENGTHS[:2], 1.0, floor=4).keep_share == 1).all()
    with pytest.raises(LabError, match="from 0 to 4 units"):
        plan_mask(flat, cost, LENGTHS[:2], 1.0, floor=5)


def test_lengths_of_another_batch() -> None:
    with pytest.raises(LabError, match=r"Got 2 lengths for scores of 3 inputs"):
        plan_mask(scores(0), COST, LENGTHS[:2], 0.5)


def test_the_floor_keeps_what_the_scores_would_not() -> None:
    heads, blocks = torch.ones(1, 3, 4), torch.ones(1, 3, 6)
    heads[0, 2], blocks[0, 2] = -1.0, -1.0
    poor_layer = Sensitivity(heads, blocks, "toy", torch.zeros(1))
    assert not plan_mask(poor_layer, COST, LENGTHS[:1], 0.5).heads[0, 2].any()
    assert plan_mask(poor_layer, COST, LENGTHS[:1], 0.5, floor=1).heads[0, 2].sum() == 1


@given(seeds, st.floats(0.3, 1.0), st.floats(0.01, 0.25))
def test_a_product_path_pays_for_its_scorer(seed: int, keep: float, share: float) -> None:
    mask = plan_mask(scores(seed, share), COST, LENGTHS, keep)
    charged = scores(seed, share).macs
    assert (COST.masked(mask, LENGTHS) + charged <= keep * COST.dense(LENGTHS) * (1 + 1e-6)).all()
    oracle = plan_mask(scores(seed, share, oracle=True), COST, LENGTHS, keep)
    assert (COST.masked(oracle, LENGTHS) >= COST.masked(mask, LENGTHS)).all()


def test_the_charge_is_exactly_the_scorers_macs() -> None:
    """A charge of 0.2 at keep 0.7 plans what keep 0.5 plans without a charge."""
    charged = plan_mask(scores(3, 0.2), COST, LENGTHS, 0.7)
    free = plan_mask(scores(3), COST, LENGTHS, 0.5 + 1e-6)
    assert torch.equal(charged.heads, free.heads)
    assert torch.equal(charged.blocks, free.blocks)


def test_a_budget_too_small_for_any_unit_gives_the_empty_mask() -> None:
    assert (plan_mask(scores(0), COST, LENGTHS, 1e-9).keep_share == 0).all()


@pytest.mark.parametrize(
    ("keep", "shown"),
    [
        (0, "keep=0"),
        (0.0, r"keep=0\.0"),
        (1.5, r"keep=1\.5"),
        (-1, "keep=-1"),
        (math.nan, "keep=nan"),
        (math.inf, "keep=inf"),
        ("0.6", r"keep='0\.6' \(a text\)"),
        (True, "keep=True"),
        (None, "keep=None"),
        ([0.6], r"keep=\[0\.6\]"),
    ],
)
def test_what_is_no_budget(keep: Any, shown: str) -> None:
    with pytest.raises(LabError, match=f"^Got {shown}. Allowed: a number above 0 and at most 1.*keep=0.6"):
        plan_mask(scores(0), COST, LENGTHS, keep)


@pytest.mark.parametrize("keep", [1, np.float64(1.0), np.float32(1.0)])
def test_numbers_of_any_make_are_budgets(keep: Any) -> None:
    assert (plan_mask(scores(0), COST, LENGTHS, keep).keep_share == 1).all()


@pytest.mark.parametrize("scope", ["Global", "", None, 3])
def test_what_is_no_scope(scope: Any) -> None:
    with pytest.raises(LabError, match=r"Got scope=.*Allowed: 'global' or 'layer'"):
        plan_mask(scores(0), COST, LENGTHS, 0.5, scope)


@pytest.mark.parametrize("floor", [-1, 5, 1.0, "1", None, True])
def test_what_is_no_floor(floor: Any) -> None:
    with pytest.raises(LabError, match=r"Got floor=.*a whole number from 0 to 4 units of each kind"):
        plan_mask(scores(0), COST, LENGTHS, 0.5, floor=floor)


def test_a_budget_below_the_floor_says_what_would_do() -> None:
    floor_share = 3 * (COST.head(3) + COST.block(3)) / COST.dense(3)
    with pytest.raises(
        LabError, match=rf"keep=0\.05 for input 0.*floor of 1 needs {floor_share:.3f}"
    ) as caught:
        plan_mask(scores(0), COST, LENGTHS, 0.05, floor=1)
    assert f"keep of at least {floor_share:.3f}" in caught.value.allowed
    plan_mask(scores(0), COST, LENGTHS[:1].expand(3), floor_share + 1e-9, floor=1)


def test_a_budget_below_the_scorer_says_what_would_do() -> None:
    with pytest.raises(LabError, match=r"scorer 'toy' costs 0\.300.*Allowed: keep of at least 0\.300"):
        plan_mask(scores(0, 0.3), COST, LENGTHS, 0.2)
