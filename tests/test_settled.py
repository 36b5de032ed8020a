"""A settled router: the budget holds on the texts at hand, and layers that hardly vary are not asked."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_methods import texts, toy_router
from toys import toy_anatomy, toy_model, toy_tokenizer

from dsgp_lab import Lab, LabError, load_teaching
from dsgp_lab.cost import CostModel
from dsgp_lab.cost_table import CostTable, Machine
from dsgp_lab.evaluate.pruned import predict_pruned
from dsgp_lab.latency_budget import LatencyBudget
from dsgp_lab.mask import Mask
from dsgp_lab.packed import LayerSelection, PackedLayer
from dsgp_lab.pruner import DynamicPruner
from dsgp_lab.router import Router, RouterShape
from dsgp_lab.router_planner import Planner
from dsgp_lab.runs import Kept
from dsgp_lab.sensitivity import lengths
from dsgp_lab.settled import Settled, run_shares, settle
from dsgp_lab.subnetwork import SubNetwork
from dsgp_lab.together import run_together
from dsgp_lab.training.router_data import labelled_batches

TOY = SubNetwork(toy_anatomy(toy_model("bert", 3)))
ROUTER = toy_router(TOY)
BATCHES = [inputs for inputs, _ in labelled_batches(toy_tokenizer(), texts(40))]


@given(keep=st.floats(0.4, 0.9), tolerance=st.sampled_from([0.0, 0.05, 1.0]))
@settings(max_examples=15, deadline=None)
def test_what_was_found_holds_on_the_texts(keep: float, tolerance: float) -> None:
    settled = Settled.fit(TOY, ROUTER, BATCHES, keep, tolerance)
    run = predict_pruned(TOY, toy_tokenizer(), texts(40), settled, keep)
    assert float(run.shares.mean()) == pytest.approx(settled.share, abs=1e-5)
    assert settled.texts == 40
    for number, layer in enumerate(settled.layers):
        heads, blocks = run.masks.heads[:, number], run.masks.blocks[:, number]
        if layer is not None:
            assert heads.tolist() == [list(layer[0])] * 40
            assert blocks.tolist() == [list(layer[1])] * 40
    every = predict_pruned(
        TOY, toy_tokenizer(), texts(40), Settled.fit(TOY, ROUTER, BATCHES, keep, 0.0), keep
    )
    assert float(every.shares.mean()) <= keep + 1e-6
    kept = torch.cat([every.masks.heads, every.masks.blocks], -1)
    vary = (kept != kept[:1]).any(0).any(-1)  # layers in which two inputs differ
    asked = [layer is None for layer in settled.layers]
    if tolerance == 0.0:
        assert asked == vary.tolist()
    assert settled.asked == sum(asked) == (0 if tolerance == 1.0 else settled.asked)
    usual = kept.double().mean(0) > 0.5
    changed = (kept != usual).double().mean(dim=(0, 2))
    settled_there = torch.tensor([not each for each in asked])
    assert settled.differ == pytest.approx(float((changed * settled_there).mean()))


def test_the_budget_is_met_where_the_router_alone_misses_it() -> None:
    drifting = toy_router(TOY)
    drifting.asked.add_(0.15)  # as on texts that it was not calibrated on
    settled = Settled.fit(TOY, drifting, BATCHES, 0.6, tolerance=0.0)
    plain = predict_pruned(TOY, toy_tokenizer(), texts(40), drifting, 0.6).shares.mean()
    assert abs(settled.share - 0.6) < 0.03 < abs(float(plain) - 0.6)


def test_without_tolerance_it_is_the_router_at_another_budget() -> None:
    settled = Settled.fit(TOY, ROUTER, BATCHES, 0.5, tolerance=0.0)
    varying = Planner(ROUTER, 0.5, settled.budget)
    for inputs in BATCHES:
        single = {name: values[:1] for name, values in inputs.items()}
        torch.testing.assert_close(TOY.run(single, settled.planner()), TOY.run(single, varying))


def test_with_a_price_on_heads_fewer_heads_and_more_blocks_run() -> None:
    before = ROUTER.bias.clone()
    kept = []
    for price in (0.0, 3.0):
        settled = Settled.fit(TOY, ROUTER, BATCHES, 0.5, head_price=price)
        masks = predict_pruned(TOY, toy_tokenizer(), texts(40), settled, 0.5).masks
        kept.append((float(masks.heads.float().mean()), float(masks.blocks.float().mean())))
        assert settled.share == pytest.approx(0.5, abs=0.05)
    assert kept[1][0] < kept[0][0]
    assert kept[1][1] > kept[0][1]
    assert torch.equal(ROUTER.bias, before)
    assert "price on heads" in str(settled)


def test_single_inputs_run_as_in_a_batch() -> None:
    tolerances = [step / 50 for step in range(25)]
    every = [Settled.fit(TOY, ROUTER, BATCHES, 0.5, tolerance) for tolerance in tolerances]
    settled = next(each for each in every if each.asked < TOY.anatomy.num_layers)
    assert 0 < settled.asked < TOY.anatomy.num_layers
    batch, single = settled.batch_planner(), settled.planner()
    logits = run_together(TOY, BATCHES[0], batch)
    cost = CostModel.of(TOY.anatomy)
    shares = run_shares(cost, ROUTER, batch, lengths(BATCHES[0]), batch.mask)
    for row in range(len(logits)):
        alone = {name: values[row : row + 1] for name, values in BATCHES[0].items()}
        torch.testing.assert_close(TOY.run(alone, single)[0], logits[row], atol=1e-5, rtol=0)
        assert torch.equal(single.mask.heads, batch.mask[row].heads)
        assert torch.equal(single.logits > 0, batch.logits[row] > 0)
        length = int(lengths(alone))
        own = settled.macs(cost, length)
        assert 0 < own < ROUTER.macs(cost, length)
        dense, real = int(cost.dense(torch.tensor([length]))), torch.tensor([length])
        assert float(shares[row]) == pytest.approx((int(cost.masked(single.mask, real)) + own) / dense)


def test_settled_layers_are_selected_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the network's layers, a planner has them cut beforehand, and the runs give the same."""
    every = [Settled.fit(TOY, ROUTER, BATCHES, 0.5, step / 50) for step in range(25)]
    settled = next(each for each in every if each.asked < TOY.anatomy.num_layers)
    plain, ready = settled.planner(), settled.planner(TOY.packed)
    selected: list[int] = []
    select = PackedLayer.select

    def watched(layer: PackedLayer, heads: Kept, blocks: Kept) -> LayerSelection:
        selected.append(next(i for i, each in enumerate(TOY.packed) if each is layer))
        return select(layer, heads, blocks)

    monkeypatch.setattr(PackedLayer, "select", watched)
    for row in range(3):
        alone = {name: values[row : row + 1] for name, values in BATCHES[0].items()}
        expected = TOY.run(alone, plain)
        selected.clear()
        torch.testing.assert_close(TOY.run(alone, ready), expected, atol=1e-5, rtol=0)
        assert selected == [i for i, layer in enumerate(settled.layers) if layer is None]
        assert torch.equal(ready.mask.heads, plain.mask.heads)
        assert ready.seconds > 0


