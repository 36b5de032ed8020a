"""SubNetwork: selection, packing and grouping. Equality with gated runs is test_families.py's."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import odd_masks, one, random_mask, toy_anatomy, toy_inputs, toy_model
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
)

from dsgp_lab import Anatomy, LabError, Mask, SubNetwork, gated, packed, subnetwork
from dsgp_lab.anatomy import FAMILIES, Inputs, register_family
from dsgp_lab.decoder import DecoderSubNetwork
from dsgp_lab.runs import runs

MODEL = toy_model("bert")
ANATOMY = toy_anatomy(MODEL)
INPUTS = toy_inputs(MODEL, [9, 3, 12, 5])
SUB = SubNetwork(ANATOMY)


@given(st.lists(st.booleans(), max_size=20))
def test_runs_spell_the_mask_again(kept: list[bool]) -> None:
    found = runs(tuple(kept))
    rebuilt = [any(start <= i < stop for start, stop in found) for i in range(len(kept))]
    assert rebuilt == kept
    assert all(start < stop for start, stop in found)
    assert all(before[1] < after[0] for before, after in pairwise(found))


def test_select_takes_the_mask_of_one_input() -> None:
    with pytest.raises(LabError, match=r"Got 2 masks\..*use mask\[i\]"):
        SUB.select(random_mask(ANATOMY, 2))


def test_a_selection_copies_no_weight() -> None:
    """Every kept matrix is a view of the packed one, until the mask comes again."""
    for mask in odd_masks(ANATOMY).values():
        sub = SubNetwork(ANATOMY)
        for layer, whole in zip(sub.select(mask), sub.packed, strict=True):
            for selected, part in ((layer.attention, whole.attention), (layer.ffn, whole.ffn)):
                places = {w.untyped_storage().data_ptr() for w in (*part.weights, part.out_weight)}
                for tensor in tensors_of(selected):
                    assert tensor.dim() == 1 or tensor.untyped_storage().data_ptr() in places


def test_a_mask_that_comes_again_runs_on_a_copy() -> None:
    """One product a side from the second time on, within the limit, and the same logits."""
    sub, mask, inputs = SubNetwork(ANATOMY), odd_masks(ANATOMY)["random"], one(INPUTS, 0)
    first = sub(inputs, mask).logits
    assert max(len(layer.ffn.pieces) for layer in sub.select(~Mask.full(ANATOMY) | mask)) == 1
    assert sub.copies.statistics().made > 0
    again = sub(inputs, mask).logits
    assert sub.copies.statistics().found > 0
    assert all(len(part.pieces) == 1 for layer in sub.select(mask) for part in layer)
    torch.testing.assert_close(again, first, atol=1e-5, rtol=0)
    for seed in range(100):
        for _ in range(2):
            sub.select(random_mask(ANATOMY, seed=seed))
    done = sub.copies.statistics()
    assert 0 < done.held_bytes <= done.limit_bytes
    assert done.limit_bytes <= 0.65 * sum(w.nbytes for w in sub._watched)


def tensors_of(value: object) -> Iterator[torch.Tensor]:
    """All tensors in nested tuples."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from tensors_of(part)


def test_many_masks_do_not_fill_the_memory() -> None:
    """What is remembered of masks has a bound: after a few hundred, more leave no more tensors behind."""
    sub, inputs = SubNetwork(ANATOMY), one(INPUTS, 0)

    def tensors_after(seeds: range) -> int:
        for seed in seeds:
            sub(inputs, random_mask(ANATOMY, seed=seed))
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    few = tensors_after(range(300))
    assert tensors_after(range(300, 600)) <= few + 5


def test_weights_are_packed_unit_by_unit() -> None:
    """Head 2 and block 1 of layer 0, found in the packed weights."""
    attention, ffn, layer = SUB.packed[0].attention, SUB.packed[0].ffn, ANATOMY.layers[0]
    head = slice(2 * 8, 3 * 8)
    projections = (layer.query, layer.key, layer.value)
    packed = attention.weights[0][:, 2 * 24 : 3 * 24]
    assert torch.equal(packed, torch.cat([p.weight[head] for p in projections]).T)
    assert torch.equal(attention.bias[2 * 24 : 3 * 24], torch.cat([p.bias[head] for p in projections]))
    assert torch.equal(attention.out_weight[head], layer.attention_out.weight[:, head].T)
    neurons = ANATOMY.order[0, 8:16]
    assert torch.equal(ffn.weights[0][:, 8:16], layer.ffn_in.weight[neurons].T)
    assert torch.equal(ffn.bias[8:16], layer.ffn_in.bias[neurons])
    assert torch.equal(ffn.out_weight[8:16], layer.ffn_out.weight[:, neurons].T)


