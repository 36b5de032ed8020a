"""Cascades: a small mask first, a larger one for the inputs that are unsure in it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_methods import texts, toy_router
from toys import toy_anatomy, toy_model, toy_tokenizer

from dsgp_lab import Lab, LabError, load_teaching
from dsgp_lab.cascade import LARGE, SMALL, Cascade, margin
from dsgp_lab.evaluate.pruned import predict_by_lot, predict_cascade, predict_masked
from dsgp_lab.router_planner import Planner
from dsgp_lab.subnetwork import SubNetwork
from dsgp_lab.training.router_data import labelled_batches

TOY = SubNetwork(toy_anatomy(toy_model("bert", 3)))
TWIN = toy_router(TOY, constant=True)
BATCHES = [inputs for inputs, _ in labelled_batches(toy_tokenizer(), texts(40))]


@given(keep=st.floats(0.05, 1.0))
@settings(max_examples=25, deadline=None)
def test_the_budget_holds_on_the_calibration_texts(keep: float) -> None:
    cascade = Cascade.fit(TOY, TWIN, BATCHES, keep)
    runs = [cascade(inputs) for inputs in BATCHES]
    shares = torch.cat([cascade.shares(inputs, run.again) for inputs, run in zip(BATCHES, runs, strict=True)])
    assert float(shares.mean()) == pytest.approx(cascade.share, abs=1e-6)
    assert float(torch.cat([run.again for run in runs]).float().mean()) == pytest.approx(cascade.again)
    smallest = Planner(TWIN, min(keep, SMALL)).mask
    floor = float((predict_masked(TOY, toy_tokenizer(), texts(40), smallest)).shares.mean())
    assert cascade.share <= max(keep, floor) + 1e-6


def test_unsure_inputs_run_in_the_larger_mask_and_the_others_do_not() -> None:
    cascade = Cascade.fit(TOY, TWIN, BATCHES, 0.35)
    assert 0 < cascade.again < 1
    run = predict_cascade(cascade, toy_tokenizer(), texts(40))
    small, large = (
        predict_masked(TOY, toy_tokenizer(), texts(40), Planner(TWIN, keep).mask) for keep in (SMALL, LARGE)
    )
    again = margin(small.logits) < cascade.threshold
    expected = torch.where(again[:, None], large.logits, small.logits)
    torch.testing.assert_close(run.logits, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(run.shares, small.shares + again * large.shares)
    assert torch.equal(
        run.masks.heads, torch.where(again[:, None, None], large.masks.heads, small.masks.heads)
    )


def test_by_lot_as_many_run_again_but_others() -> None:
    cascade, tokenizer = Cascade.fit(TOY, TWIN, BATCHES, 0.35), toy_tokenizer()
    by_margin = predict_cascade(cascade, tokenizer, texts(40))
    lots = [predict_by_lot(cascade, tokenizer, texts(40), seed) for seed in (0, 0, 1)]
    ran = [(run.masks.heads == cascade.large.heads).flatten(1).all(1) for run in (by_margin, *lots)]
    assert len({int(again.sum()) for again in ran}) == 1
    assert torch.equal(ran[1], ran[2])
    assert not torch.equal(ran[1], ran[3])
    assert not torch.equal(ran[1], ran[0])
    both = ran[0] & ran[1]
    torch.testing.assert_close(lots[0].logits[both], by_margin.logits[both], atol=1e-5, rtol=0)
    torch.testing.assert_close(lots[0].shares[both], by_margin.shares[both])
    nobody = Cascade.fit(TOY, TWIN, BATCHES, 0.1)
    smallest = predict_masked(TOY, tokenizer, texts(40), nobody.small)
    assert torch.equal(predict_by_lot(nobody, tokenizer, texts(40)).logits, smallest.logits)


@pytest.mark.parametrize("keep", [0.18, 0.15, 0.05])
def test_below_the_small_budget_nothing_runs_twice(keep: float) -> None:
    cascade = Cascade.fit(TOY, TWIN, BATCHES, keep)
    assert cascade.again == 0
    assert not any(cascade(inputs).again.any() for inputs in BATCHES)


def test_above_the_large_budget_the_whole_model_is_the_larger_one() -> None:
    cascade = Cascade.fit(TOY, TWIN, BATCHES, 0.7)
    assert bool(cascade.large.heads.all() and cascade.large.blocks.all())
    assert "budget, mean share of MACs      0.7" in str(cascade)
    assert "<table>" in cascade._repr_html_()


def test_what_a_cascade_cannot_be_made_of() -> None:
    regression = SubNetwork(toy_anatomy(toy_model("bert", 1)))
    with pytest.raises(LabError, match="no margin"):
        Cascade.fit(regression, TWIN, BATCHES, 0.5)
    with pytest.raises(LabError, match="a layerwise router"):
        Cascade.fit(TOY, toy_router(TOY), BATCHES, 0.5)
    with pytest.raises(LabError, match="no texts"):
        Cascade.fit(TOY, TWIN, [], 0.5)
    with pytest.raises(LabError, match="keep"):
        Cascade.fit(TOY, TWIN, BATCHES, 0.0)
    with pytest.raises(LabError, match=r"a router for .* blocks.*block size"):
        Cascade.fit(SubNetwork(toy_anatomy(TOY.anatomy.model, 48)), TWIN, BATCHES, 0.5)


@pytest.mark.slow
def test_the_embedded_model_and_its_twin() -> None:
    lab, teaching = Lab("sst2", regime="adaptive"), load_teaching("sst2")
    groups = [i // 16 % 2 for i in range(272)]  # in each group of 16 each kind of sentence has both labels
    cascade = lab.cascade(0.35, teaching.take(i for i in range(272) if groups[i] == 0))
    assert cascade.texts == 144
    assert 0.3 < cascade.share <= 0.35
    unseen = teaching.take(i for i in range(272) if groups[i] == 1)
    run = predict_cascade(cascade, lab.tokenizer, unseen)
    assert float(run.shares.mean()) == pytest.approx(0.35, abs=0.05)
    small = predict_masked(lab.subnetwork, lab.tokenizer, unseen, cascade.small)
    sure = margin(small.logits) >= cascade.threshold
    torch.testing.assert_close(run.logits[sure], small.logits[sure], atol=1e-4, rtol=0)
