"""The language model's sub-network beyond what every family's suite checks: bad input, copies, sampling."""

from __future__ import annotations

import pytest
import torch
from toys import random_mask, toy_anatomy, toy_inputs, toy_model

from dsgp_lab import Anatomy, DynamicPruner, LabError, Mask, attention_weights
from dsgp_lab.decoder import DecoderSubNetwork, make_subnetwork
from dsgp_lab.generation import generate, left_padded
from dsgp_lab.router import Router

MODEL = toy_model("llama")
ANATOMY = toy_anatomy(MODEL)
SUB = DecoderSubNetwork(ANATOMY)
INPUTS = toy_inputs(MODEL, [9, 3, 12])


def test_a_subnetwork_is_made_once() -> None:
    assert make_subnetwork(SUB) is SUB
    assert isinstance(DynamicPruner(SUB).subnetwork, DecoderSubNetwork)


def test_the_pruner_runs_language_models() -> None:
    batch = DynamicPruner(SUB, "wanda_sp", keep=0.5)(INPUTS)
    assert batch.logits.shape == (3, 64)
    assert all(0.3 < macs.kept / macs.dense <= 0.5 for macs in batch.macs)
    torch.testing.assert_close(batch.dense_logits, ANATOMY.logits(INPUTS), atol=1e-4, rtol=0)


def test_a_router_is_for_encoders() -> None:
    with pytest.raises(LabError, match="a router for a Llama language model"):
        DynamicPruner(SUB, Router.__new__(Router))


def test_attention_maps_are_for_encoders() -> None:
    with pytest.raises(LabError, match=r"a Llama language model.*output_attentions=True"):
        attention_weights(MODEL, INPUTS)


def test_a_model_without_a_head_is_refused() -> None:
    with pytest.raises(LabError, match=r"LlamaModel, a Llama model without.*AutoModelForCausalLM"):
        Anatomy.of(MODEL.model)


def test_a_model_in_training_is_refused() -> None:
    model = toy_model("llama")
    sub = DecoderSubNetwork(model)
    model.train()
    with pytest.raises(LabError, match="training mode"):
        sub.dense(INPUTS)
    with pytest.raises(LabError, match="training mode"):
        DecoderSubNetwork(model)


def test_changed_weights_are_noticed() -> None:
    model = toy_model("llama")
    sub = DecoderSubNetwork(model)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.mul_(2)
    with pytest.raises(LabError, match="weights changed"):
        sub.dense(INPUTS)


def test_masks_that_do_not_fit() -> None:
    with pytest.raises(LabError, match="2 masks"):
        SUB.select(random_mask(ANATOMY, 2))
    other = Mask(torch.ones(1, 3, 4, dtype=torch.bool), torch.ones(1, 3, 6, dtype=torch.bool))
    with pytest.raises(LabError, match="heads"):
        SUB.select(other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"max_new_tokens": True}, "max_new_tokens=True"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"max_new_tokens": 29}, "41 tokens, prompt and continuation together.*at most 40"),
    ],
)
def test_bad_requests(changes: dict[str, float], message: str) -> None:
    with pytest.raises(LabError, match=message):
        generate(SUB, INPUTS, **changes)  # type: ignore[arg-type]


def test_inputs_without_tokens() -> None:
    empty = {"input_ids": torch.ones(1, 3).long(), "attention_mask": torch.zeros(1, 3).long()}
    for run in (SUB.dense, lambda inputs: generate(SUB, inputs)):
        with pytest.raises(LabError, match="without attention_mask"):
            run({"input_ids": INPUTS["input_ids"]})
        with pytest.raises(LabError, match="without a single real token"):
            run(empty)


def test_generation_ends_at_an_end_token_and_leaves_it_out() -> None:
    free = generate(SUB, INPUTS, max_new_tokens=8).tokens
    end = free[0][3]
    ended = generate(SUB, INPUTS, max_new_tokens=8, end_ids={end}).tokens
    for whole, short in zip(free, ended, strict=True):
        cut = whole.index(end) if end in whole else len(whole)
        assert short == whole[:cut]
    alone = {name: values[:1] for name, values in INPUTS.items()}
    assert generate(SUB, alone, max_new_tokens=8, end_ids={end}).steps == free[0].index(end)


def test_sampling_is_repeatable_and_varies() -> None:
    draws = [generate(SUB, INPUTS, max_new_tokens=8, temperature=2.0, seed=s).tokens for s in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_a_cache_of_kept_groups_is_smaller() -> None:
    mask = Mask.full(ANATOMY)
    mask.heads[:, :, 0] = False
    whole, cut = (generate(SUB, INPUTS, weights, 4) for weights in (None, SUB.select(mask)))
    assert cut.cache_bytes * 2 == whole.cache_bytes > 0


def test_padding_goes_left() -> None:
    moved = left_padded(toy_inputs(MODEL, [2, 4], extra=3))
    assert moved["attention_mask"].tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]


def test_reused_memory_gives_the_same_weights() -> None:
    masks = [random_mask(ANATOMY, seed=seed) for seed in (1, 2)]
    fresh = [SUB.run(INPUTS, SUB.select(mask)) for mask in masks]
    for mask, expected in zip(masks, fresh, strict=True):
        assert torch.equal(SUB.run(INPUTS, SUB.select(mask, reuse=True)), expected)
    cuts = [SUB.select(mask, reuse=True) for mask in masks]
    assert cuts[0][0].ffn_out.data_ptr() == cuts[1][0].ffn_out.data_ptr()
