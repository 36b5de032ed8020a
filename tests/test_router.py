"""Routers: decisions on the way equal the gated run, budgets are met, files survive, training resumes."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
import torch
from torch import nn
from toys import one, toy_anatomy, toy_inputs, toy_model

from dsgp_lab import CostModel, DynamicPruner, LabError, Mask, SubNetwork
from dsgp_lab.batching import Encoded
from dsgp_lab.evaluate.pruned import mismatched
from dsgp_lab.router import GRID, Router, RouterShape
from dsgp_lab.router_planner import Planner
from dsgp_lab.tasks import get_task
from dsgp_lab.training.distillation import distillation
from dsgp_lab.training.routed import routed, straight_through
from dsgp_lab.training.router_config import RouterConfig
from dsgp_lab.training.router_groups import learn_rankings
from dsgp_lab.training.router_loop import (
    LOG,
    RouterTraining,
    Source,
    calibrate,
    layer_features,
)
from dsgp_lab.training.router_start import static_ranks

FAMILIES = ("bert", "roberta", "electra", "distilbert")
KINDS = ("layerwise", "oneshot", "constant")
LENGTHS = (3, 9, 14, 6)


def lively_router(anatomy, kind="layerwise", seed=0):
    """A router whose decisions depend on the input, on about half of the units."""
    torch.manual_seed(seed)
    router = Router(RouterShape.of(anatomy, kind, width=8))
    with torch.no_grad():
        router.w2.normal_(std=2.0)
        router.bias.normal_(-4.0, 2.0)
        router.centre.normal_()
        router.spread.uniform_(0.5, 2.0)
    return router.eval()


@pytest.fixture(scope="module", params=FAMILIES)
def anatomy(request):
    return toy_anatomy(toy_model(request.param))


@pytest.mark.parametrize("kind", KINDS)
def test_decisions_on_the_way_equal_the_gated_run(anatomy, kind):
    router = lively_router(anatomy, kind)
    inputs = toy_inputs(anatomy.model, LENGTHS, extra=2)
    planner, sub = Planner(router, 0.5), SubNetwork(anatomy)
    keep = torch.full((len(LENGTHS),), router.calibrated(0.5))
    with torch.no_grad(), routed(anatomy, router, inputs, keep) as run:
        gated_logits = anatomy.model(**inputs).logits
    for row in range(len(LENGTHS)):
        alone = one(inputs, row)
        torch.testing.assert_close(sub.run(alone, planner)[0], gated_logits[row], atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(planner.mask.heads[0].float(), torch.stack(run.heads, 1)[row])
        again = sub.run(alone, sub.select(planner.mask))[0]
        torch.testing.assert_close(again, gated_logits[row], atol=2e-5, rtol=1e-5)


def test_what_the_kinds_see(anatomy):
    inputs = toy_inputs(anatomy.model, LENGTHS)
    masks = {kind: DynamicPruner(anatomy, lively_router(anatomy, kind), 0.5)(inputs).mask for kind in KINDS}
    assert len(masks["constant"].groups()) == 1
    assert len(masks["layerwise"].groups()) > 1
    assert len(masks["oneshot"].groups()) > 1
    # before the first layer both have seen the same
    assert torch.equal(masks["layerwise"].heads[:, 0], masks["oneshot"].heads[:, 0])


def test_pruned_batch_of_a_router(anatomy):
    router = lively_router(anatomy)
    inputs = toy_inputs(anatomy.model, LENGTHS)
    batch = DynamicPruner(anatomy, router, 0.5)(inputs)
    assert batch.sensitivity.scorer == "router"
    assert not batch.sensitivity.oracle
    assert torch.equal(batch.sensitivity.heads > 0.5, batch.mask.heads)
    cost = CostModel.of(anatomy)
    for macs, length in zip(batch.macs, LENGTHS, strict=True):
        assert macs.charged
        assert macs.scorer == router.macs(cost, length) > 0
    assert batch.timings.score > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [[0], [0, 1, 2, 3]])
def test_a_router_decides_in_float32_for_a_model_in_bfloat16(kind, rows):
    anatomy = toy_anatomy(toy_model("bert").to(torch.bfloat16))
    inputs = {name: values[rows] for name, values in toy_inputs(anatomy.model, [9] * 4).items()}
    batch = DynamicPruner(anatomy, lively_router(anatomy, kind), 0.5)(inputs)
    assert batch.logits.dtype == torch.bfloat16
    assert batch.sensitivity.heads.dtype == torch.float32
    again = SubNetwork(anatomy)(inputs, batch.mask).logits
    torch.testing.assert_close(batch.logits, again, atol=0.2, rtol=0.1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [[0], [0, 1, 2, 3]])
def test_a_router_that_is_on_the_cpu_decides_for_a_model_on_a_gpu(kind, rows):
    anatomy = toy_anatomy(toy_model("bert"))
    router, inputs = lively_router(anatomy, kind), toy_inputs(anatomy.model, LENGTHS)
    inputs = {name: values[rows] for name, values in inputs.items()}
    expected = DynamicPruner(anatomy, router, 0.5)(inputs)
    there = toy_anatomy(toy_model("bert").cuda())
    found = DynamicPruner(there, router, 0.5)({name: values.cuda() for name, values in inputs.items()})
    torch.testing.assert_close(found.logits.cpu(), expected.logits, atol=1e-4, rtol=1e-4)
    assert router.b1.device.type == "cpu"


def test_building_a_planner_is_not_timed(monkeypatch):
    anatomy = toy_anatomy(toy_model("bert"))
    built = Planner.__init__

    def slow(self, router, keep):
        built(self, router, keep)
        time.sleep(0.3)

    monkeypatch.setattr(Planner, "__init__", slow)
    batch = DynamicPruner(anatomy, lively_router(anatomy), 0.5)(toy_inputs(anatomy.model, [9]))
    assert batch.timings.total < 300


def test_a_router_costs_little():
    cost = CostModel(6, 12, 12, hidden_size=384, head_dim=32, block_size=128)
    router = Router(RouterShape("layerwise", 6, 12, 12, 384))
    assert 0.001 < router.macs(cost, 25) / cost.dense(25) < 0.002
    constant = Router(RouterShape("constant", 6, 12, 12, 384))
    assert constant.macs(cost, 25) == 0


def test_a_router_of_another_shape_is_refused(anatomy):
    other = Router(RouterShape("layerwise", 2, 4, 6, anatomy.hidden_size))
    with pytest.raises(LabError, match="2 layers of 4 heads"):
        DynamicPruner(anatomy, other)
    with pytest.raises(LabError, match="layerwise, oneshot, constant"):
        Router(RouterShape("clever", 2, 4, 6, 32))


def test_a_plan_on_the_way_is_for_one_input(anatomy):
    inputs = toy_inputs(anatomy.model, LENGTHS)
    with pytest.raises(LabError, match="a single input"):
        SubNetwork(anatomy).run(inputs, Planner(lively_router(anatomy), 0.5))


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded(tmp_path, kind):
    anatomy = toy_anatomy(toy_model("bert"))
    router, path = lively_router(anatomy, kind), tmp_path / "router.safetensors"
    router.save(path)
    loaded = Router.load(path)
    assert loaded.shape == router.shape
    features = torch.randn(3, 2 * anatomy.hidden_size)
    keep = torch.full((3,), 0.5)
    for layer in range(anatomy.num_layers):
        before, after = (r.logits(layer, features, keep) for r in (router, loaded))
        torch.testing.assert_close(before, after, atol=0.1, rtol=0.02)


@pytest.mark.parametrize("content", [b"", b"not safetensors", None])
def test_a_damaged_file(tmp_path, content):
    path = tmp_path / "router.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LabError, match=r"router\.safetensors"):
        Router.load(path)


@pytest.mark.parametrize("kind", KINDS)
def test_calibrated_budgets_are_met_on_average(kind):
    anatomy = toy_anatomy(toy_model("bert"))
    router = lively_router(anatomy, kind)
    batches = [toy_inputs(anatomy.model, [9] * 16, seed=seed) for seed in range(4)]
    calibrate(anatomy, router, batches)
    for keep in (0.4, 0.5, 0.6):
        shares: list[float] = []
        for inputs in batches:
            batch = DynamicPruner(anatomy, router, keep)(inputs)
            shares += [macs.share for macs in batch.macs]
        # between grid points the share is not quite linear, and a constant router moves by whole units
        assert abs(sum(shares) / len(shares) - keep) < 0.07, keep


def test_an_untrained_router_is_the_static_plan():
    anatomy = toy_anatomy(toy_model("bert"))
    router = Router(RouterShape.of(anatomy, "layerwise"))
    ranks = torch.rand(anatomy.num_layers, router.shape.num_units)
    router.start_from_ranking(ranks)
    inputs = one(toy_inputs(anatomy.model, [9]), 0)
    planner = Planner(router, 0.5)
    SubNetwork(anatomy).run(inputs, planner)
    asked = router.calibrated(0.5)
    together = torch.cat([planner.mask.heads[0], planner.mask.blocks[0]], -1)
    assert torch.equal(together, ranks < asked)


def test_a_router_that_starts_from_a_static_twin_decides_as_it_until_it_is_trained():
    shape = RouterShape("constant", 2, 2, 3, 8, 4)
    twin = Router(shape)
    for name, parameter in twin.named_parameters():
        if name != "w1":
            nn.init.normal_(parameter)
    router = Router(replace(shape, kind="layerwise"))
    router.start_from_router(twin)
    features, keep = torch.randn(5, 16), torch.rand(5)
    assert torch.equal(router.logits(1, features, keep), twin.logits(1, features, keep))
    router.logits(1, features, keep).sum().backward()
    assert router.w1.grad[1].abs().sum() > 0  # and it can learn to look
    again = Router(replace(shape, kind="layerwise"))
    nn.init.normal_(router.w1)
    again.start_from_router(router)
    assert torch.equal(again.logits(0, features, keep), router.logits(0, features, keep))
    with pytest.raises(LabError, match=r"width 4.*width 5"):
        Router(replace(shape, width=5)).start_from_router(twin)


def test_a_router_learns_the_ranking_of_each_group_of_inputs():
    router = Router(RouterShape("layerwise", 2, 2, 3, 8, 16))
    groups = torch.arange(40) % 2
    features = torch.randn(40, 2, 16) + 2 * groups[:, None, None]
    ranks = torch.rand(2, 2, 5)
    router.standardise(features.mean(0), features.std(0))
    router.start_from_ranking(ranks.mean(0))
    assert learn_rankings(router, features, ranks[groups]) > 0.8
    keep = torch.tensor([0.4, 0.4])
    kept = torch.stack([router.logits(layer, features[:2, layer], keep) > 0 for layer in range(2)], 1)
    assert (kept == (ranks < 0.4)).float().mean() > 0.8
    constant = Router(RouterShape("constant", 2, 2, 3, 8, 16))
    constant.start_from_ranking(ranks.mean(0))
    before = constant.w2.clone()
    assert learn_rankings(constant, features, ranks[groups]) == 0
    assert torch.equal(constant.w2, before)


def test_static_ranks_are_the_budgets_at_which_units_join():
    anatomy = toy_anatomy(toy_model("bert"))
    from dsgp_lab import make_scorer, plan_mask

    inputs, cost = toy_inputs(anatomy.model, [9]), CostModel.of(anatomy)
    scores = make_scorer("first_order")(anatomy, inputs)
    ranks = static_ranks(scores, cost, 9)
    mask = plan_mask(scores, cost, torch.tensor([9]), 0.5)
    joined = torch.cat([mask.heads[0], mask.blocks[0]], -1)
    # what the plan fills up at the end with smaller units may differ
    assert (joined != (ranks < 0.5)).float().mean() < 0.1


def test_straight_through_is_hard_forward_and_soft_backward():
    logits = torch.tensor([3.0, -3.0, 0.1], requires_grad=True)
    gates = straight_through(logits, noise=0.0)
    assert gates.tolist() == [1.0, 0.0, 1.0]
    gates.sum().backward()
    soft = torch.sigmoid(logits.detach())
    torch.testing.assert_close(logits.grad, soft * (1 - soft))
    torch.manual_seed(0)
    drawn = torch.stack([straight_through(logits.detach(), 1.0) for _ in range(4000)]).mean(0)
    torch.testing.assert_close(drawn, soft, atol=0.03, rtol=0)


def test_mismatched_masks_are_permuted_without_fixed_points():
    masks = Mask(torch.rand(7, 2, 3) < 0.5, torch.rand(7, 2, 4) < 0.5)
    masks.heads[:, 0] = torch.tensor([[i & 1, i & 2, i & 4] for i in range(7)]).bool()
    other = mismatched(masks, seed=3)
    assert not (other.heads[:, 0] == masks.heads[:, 0]).all(-1).any()
    assert sorted(m.tolist() for m in other.blocks.flatten(1)) == sorted(
        m.tolist() for m in masks.blocks.flatten(1)
    )


def training(tmp_path, out, kind="layerwise", steps=12, regime="frozen", seed=0, begun=None, **settings):
    """A run on a toy in which half of the inputs need what the other half does not."""
    anatomy = toy_anatomy(toy_model("bert", num_labels=2))
    for parameter in anatomy.model.parameters():
        parameter.requires_grad_(regime == "joint")
    generator = torch.Generator().manual_seed(5)
    encoded = [
        Encoded(tuple(torch.randint(4, 60, (6 + i % 3,), generator=generator).tolist()), (0,) * (6 + i % 3))
        for i in range(64)
    ]
    with torch.no_grad():
        targets = torch.cat([anatomy.model(input_ids=torch.tensor([item.ids])).logits for item in encoded])
    task = get_task("sst2")
    config = RouterConfig("sst2", regime, kind, steps=steps, batch_size=8, seed=seed, **settings)
    torch.manual_seed(seed)
    router = Router(RouterShape.of(anatomy, kind, width=8))
    features = layer_features(anatomy, [toy_inputs(anatomy.model, [7] * 16)])
    router.standardise(features.mean(0), features.std(0))
    router.start_from_ranking(torch.rand(anatomy.num_layers, router.shape.num_units))
    source = Source(task, encoded, [0] * 64, targets)
    return RouterTraining(config, anatomy, router, [source], tmp_path / out, begun=begun)


def test_a_run_that_goes_on_logs_the_mean_of_its_own_steps(tmp_path):
    whole = training(tmp_path, "whole", steps=12)
    whole.run()
    parts = training(tmp_path, "parts", steps=12)
    parts.run(stop_at=10)
    training(tmp_path, "parts", steps=12).run()
    logs = [(tmp_path / name / LOG).read_text().splitlines() for name in ("whole", "parts")]
    last = [json.loads(lines[-1])["loss"] for lines in logs]
    assert last[1] > 0.2 * last[0]  # the mean of 2 steps, and not a sum of 2 over 12


def test_a_run_does_not_go_on_from_another_checkpoint(tmp_path):
    first = training(tmp_path, "run")
    first.run(stop_at=5)
    with pytest.raises(LabError, match="another checkpoint to begin with"):
        training(tmp_path, "run", begun={"dense/adapter": "a"})


@pytest.mark.parametrize("regime", ["frozen", "joint"])
def test_a_killed_run_ends_as_an_uninterrupted_one(tmp_path, regime):
    whole = training(tmp_path, "whole", regime=regime)
    assert whole.run()
    first = training(tmp_path, "parts", regime=regime)
    assert not first.run(stop_at=5)
    second = training(tmp_path, "parts", regime=regime)
    assert second.step == 5
    assert second.run()
    for name, value in whole.named.items():
        torch.testing.assert_close(second.named[name], value, atol=1e-6, rtol=1e-5, msg=name)


def test_frozen_training_leaves_the_weights_alone(tmp_path):
    run = training(tmp_path, "frozen")
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    bias = run.router.bias.detach().clone()
    run.run()
    assert all(torch.equal(before[name], value) for name, value in run.model.state_dict().items())
    assert not torch.equal(bias, run.router.bias)


def test_a_constant_router_trains_no_input_weights(tmp_path):
    run = training(tmp_path, "constant", kind="constant")
    before = run.router.w1.detach().clone()
    run.run()
    assert torch.equal(before, run.router.w1)


def test_settings_of_another_run_are_refused(tmp_path):
    training(tmp_path, "run").run(stop_at=3)
    with pytest.raises(LabError, match="another noise"):
        training(tmp_path, "run", noise=0.3)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"regime": "both"}, "frozen, joint"),
        ({"kind": "wise"}, "layerwise"),
        ({"steps": 0}, "steps=0"),
        ({"lowest": 0.0}, "lowest"),
        ({"learning_rate": 2.0}, "learning_rate"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_bad_settings(settings, word):
    with pytest.raises(LabError, match=word):
        RouterConfig("sst2", **settings)


def test_distillation():
    same = torch.tensor([[1.0, -1.0], [0.0, 2.0]])
    assert float(distillation(same, same)) == pytest.approx(0, abs=1e-7)
    assert float(distillation(same, -same)) > 0.5
    assert float(distillation(torch.tensor([[1.0]]), torch.tensor([[3.0]]))) == pytest.approx(2.0)


def test_budgets_between_grid_points_are_interpolated():
    router = Router(RouterShape("layerwise", 1, 2, 2, 4))
    assert router.calibrated(0.35) == pytest.approx(0.35)
    router.asked[GRID.index(0.4)] = 0.5
    assert router.calibrated(0.35) == pytest.approx(0.4)
    assert router.calibrated(1.0) == pytest.approx(1.0)