def test_batch_order_is_kept() -> None:
    """Groups are run one after another; the answers come back where the inputs were."""
    mask = random_mask(ANATOMY, 4, seed=1)
    mask = Mask.stack([mask[0], mask[1], mask[0], mask[2]])
    output = SUB(INPUTS, mask)
    assert output.groups == 3
    for row in range(4):
        alone = SUB(one(INPUTS, row), mask[row]).logits[0]
        torch.testing.assert_close(output.logits[row], alone, atol=1e-5, rtol=0)
    reverse = {name: values.flip(0) for name, values in INPUTS.items()}
    flipped = SUB(reverse, mask[[3, 2, 1, 0]]).logits.flip(0)
    torch.testing.assert_close(flipped, output.logits, atol=1e-5, rtol=0)


def test_one_mask_for_all_is_one_group() -> None:
    mask = random_mask(ANATOMY)
    shared, each = SUB(INPUTS, mask), SUB(INPUTS, mask[[0, 0, 0, 0]])
    assert (shared.groups, each.groups) == (1, 1)
    torch.testing.assert_close(shared.logits, each.logits, atol=1e-5, rtol=0)


def test_a_run_does_less_work() -> None:
    """The cut run reads only the kept units: other weights may be NaN and nothing shows."""
    model = toy_model("bert")
    anatomy = toy_anatomy(model)
    mask = random_mask(anatomy, seed=3)
    expected = SubNetwork(anatomy)(INPUTS, mask).logits
    neurons = anatomy.to_neurons(mask.blocks)[0]
    with torch.no_grad():
        for index, layer in enumerate(anatomy.layers):
            channels = mask.heads[0, index].repeat_interleave(anatomy.head_dim)
            for projection in (layer.query, layer.key, layer.value):
                projection.weight[~channels], projection.bias[~channels] = torch.nan, torch.nan
            layer.attention_out.weight[:, ~channels] = torch.nan
            layer.ffn_in.weight[~neurons[index]], layer.ffn_in.bias[~neurons[index]] = torch.nan, torch.nan
            layer.ffn_out.weight[:, ~neurons[index]] = torch.nan
    assert torch.equal(SubNetwork(anatomy)(INPUTS, mask).logits, expected)
    assert SubNetwork(anatomy).dense(INPUTS).isnan().any()


def test_padding_columns_are_not_computed() -> None:
    wide = {
        name: torch.nn.functional.pad(
            values, (0, 20), value=MODEL.config.pad_token_id if "ids" in name else 0
        )
        for name, values in INPUTS.items()
    }
    assert torch.equal(SUB.dense(wide), SUB.dense(INPUTS))
    found, mask = SUB.checked(wide)
    assert found["input_ids"].shape == INPUTS["input_ids"].shape
    assert mask is not None
    longest = {name: values[2:3] for name, values in wide.items()}
    found, mask = SUB.checked(longest)
    assert found["input_ids"].shape == (1, 12)
    assert mask is None  # nothing is left that is padded


@pytest.mark.parametrize("batch", [2, 3])
def test_a_plan_made_on_the_way_serves_one_input(batch: int) -> None:
    whole = ((True,) * ANATOMY.num_heads, (True,) * ANATOMY.num_blocks)
    assert torch.equal(SUB.run(one(INPUTS, 0), lambda layer, rows: whole), SUB.dense(one(INPUTS, 0)))
    with pytest.raises(LabError, match=f"{batch} inputs for a plan that is made layer by layer"):
        SUB.run({name: values[:batch] for name, values in INPUTS.items()}, lambda layer, rows: whole)


def test_two_inputs_run_each_under_its_own_mask() -> None:
    two = {name: values[:2] for name, values in INPUTS.items()}
    masks = random_mask(ANATOMY, 2, seed=3)
    assert not torch.equal(masks.heads[0], masks.heads[1])
    alone = torch.cat([SUB(one(two, row), masks[row]).logits for row in range(2)])
    for execution in ("each", "groups", "together", "union"):
        output = SUB(two, masks, execution)
        assert output.execution == execution
        torch.testing.assert_close(output.logits, alone, atol=1e-5, rtol=0)
    assert SUB(two, masks).execution in ("each", "groups", "together", "union")