def test_layers_are_settled_by_how_often_they_differ() -> None:
    heads = torch.zeros(4, 2, 1, dtype=torch.bool)
    heads[0, 0] = True  # one input of four, one unit of two: an eighth of the layer's decisions
    mask = Mask(heads, torch.ones(4, 2, 1, dtype=torch.bool))
    assert settle(mask, 0.13) == ((((False,), (True,)), ((False,), (True,))), pytest.approx(1 / 16))
    assert settle(mask, 0.12) == ((None, ((False,), (True,))), 0.0)


@pytest.mark.parametrize("kind", ["oneshot", "constant"])
def test_a_router_that_decides_once_is_refused(kind: str) -> None:
    with pytest.raises(LabError, match=f"a {kind} router.*run them as they are"):
        Settled.fit(TOY, Router(RouterShape.of(TOY.anatomy, kind)), BATCHES, 0.5)  # type: ignore[arg-type]


def test_bad_input() -> None:
    with pytest.raises(LabError, match="no texts"):
        Settled.fit(TOY, ROUTER, [], 0.5)
    with pytest.raises(LabError, match=r"keep=1\.5"):
        Settled.fit(TOY, ROUTER, BATCHES, 1.5)
    for tolerance, price in ((1.5, 0.0), (0.02, -1.0), (0.02, float("nan"))):
        with pytest.raises(LabError, match="a price from 0"):
            Settled.fit(TOY, ROUTER, BATCHES, 0.5, tolerance, price)


def test_the_lab_settles_its_router() -> None:
    lab = Lab("sst2", regime="adaptive")
    settled = lab.settled(0.35, load_teaching("sst2").sample(48))
    assert settled.share == pytest.approx(0.35, abs=0.03)
    assert settled.asked < 6
    assert "cannot bring" not in str(settled)
    assert "asked in" in str(settled)
    run = lab.prune("a warm, funny film", 0.35, settled)
    assert run.prediction.label == "positive"
    assert run.macs.scorer == settled.macs(lab.cost, len(run.tokens))
    assert run.macs.share == pytest.approx(0.35, abs=0.1)
    two = DynamicPruner(lab.subnetwork, settled, 0.35)(lab.encode(["a warm, funny film", "dull"]))
    assert torch.equal(two.mask[0].blocks, run.mask.blocks)
    assert lab.prune("a warm, funny film", scorer=settled).keep == 0.35
    in_time = LatencyBudget(0.6, "of dense", CostTable(Machine.of(lab.subnetwork), (), (72, 72), 1.0))
    for budget in (0.6, in_time):
        with pytest.raises(LabError, match=r"with a router settled for 0\.35\. Allowed: keep=0\.35"):
            DynamicPruner(lab.subnetwork, settled, budget)
    with pytest.raises(LabError, match="a router without a budget"):
        lab.sensitivity("a warm, funny film", settled)
    far = lab.settled(0.03, load_teaching("sst2").sample(16))
    assert far.share > 0.05
    assert "cannot bring these texts to that budget" in str(far)
