"""Regret: the greedy mask meets its budget and beats chance; excess over a reference, paired."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import toy_anatomy, toy_inputs, toy_model

from dsgp_lab import CostModel, LabError, SubNetwork, gated, plan_mask
from dsgp_lab.evaluate.distance import output_distance
from dsgp_lab.evaluate.regret import greedy_mask, regret
from dsgp_lab.sensitivity import Random, lengths


@pytest.fixture(scope="module")
def anatomy():
    return toy_anatomy(toy_model("bert"))


@pytest.mark.parametrize("keep", [0.25, 0.6, 1.0])
def test_the_greedy_mask_meets_the_budget(anatomy, keep):
    inputs, cost = toy_inputs(anatomy.model, [9]), CostModel.of(anatomy)
    mask = greedy_mask(anatomy, inputs, keep)
    mask.check_fits(anatomy, 1)
    share = float(cost.masked(mask, lengths(inputs)) / cost.dense(9))
    assert keep - 0.05 < share <= keep + 1e-6


def test_the_greedy_mask_beats_nearly_every_random_one(anatomy):
    sub, cost = SubNetwork(anatomy), CostModel.of(anatomy)
    for seed in range(3):
        inputs = toy_inputs(anatomy.model, [9], seed=seed)
        dense = sub.dense(inputs)
        best = output_distance(sub(inputs, greedy_mask(anatomy, inputs, 0.6)).logits, dense)
        random = Random(seed)
        others = [plan_mask(random(anatomy, inputs), cost, lengths(inputs), 0.6) for _ in range(30)]
        distances = [float(output_distance(sub(inputs, mask).logits, dense)) for mask in others]
        assert float(best) <= np.quantile(distances, 0.1)


def test_one_unit_goes_first_that_is_missed_least(anatomy):
    """With a budget that any unit's absence meets, it is the one of least loss for its MACs."""
    inputs, cost = toy_inputs(anatomy.model, [9]), CostModel.of(anatomy)
    cheapest = min(cost.head(9), cost.block(9))
    mask = greedy_mask(anatomy, inputs, 1 - 0.5 * cheapest / cost.dense(9), rounds=1)
    gone = torch.cat([~mask.heads.flatten(), ~mask.blocks.flatten()])
    assert int(gone.sum()) == 1
    losses = []
    with torch.inference_mode():
        dense = anatomy.model(**inputs).logits
        for unit in range(anatomy.num_units):
            flat = torch.ones(1, anatomy.num_units, dtype=torch.bool)
            flat[0, unit] = False
            split = anatomy.num_layers * anatomy.num_heads
            parts = flat[:, :split].unflatten(1, (3, -1)), flat[:, split:].unflatten(1, (3, -1))
            with gated(anatomy, type(mask)(*parts)):
                loss = float(output_distance(anatomy.model(**inputs).logits, dense))
            losses.append(loss / (cost.head(9) if unit < split else cost.block(9)))
    assert int(gone.float().argmax()) == int(np.argmin(losses))


def test_regret_is_the_paired_excess():
    found = regret({"greedy": np.array([0.1, 0.3]), "router": np.array([0.2, 0.3])}, "greedy")
    assert found.excess["router"].tolist() == pytest.approx([0.1, 0.0])
    assert [row[0] for row in found.report().rows] == ["greedy", "router"]
    assert "0.0500" in str(found)
    assert "<table>" in found._repr_html_()


def test_mistakes(anatomy):
    with pytest.raises(LabError, match="2 inputs"):
        greedy_mask(anatomy, toy_inputs(anatomy.model, [4, 5]), 0.5)
    with pytest.raises(LabError, match="keep=0"):
        greedy_mask(anatomy, toy_inputs(anatomy.model, [4]), 0)
    with pytest.raises(LabError, match="reference 'oracle' for router"):
        regret({"router": np.zeros(2)}, "oracle")
    with pytest.raises(LabError, match=r"a \[2\], b \[3\]"):
        regret({"a": np.zeros(2), "b": np.zeros(3)}, "a")
