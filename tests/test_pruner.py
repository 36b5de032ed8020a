"""DynamicPruner: the four steps, each what it is when done by hand; two pruners share one model."""

from __future__ import annotations

import math
import threading
from typing import Any

import pytest
import torch
from test_methods import toy_router
from toys import hook_count, one, random_mask, toy_anatomy, toy_inputs, toy_model

from dsgp_lab import CostModel, DynamicPruner, LabError, Mask, SubNetwork, plan_mask
from dsgp_lab.pruner import Timings
from dsgp_lab.sensitivity import SCORERS, Constant, FirstOrder, lengths, make_scorer

MODEL = toy_model("bert")
ANATOMY = toy_anatomy(MODEL)
SUB = SubNetwork(ANATOMY)
COST = CostModel.of(ANATOMY)
INPUTS = toy_inputs(MODEL, [9, 3, 12])


def same(a: Mask, b: Mask) -> bool:
    return torch.equal(a.heads, b.heads) and torch.equal(a.blocks, b.blocks)


@pytest.mark.parametrize("name", sorted(SCORERS))
@pytest.mark.parametrize("rows", [[0], [0, 1, 2]])
def test_a_run_is_its_steps(name: str, rows: list[int]) -> None:
    inputs = {key: values[rows] for key, values in INPUTS.items()}
    batch = DynamicPruner(SUB, name, keep=0.5, scope="layer", floor=1)(inputs)
    scores = make_scorer(name)(ANATOMY, inputs)
    assert torch.equal(batch.sensitivity.flat(), scores.flat())
    mask = plan_mask(scores, COST, lengths(inputs), 0.5, "layer", 1)
    assert same(batch.mask, mask)
    torch.testing.assert_close(batch.logits, SUB(inputs, mask).logits)
    with torch.no_grad():
        torch.testing.assert_close(batch.dense_logits, MODEL(**inputs).logits, atol=1e-5, rtol=0)
    assert batch.groups == len(mask.groups())
    assert len(batch.macs) == len(rows)
    for row, macs in enumerate(batch.macs):
        length = int(lengths(inputs)[row])
        assert macs.kept == int(COST.masked(mask[row], lengths(inputs)[row : row + 1])[0])
        assert (macs.dense, macs.scorer) == (COST.dense(length), make_scorer(name).macs(COST, length))
        assert macs.charged == (name == "random")
        assert macs.share <= 0.5


def test_a_batch_is_its_inputs_one_by_one() -> None:
    pruner = DynamicPruner(SUB, keep=0.4)
    batch = pruner(INPUTS)
    for row in range(3):
        alone = pruner(one(INPUTS, row))
        assert same(alone.mask, batch.mask[row])
        torch.testing.assert_close(alone.logits[0], batch.logits[row], atol=1e-5, rtol=0)
        assert alone.macs[0] == batch.macs[row]


def test_keep_for_one_call() -> None:
    pruner = DynamicPruner(SUB, keep=0.3)
    full = pruner(INPUTS, keep=1)
    assert (full.mask.keep_share == 1).all()
    torch.testing.assert_close(full.logits, full.dense_logits, atol=1e-5, rtol=0)
    assert (pruner(INPUTS).mask.keep_share < 0.6).all()
    assert pruner.keep == 0.3


@pytest.mark.parametrize("keep", [0, 1.5, math.nan, "0.6", True, -1])
def test_wrong_budgets_are_refused_before_anything_runs(keep: Any) -> None:
    with pytest.raises(LabError, match="Got keep="):
        DynamicPruner(SUB, keep=keep)
    with pytest.raises(LabError, match="Got keep="):
        DynamicPruner(SUB)(INPUTS, keep=keep)


def test_unknown_scorers_are_refused() -> None:
    with pytest.raises(LabError, match=r"Got scorer='michel'\. Allowed: activation_norm"):
        DynamicPruner(SUB, "michel")


@pytest.mark.parametrize("settings", [{"scope": "layer"}, {"floor": 1}, {"scope": "nonsense"}])
def test_a_router_takes_no_scope_and_no_floor(settings: dict[str, Any]) -> None:
    with pytest.raises(LabError, match="a router decides for every layer itself"):
        DynamicPruner(SUB, toy_router(SUB), 0.5, **settings)


def test_model_anatomy_or_subnetwork() -> None:
    assert DynamicPruner(SUB).subnetwork is SUB
    assert DynamicPruner(ANATOMY).anatomy is ANATOMY
    assert DynamicPruner(MODEL).anatomy.num_blocks == 1
    model = toy_model("bert").train()
    with pytest.raises(LabError, match="training mode"):
        DynamicPruner(model)


def test_a_constant_scorer_gives_one_mask_and_one_group() -> None:
    constant = Constant.of(FirstOrder()(ANATOMY, INPUTS))
    same_length = toy_inputs(MODEL, [9, 9, 9])
    batch = DynamicPruner(SUB, constant, keep=0.5)(same_length)
    assert batch.groups == 1
    assert all(same(batch.mask[0], batch.mask[row]) for row in range(3))
    assert all(macs.charged and macs.scorer == 0 for macs in batch.macs)


def test_two_pruners_share_one_model() -> None:
    """At once, in two threads, with different budgets and scorers; the model is none the worse."""
    before = {name: value.clone() for name, value in MODEL.state_dict().items()}
    pruners = DynamicPruner(SUB, "first_order", 0.4), DynamicPruner(ANATOMY, "wanda_sp", 0.7)
    expected = [pruner(INPUTS).logits for pruner in pruners]
    wrong: list[Any] = []

    def work(number: int) -> None:
        try:
            for _ in range(15):
                if not torch.allclose(pruners[number](INPUTS).logits, expected[number], rtol=0, atol=1e-5):
                    wrong.append(number)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert hook_count(MODEL) == 0
    assert all(torch.equal(value, before[name]) for name, value in MODEL.state_dict().items())


def test_every_step_is_timed() -> None:
    timings = DynamicPruner(SUB)(one(INPUTS, 0)).timings
    steps = timings.score, timings.plan, timings.select, timings.run, timings.dense
    assert all(step > 0 for step in steps)
    assert timings.total == pytest.approx(sum(steps[:4]))


def test_timings_as_text_and_html() -> None:
    timings = Timings(score=4.0, plan=1.0, select=0.5, run=2.5, dense=5.0)
    assert timings.total == 8.0
    assert "Run alone is 0.50 of dense, everything 1.60." in str(timings)
    assert "<td" in timings._repr_html_()


def test_masks_of_a_pruned_run_serve_elsewhere() -> None:
    """A mask is plain data: it can be stored, read back and run without the pruner."""
    batch = DynamicPruner(SUB, keep=0.5)(INPUTS)
    again = SUB(INPUTS, Mask.from_dict(batch.mask.to_dict())).logits
    assert torch.equal(again, batch.logits)
    assert not torch.equal(SUB(INPUTS, random_mask(ANATOMY, 3)).logits, batch.logits)