def test_together_gathers_and_union_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their logits are the same; only "together" leaves out the rows of inputs that do without a unit."""
    asked = []

    def run_together(sub: SubNetwork, inputs: Inputs, plan: object, gather: bool = True) -> torch.Tensor:
        asked.append(gather)
        return torch.zeros(len(inputs["input_ids"]), 2)

    monkeypatch.setattr(subnetwork, "run_together", run_together)
    for execution in ("together", "union"):
        SUB(INPUTS, random_mask(ANATOMY, 4), execution)
    assert asked == [True, False]


def test_results_are_the_callers_own() -> None:
    """A later run does not write into an earlier result."""
    first = SUB.dense(INPUTS)
    copy = first.clone()
    SUB(INPUTS, random_mask(ANATOMY))
    assert torch.equal(first, copy)


def test_outdated_weights_are_refused() -> None:
    model = toy_model("bert")
    sub = SubNetwork(model)
    before = sub.dense(INPUTS)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    model(**INPUTS).logits.sum().backward()
    optimiser.step()
    with pytest.raises(
        LabError, match=r"weights changed after this SubNetwork was made.*make a new SubNetwork"
    ):
        sub.dense(INPUTS)
    after = SubNetwork(model).dense(INPUTS)
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(after, model(**INPUTS).logits, atol=1e-5, rtol=0)


def test_training_mode_is_refused() -> None:
    model = toy_model("bert")
    sub = SubNetwork(model)
    model.train()
    with pytest.raises(LabError, match=r"training mode.*call model\.eval\(\) first"):
        SubNetwork(model)
    with pytest.raises(LabError, match=r"training mode.*call model\.eval\(\) first"):
        sub.dense(INPUTS)
    model.eval()
    sub.dense(INPUTS)


def test_masks_that_do_not_fit() -> None:
    with pytest.raises(LabError, match="3 masks for 4 inputs"):
        SUB(INPUTS, random_mask(ANATOMY, 3))
    with pytest.raises(LabError, match=r"heads \[3, 4\] and blocks \[3, 1\]"):
        SUB(INPUTS, Mask.full(toy_anatomy(MODEL, 48)))
    with pytest.raises(LabError, match=r"heads \[3, 4\] and blocks \[3, 1\]"):
        SUB.select(Mask.full(toy_anatomy(MODEL, 48)))


def test_float64_models_run_too() -> None:
    model = toy_model("bert").double()
    anatomy = toy_anatomy(model)
    mask = random_mask(anatomy, 4)
    with torch.no_grad(), gated(anatomy, mask):
        expected = model(**INPUTS).logits
    logits = SubNetwork(anatomy)(INPUTS, mask).logits
    assert logits.dtype == torch.float64
    torch.testing.assert_close(logits, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("block_size", [5, 0, -8, 96, 8.0, True, "8"])
def test_block_sizes_that_do_not_divide(block_size: object) -> None:
    with pytest.raises(LabError, match=r"block_size=.* for 48 neurons.*a divisor of 48: 1, 2, 3, 4, 6, 8"):
        Anatomy.of(MODEL, block_size)  # type: ignore[arg-type]


def test_orders_that_are_none() -> None:
    for order in (torch.arange(48), torch.zeros(3, 48), torch.arange(48).repeat(2, 1)):
        with pytest.raises(LabError, match=r"\[3, 48\] with each row a permutation of 0 to 47"):
            Anatomy.of(MODEL, 8, order)


def test_unsupported_models_are_told_what_is_supported() -> None:
    small = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    gpt2 = GPT2ForSequenceClassification(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=2))
    with pytest.raises(LabError, match=r"GPT2ForSequenceClassification.*AutoModelForCausalLM"):
        SubNetwork(gpt2)
    with pytest.raises(LabError, match=r"GPT-2 model, a language model.*DecoderSubNetwork"):
        SubNetwork(toy_model("gpt2"))
    with pytest.raises(LabError, match=r"a BERT model, an encoder.*make_subnetwork"):
        DecoderSubNetwork(toy_model("bert"))
    albert = AlbertForSequenceClassification(AlbertConfig(**small, embedding_size=8, intermediate_size=8))
    message = r"a model of type 'albert'.*BERT \(bert\), DistilBERT.*RoBERTa.*register_family"
    with pytest.raises(LabError, match=message):
        SubNetwork(albert)
    with pytest.raises(LabError, match="a model of type 'Linear'"):
        SubNetwork(torch.nn.Linear(2, 2))  # type: ignore[arg-type]
    decoder = BertForSequenceClassification(BertConfig(**small, intermediate_size=8, is_decoder=True))
    with pytest.raises(LabError, match=r"set up as a decoder.*is_decoder=False"):
        SubNetwork(decoder.eval())


def test_a_family_from_outside() -> None:
    """The recipe: describe, register, and everything runs."""
    model = toy_model("bert")
    model.config.model_type = "house-bert"
    try:
        with pytest.raises(LabError, match="'house-bert'"):
            Anatomy.of(model)
        register_family(replace(FAMILIES["bert"], name="House BERT", model_type="house-bert"))
        assert torch.equal(SubNetwork(toy_anatomy(model)).dense(INPUTS), SUB.dense(INPUTS))
    finally:
        FAMILIES.pop("house-bert", None)


@pytest.mark.parametrize(
    "change",
    [
        {"attention_mask": torch.zeros(1, 9, dtype=torch.long)},
        {"attention_mask": torch.ones(0, 9, dtype=torch.long)},
        {"attention_mask": None},
    ],
)
def test_inputs_without_a_real_token_are_refused(change: dict[str, torch.Tensor | None]) -> None:
    inputs = {name: values for name, values in (one(INPUTS, 0) | change).items() if values is not None}
    with pytest.raises(LabError, match="real token in every row"):
        SUB.dense(inputs)


def test_a_mask_that_stays_is_cut_at_once() -> None:
    for mask in odd_masks(ANATOMY).values():
        stays, fresh = SUB.select(mask, stays=True), SubNetwork(ANATOMY).select(mask)
        assert all(len(part.pieces) <= 1 for layer in stays for part in layer)
        alone = one(INPUTS, 0)
        torch.testing.assert_close(SUB.run(alone, stays), SUB.run(alone, fresh), atol=1e-5, rtol=0)


def test_units_in_several_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """However the columns are grouped, the logits stay: views, copies, masks that stay, and batches."""
    monkeypatch.setattr("dsgp_lab.runs.GROUP_COLUMNS", 24)  # a head a group, three blocks a group
    sub = SubNetwork(ANATOMY)
    layer = sub.packed[0]
    assert (layer.attention.group, layer.ffn.group) == (1, 3)
    assert (len(layer.attention.weights), len(layer.ffn.weights)) == (4, 2)
    torch.testing.assert_close(sub.dense(INPUTS), SUB.dense(INPUTS), atol=1e-5, rtol=0)
    for mask in odd_masks(ANATOMY).values():
        expected = SubNetwork(ANATOMY).run(INPUTS, SUB.select(mask, stays=True))
        for selection in (sub.select(mask), sub.select(mask), sub.select(mask, stays=True)):
            torch.testing.assert_close(sub.run(INPUTS, selection), expected, atol=1e-5, rtol=0)
    assert sub.copies.statistics().held_bytes == sum(
        views_bytes(entry.copy.pieces) for entry in sub.copies._copies.values()
    )
    several = random_mask(ANATOMY, 4, seed=1)
    torch.testing.assert_close(sub(INPUTS, several).logits, SUB(INPUTS, several).logits, atol=1e-5, rtol=0)


def views_bytes(pieces: tuple[packed.Views, ...]) -> int:
    """What copies of weights take, biases left out."""
    numbers = [p.weight.stride(0) * len(p.weight) + p.out_weight.numel() for p in pieces]
    return sum(numbers) * 4


@pytest.mark.parametrize("left_out", [(), ("token_type_ids",)])
def test_inputs_that_name_positions_or_leave_types_out(left_out: tuple[str, ...]) -> None:
    inputs = {name: values for name, values in one(INPUTS, 0).items() if name not in left_out}
    shifted = inputs | {"position_ids": torch.arange(1, 10)[None]}
    for each in (inputs, shifted):
        torch.testing.assert_close(SUB.dense(each), MODEL(**each).logits.detach(), atol=1e-5, rtol=0)
    assert not torch.allclose(SUB.dense(inputs), SUB.dense(shifted), atol=1e-3)
