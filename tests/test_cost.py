"""Cost: MACs by hand, sums that add up. That they are the MACs computed is test_families.py's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import random_mask, toy_anatomy, toy_model

from dsgp_lab import CostModel, Mask
from dsgp_lab.cost import Macs

ANATOMY = toy_anatomy(toy_model("bert"))
COST = CostModel.of(ANATOMY)


def test_by_hand() -> None:
    """5 tokens, width 32, heads of 8, blocks of 8: products written out one by one."""
    query = key = value = output = 5 * 32 * 8
    scores = mixing = 5 * 5 * 8
    assert COST.head(5) == query + key + value + output + scores + mixing
    assert COST.block(5) == 5 * 32 * 8 + 5 * 8 * 32
    assert COST.layer(5) == 4 * COST.head(5) + 6 * COST.block(5)
    assert COST.dense(5) == 3 * COST.layer(5)


@given(st.integers(0, 999), st.integers(1, 4))
def test_a_mask_and_its_complement_make_the_whole(seed: int, batch: int) -> None:
    mask, lengths = random_mask(ANATOMY, batch, 0.5, seed), torch.arange(3, 3 + batch)
    assert torch.equal(COST.masked(mask, lengths) + COST.masked(~mask, lengths), COST.dense(lengths))


def test_every_input_at_its_own_length() -> None:
    mask, lengths = random_mask(ANATOMY, 2), torch.tensor([4, 40])
    for row in range(2):
        heads, blocks = int(mask[row].heads.sum()), int(mask[row].blocks.sum())
        length = int(lengths[row])
        expected = heads * COST.head(length) + blocks * COST.block(length)
        assert int(COST.masked(mask, lengths)[row]) == expected
    full = Mask.full(ANATOMY, 2)
    assert COST.masked(full, lengths).tolist() == [COST.dense(4), COST.dense(40)]


def test_long_inputs_do_not_overflow() -> None:
    assert int(CostModel(48, 64, 64, 8192, 128, 512).dense(torch.tensor([100_000]))[0]) > 2**53


def test_share_counts_the_scorer_only_where_it_is_charged() -> None:
    assert Macs(kept=150, dense=300, scorer=30, charged=True).share == pytest.approx(0.6)
    assert Macs(kept=150, dense=300, scorer=30, charged=False).share == pytest.approx(0.5)


def test_macs_as_text_and_html() -> None:
    oracle = Macs(150_000_000, 300_000_000, 600_000_000, charged=False)
    assert "scorer, an oracle: not charged  600.0 M     2.000" in str(oracle)
    assert "units that ran" in str(oracle)
    assert "oracle" not in str(Macs(150, 300, 3, charged=True))
    assert oracle._repr_html_().count("<tr>") == 4
    assert "150.0 M</td>" in oracle._repr_html_()
