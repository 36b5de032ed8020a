"""Masks and costs by group: shares of inputs, a permutation test, intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from dsgp_lab import LabError, Mask
from dsgp_lab.evaluate.groups import group_means, keep_rates, rank_correlations

GROUPS = ["plain", "negation", "plain", "negation"] * 10


def masks(seed: int = 0, apart: bool = True) -> Mask:
    """40 masks of 2 layers with 3 heads and 4 blocks; with `apart`, head 1/2 runs for negations alone."""
    generator = torch.Generator().manual_seed(seed)
    heads = torch.rand(40, 2, 3, generator=generator) < 0.5
    blocks = torch.rand(40, 2, 4, generator=generator) < 0.5
    heads[:, 0, 0], blocks[:, 1, 3] = True, False
    if apart:
        heads[:, 1, 2] = torch.tensor([group == "negation" for group in GROUPS])
    return Mask(heads, blocks)


def test_rates_are_shares_of_the_groups_inputs() -> None:
    found = keep_rates(masks(), GROUPS)
    assert (found.names, found.counts) == (("plain", "negation"), (20, 20))
    assert (found.heads.shape, found.blocks.shape) == ((2, 2, 3), (2, 2, 4))
    assert found.heads[:, 1, 2].tolist() == [0, 1]
    negations = masks()[[i for i, group in enumerate(GROUPS) if group == "negation"]]
    np.testing.assert_allclose(found.blocks[1], negations.blocks.float().mean(0))
    assert (found.always, found.never, found.varying) == (1, 1, 12)


def test_the_unit_that_differs_comes_first() -> None:
    found = keep_rates(masks(), GROUPS)
    places, names = found.most_different(3)
    assert names[0] == "head 1/2"
    np.testing.assert_allclose(found.flat[:, places[0]], [0, 1])
    assert len(names) == 3
    blocks = Mask(masks(apart=False).heads[:, :, :1] | True, masks().blocks)
    blocks.blocks[:, 1, 1] = torch.tensor([group == "plain" for group in GROUPS])
    assert keep_rates(blocks, GROUPS).most_different(1) == ([2 + 4 + 1], ["block 1/1"])


def test_units_that_never_differ_are_not_listed() -> None:
    same = Mask(torch.ones(4, 2, 3, dtype=torch.bool), torch.zeros(4, 2, 4, dtype=torch.bool))
    found = keep_rates(same, ["a", "b", "a", "b"])
    assert found.most_different() == ([], [])
    assert (found.spread, found.chance, found.p_value) == (0, 0, 1)
    assert (found.always, found.never, found.varying) == (6, 8, 0)


def test_the_permutation_test_tells_structure_from_chance() -> None:
    apart, alike = keep_rates(masks(), GROUPS), keep_rates(masks(apart=False), GROUPS)
    assert apart.p_value < 0.01
    assert apart.spread > 2 * apart.chance
    assert alike.p_value > 0.05
    assert keep_rates(masks(), GROUPS).chance == apart.chance  # the same draws again
    many = [keep_rates(masks(seed, apart=False), GROUPS, shuffles=50).p_value for seed in range(40)]
    assert 0.3 < np.mean(many) < 0.7  # under chance, p-values are even


def test_means_by_group() -> None:
    values = torch.tensor([1.0, 3.0, 2.0, 5.0] * 10)
    found = group_means(values, GROUPS, "tokens")
    assert found.mean.tolist() == [1.5, 4.0]
    assert (found.low < found.mean).all()
    assert (found.mean < found.high).all()
    assert [row[0] for row in found.report().rows] == ["negation", "plain"]  # the highest first
    assert "tokens, by group" in str(found)


def test_rank_correlations_are_spearmans_with_an_interval() -> None:
    rng = np.random.default_rng(0)
    x, noise = rng.random(200), rng.random(200)
    found = rank_correlations(x, {"itself": x**3, "noise": noise, "less": -x + 0.3 * noise, "flat": x * 0})
    assert found["itself"].value == pytest.approx(1)
    for name, other in (("noise", noise), ("less", -x + 0.3 * noise)):
        rho = spearmanr(x, other).statistic
        assert found[name].value == pytest.approx(rho)
        assert found[name].low < rho < found[name].high
    assert found["noise"].low < 0 < found["noise"].high
    assert math.isnan(found["flat"].value)
    assert "never varies" in str(found["flat"])


def test_reports_print() -> None:
    found = keep_rates(masks(), GROUPS)
    assert "12 of 14" in str(found)
    assert "<table>" in found._repr_html_()
    assert "<table>" in group_means([1, 2], ["a", "b"])._repr_html_()


def test_mistakes() -> None:
    with pytest.raises(LabError, match="39 group names for 40 inputs"):
        keep_rates(masks(), GROUPS[1:])
    with pytest.raises(LabError, match=r"1 of them different.*at least 2"):
        keep_rates(masks(), ["plain"] * 40)
    with pytest.raises(LabError, match="2 group names for 3 inputs"):
        group_means([1, 2, 3], ["a", "b"])
    with pytest.raises(LabError, match="5 values and 4 of x"):
        rank_correlations([1, 2, 3, 4, 5], {"x": [1, 2, 3, 4]})
