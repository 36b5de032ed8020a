"""What must hold for every family: one abstract suite, one subclass a family.

To add a family: add its configuration to toys.py and a subclass below.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toys import (
    LAYERS,
    NEURONS,
    count_macs,
    hook_count,
    make_model,
    odd_masks,
    one,
    random_mask,
    random_order,
    toy_anatomy,
    toy_config,
    toy_inputs,
    toy_model,
)

from dsgp_lab import Anatomy, CostModel, DynamicPruner, LabError, Mask, SubNetwork, captured, gated, plan_mask
from dsgp_lab.gates import Gates
from dsgp_lab.sensitivity import SCORERS, lengths, make_scorer
from dsgp_lab.sensitivity.first_order import gate_gradients
from dsgp_lab.sensitivity.targets import margin

CLOSE = {"atol": 1e-5, "rtol": 0.0}


@torch.no_grad()
def run_gated(anatomy: Anatomy, inputs: dict[str, torch.Tensor], mask: Mask) -> torch.Tensor:
    with gated(anatomy, mask):
        return anatomy.model(**inputs).logits


class FamilySuite(ABC):
    """The suite; a subclass names the family and may change its configuration."""

    family: ClassVar[str]
    changes: ClassVar[dict[str, Any]] = {}
    wide: ClassVar[dict[str, Any]] = {}
    """Changes for a model of realistic width."""

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> Any:
        return toy_model(cls.family, **cls.changes)

    @pytest.fixture(autouse=True)
    def _model_stays_whole(self, model: Any) -> Iterator[None]:
        """After every single test the model has the very same weights, and no hook."""
        before = {name: value.clone() for name, value in model.state_dict().items()}
        yield
        after = model.state_dict()
        assert all(torch.equal(value, after[name]) for name, value in before.items())
        assert before.keys() == after.keys()
        assert hook_count(model) == 0
        assert not model.training

    @pytest.fixture(scope="class")
    @classmethod
    def anatomy(cls, model: Any) -> Anatomy:
        return toy_anatomy(model)

    @pytest.fixture(scope="class")
    @classmethod
    def sub(cls, anatomy: Anatomy) -> SubNetwork:
        return SubNetwork(anatomy)

    def test_anatomy(self, model: Any, anatomy: Anatomy) -> None:
        assert (anatomy.num_layers, anatomy.num_neurons, anatomy.num_blocks) == (LAYERS, NEURONS, 6)
        assert anatomy.num_heads * anatomy.head_dim == anatomy.hidden_size == 32
        assert anatomy.num_heads == model.config.num_attention_heads
        assert anatomy.family.model_type == model.config.model_type
        assert Anatomy.of(model).block_size == NEURONS  # the largest divisor up to 128
        assert Anatomy.of(anatomy) is anatomy

    def test_units_are_where_the_table_says(self, anatomy: Anatomy) -> None:
        """Each path of the table names a module of its own, of the right shape."""
        for layer in anatomy.layers:
            parts = [getattr(layer, name) for name in type(layer).__annotations__ if name != "activation"]
            assert len({id(part) for part in parts}) == len(parts)
            assert {tuple(p.weight.shape) for p in (layer.query, layer.key, layer.value)} == {(32, 32)}
            assert tuple(layer.ffn_in.weight.shape) == (NEURONS, 32)
            assert tuple(layer.ffn_out.weight.shape) == (32, NEURONS)

    @pytest.mark.parametrize("attention", ["sdpa", "eager"])
    @pytest.mark.parametrize("labels", [1, 2, 3])
    def test_lean_dense_run_is_transformers_own(self, labels: int, attention: str) -> None:
        model = toy_model(self.family, labels, attention, **self.changes)
        inputs = toy_inputs(model, [9, 3, 12, 1], extra=2)
        with torch.no_grad():
            expected = model(**inputs).logits
        assert expected.shape == (4, labels)
        torch.testing.assert_close(SubNetwork(toy_anatomy(model)).dense(inputs), expected, **CLOSE)

    @pytest.mark.parametrize("labels", [1, 2, 3])
    def test_compacted_is_gated_for_any_number_of_labels(self, labels: int) -> None:
        model = toy_model(self.family, labels, "eager", **self.changes)
        anatomy, inputs = toy_anatomy(model), toy_inputs(model, [9, 3])
        mask = random_mask(anatomy, 2)
        expected = run_gated(anatomy, inputs, mask)
        torch.testing.assert_close(SubNetwork(anatomy)(inputs, mask).logits, expected, **CLOSE)

    def test_all_ones_is_dense(self, model: Any, anatomy: Anatomy, sub: SubNetwork) -> None:
        inputs = toy_inputs(model, [9, 3, 12])
        with torch.no_grad():
            expected = model(**inputs).logits
        full = Mask.full(anatomy, 3)
        assert torch.equal(run_gated(anatomy, inputs, full), expected)
        torch.testing.assert_close(sub(inputs, full).logits, expected, **CLOSE)

    def test_compacted_is_gated_at_the_edges(self, model: Any, anatomy: Anatomy, sub: SubNetwork) -> None:
        inputs = toy_inputs(model, [9, 3, 12])
        with torch.no_grad():
            dense = model(**inputs).logits
        for name, mask in odd_masks(anatomy).items():
            expected = run_gated(anatomy, inputs, mask)
            worst = float((sub(inputs, mask).logits - expected).abs().max())
            assert worst <= 1e-5, name
            assert name == "full" or (expected - dense).abs().max() > 1e-3, f"{name} should matter"

    def test_compacted_is_gated_with_a_mask_each(self, model: Any, anatomy: Anatomy, sub: SubNetwork) -> None:
        masks = list(odd_masks(anatomy).values())
        mask = Mask.stack([masks[i] for i in (8, 1, 0, 8, 5, 1)])
        inputs = toy_inputs(model, [9, 3, 12, 7, 1, 5], extra=1)
        output = sub(inputs, mask)
        torch.testing.assert_close(output.logits, run_gated(anatomy, inputs, mask), **CLOSE)
        assert output.groups == 4

    @settings(suppress_health_check=[HealthCheck.differing_executors])  # inherited by every family
    @given(data=st.data())
    def test_compacted_is_gated_always(self, model: Any, data: st.DataObject) -> None:
        """Random block sizes, orders, masks (shared or one each), lengths, batches and paddings."""
        draw = data.draw
        divisors = st.sampled_from([1, 2, 3, 4, 6, 8, 12, 16, 24, 48])
        order = random_order(draw(st.integers(0, 99), "order"))
        anatomy = Anatomy.of(model, draw(divisors, "block size"), order)
        sizes = draw(st.lists(st.integers(1, 16), min_size=1, max_size=5), "lengths")
        keep = draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), "keep")
        seed = draw(st.integers(0, 999), "seed")
        mask = random_mask(anatomy, draw(st.sampled_from([1, len(sizes)]), "masks"), keep, seed)
        extra, left = draw(st.integers(0, 3), "padding"), draw(st.booleans(), "left")
        inputs = toy_inputs(model, sizes, seed, extra, left)
        expected = run_gated(anatomy, inputs, mask)
        torch.testing.assert_close(SubNetwork(anatomy)(inputs, mask).logits, expected, **CLOSE)

    @pytest.mark.parametrize("keep", [1.0, 0.5, 0.0])
    def test_macs_are_those_computed(self, keep: float) -> None:
        """At a realistic width; what embedding and classifier compute is measured apart and taken off."""
        widths = {"width": 384, "heads": 12} | self.wide
        size = {"hidden_dim": 1536} if self.family == "distilbert" else {"intermediate_size": 1536}
        model = make_model(toy_config(self.family, **widths, **size, max_position_embeddings=160))
        anatomy = toy_anatomy(model, 128)
        sub, mask = SubNetwork(anatomy), random_mask(anatomy, keep=keep)
        for length in (25, 128):
            inputs = toy_inputs(model, [length])

            def outside(inputs: dict[str, torch.Tensor] = inputs) -> None:
                anatomy.family.classify(model, anatomy.family.embed(model.base_model, inputs))

            with torch.inference_mode():
                counted = count_macs(lambda inputs=inputs: sub(inputs, mask)) - count_macs(outside)
            stated = int(CostModel.of(anatomy).masked(mask, lengths(inputs))[0])
            assert counted == pytest.approx(stated, rel=0.001)
            if keep == 1:
                assert stated == CostModel.of(anatomy).dense(length)

    def test_gradient_is_the_finite_difference(self) -> None:
        """Per input, by every gate, in float64."""
        model = toy_model(self.family, **self.changes).double()
        anatomy, inputs = toy_anatomy(model), toy_inputs(model, [9, 3, 12])
        heads, neurons = gate_gradients(anatomy, inputs, None, "margin")
        blocks = anatomy.into_blocks(neurons).sum(-1)
        with torch.no_grad():
            chosen = model(**inputs).logits.argmax(1)

        @torch.no_grad()
        def value(layer: int, kind: int, unit: int, gate: float) -> torch.Tensor:
            shapes = (3, LAYERS, anatomy.num_heads), (3, LAYERS, anatomy.num_blocks)
            gates = [torch.ones(shape, dtype=torch.float64) for shape in shapes]
            gates[kind][:, layer, unit] = gate
            with gated(anatomy, Gates.of(anatomy, *gates)):
                return margin(model(**inputs).logits, chosen)

        step = 1e-4
        for kind, gradients in enumerate((heads, blocks)):
            assert gradients.abs().max() > 1e-2
            for layer in range(LAYERS):
                for unit in range(gradients.shape[2]):
                    up, down = (value(layer, kind, unit, 1 + sign * step) for sign in (1, -1))
                    difference = ((up - down) / (2 * step)).float()
                    torch.testing.assert_close(gradients[:, layer, unit], difference, atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize("name", sorted(set(SCORERS) - {"random"}))  # random draws anew for each input
    def test_padding_changes_nothing(self, model: Any, anatomy: Anatomy, sub: SubNetwork, name: str) -> None:
        inputs = toy_inputs(model, [9, 3, 12], extra=4)
        scorer, cost = make_scorer(name), CostModel.of(anatomy)
        scores = scorer(anatomy, inputs)
        mask = plan_mask(scores, cost, lengths(inputs), 0.5)
        logits = sub(inputs, mask).logits
        for row in range(3):
            alone = one(inputs, row)
            own = scorer(anatomy, alone)
            close = {"atol": 2e-4, "rtol": 1e-3}
            torch.testing.assert_close(scores[row].heads, own.heads, **close)
            torch.testing.assert_close(scores[row].blocks, own.blocks, **close)
            if own.neurons is not None and scores.neurons is not None:
                torch.testing.assert_close(scores[row].neurons, own.neurons, **close)
            assert int(scores.macs[row]) == int(own.macs[0])
            planned = plan_mask(own, cost, lengths(alone), 0.5)
            assert torch.equal(planned.heads, mask[row].heads)
            assert torch.equal(planned.blocks, mask[row].blocks)
            torch.testing.assert_close(sub(alone, planned).logits[0], logits[row], **CLOSE)

    def test_one_mask_never_touches_another_input(
        self, model: Any, anatomy: Anatomy, sub: SubNetwork
    ) -> None:
        inputs = toy_inputs(model, [9, 9, 9])
        mask = random_mask(anatomy, 3, seed=1)
        other = Mask.stack([mask[0], random_mask(anatomy, seed=2), mask[2]])
        before, after = sub(inputs, mask).logits, sub(inputs, other).logits
        torch.testing.assert_close(after[[0, 2]], before[[0, 2]], **CLOSE)
        assert (after[1] - before[1]).abs().max() > 1e-3
        before, after = run_gated(anatomy, inputs, mask), run_gated(anatomy, inputs, other)
        assert torch.equal(after[[0, 2]], before[[0, 2]])
        assert (after[1] - before[1]).abs().max() > 1e-3

    def test_one_input_never_touches_another_scores(self, model: Any, anatomy: Anatomy) -> None:
        inputs = toy_inputs(model, [9, 9])
        other = {name: values.clone() for name, values in inputs.items()}
        other["input_ids"][1] = toy_inputs(model, [9], seed=5)["input_ids"][0]
        before, after = (make_scorer("first_order")(anatomy, batch) for batch in (inputs, other))
        torch.testing.assert_close(after[0].flat(), before[0].flat(), atol=1e-6, rtol=1e-5)
        assert not torch.allclose(after[1].flat(), before[1].flat(), rtol=1e-2)

    @pytest.mark.parametrize("block_size", [1, 6, 48])
    def test_block_size_and_order_change_nothing(self, model: Any, block_size: int) -> None:
        """The same neurons, named through other blocks or another order, give the same logits."""
        inputs = toy_inputs(model, [9, 3])
        ordered = Anatomy.of(model, block_size, random_order(1))
        mask = random_mask(ordered, 2, seed=4)
        single = Anatomy.of(model, 1)  # neuron by neuron, in the model's own order
        same = Mask(mask.heads, ordered.to_neurons(mask.blocks))
        shuffled = Anatomy.of(model, 1, random_order(2))
        again = Mask(mask.heads, shuffled.into_blocks(same.blocks)[..., 0])
        expected = run_gated(single, inputs, same)
        for anatomy, chosen in ((ordered, mask), (single, same), (shuffled, again)):
            torch.testing.assert_close(SubNetwork(anatomy)(inputs, chosen).logits, expected, **CLOSE)
            torch.testing.assert_close(run_gated(anatomy, inputs, chosen), expected, **CLOSE)

    def test_gradients_do_not_depend_on_the_order(self, model: Any) -> None:
        inputs = toy_inputs(model, [9, 3])
        plain, shuffled = (
            gate_gradients(Anatomy.of(model, 8, order), inputs, None, "margin")
            for order in (None, random_order(3))
        )
        assert torch.equal(plain[0], shuffled[0])
        assert torch.equal(plain[1], shuffled[1])

    def test_model_is_restored_after_an_exception(
        self, model: Any, anatomy: Anatomy, sub: SubNetwork
    ) -> None:
        inputs = toy_inputs(model, [4, 4])
        broken = inputs | {"input_ids": inputs["input_ids"] + 10_000}
        mask = random_mask(anatomy)
        for make in (lambda: gated(anatomy, mask), lambda: captured(anatomy)):
            with pytest.raises(ZeroDivisionError), make():
                raise ZeroDivisionError
            with pytest.raises(IndexError), make():
                model(**broken)
            assert hook_count(model) == 0
        for name in set(SCORERS) - {"random"}:  # which looks at no input
            with pytest.raises(IndexError):
                make_scorer(name)(anatomy, broken)
            assert hook_count(model) == 0
        with pytest.raises(IndexError):
            DynamicPruner(sub)(broken)
        with pytest.raises(LabError, match="gates for 3 inputs and a batch of 2"):
            run_gated(anatomy, inputs, random_mask(anatomy, 3))

    def test_everything_leaves_no_gradient_behind(self, model: Any, anatomy: Anatomy) -> None:
        for name in SCORERS:
            make_scorer(name)(anatomy, toy_inputs(model, [4, 4]))
        assert all(parameter.grad is None for parameter in model.parameters())


class TestBert(FamilySuite):
    family = "bert"


class TestRoberta(FamilySuite):
    family = "roberta"
    changes: ClassVar[dict[str, Any]] = {"heads": 2}


class TestElectra(FamilySuite):
    """Embeddings narrower than the encoder, as in the small ELECTRA."""

    family = "electra"


class TestElectraBase(FamilySuite):
    """Embeddings as wide as the encoder, as in the base ELECTRA; another activation."""

    family = "electra"
    changes: ClassVar[dict[str, Any]] = {"embedding_size": 32, "hidden_act": "gelu_new"}
    wide: ClassVar[dict[str, Any]] = {"embedding_size": 384}


class TestDistilBert(FamilySuite):
    family = "distilbert"
    changes: ClassVar[dict[str, Any]] = {"activation": "relu"}
