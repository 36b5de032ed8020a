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
from dsgp_lab.anatomy import matrix
from dsgp_lab.decoder import make_subnetwork
from dsgp_lab.gates import Gates
from dsgp_lab.generation import generate
from dsgp_lab.sensitivity import SCORERS, lengths, make_scorer
from dsgp_lab.sensitivity.first_order import gate_gradients
from dsgp_lab.sensitivity.targets import TargetName, margin


@torch.no_grad()
def run_gated(anatomy: Anatomy, inputs: dict[str, torch.Tensor], mask: Mask) -> torch.Tensor:
    with gated(anatomy, mask):
        return anatomy.logits(inputs)


class FamilySuite(ABC):
    """What holds for every family; a subclass names the family and may change its configuration."""

    family: ClassVar[str]
    changes: ClassVar[dict[str, Any]] = {}
    wide: ClassVar[dict[str, Any]] = {}
    """Changes for a model of realistic width."""
    close: ClassVar[dict[str, float]] = {"atol": 1e-5, "rtol": 0.0}
    target: ClassVar[TargetName] = "margin"
    step: ClassVar[float] = 1e-4
    difference: ClassVar[dict[str, float]] = {"atol": 1e-5, "rtol": 1e-4}
    """Step and tolerance of finite differences in float64."""

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
    def sub(cls, anatomy: Anatomy) -> Any:
        return make_subnetwork(anatomy)

    def test_all_ones_is_dense(self, model: Any, anatomy: Anatomy, sub: Any) -> None:
        inputs = toy_inputs(model, [9, 3, 12])
        with torch.no_grad():
            expected = anatomy.logits(inputs)
        full = Mask.full(anatomy, 3)
        assert torch.equal(run_gated(anatomy, inputs, full), expected)
        torch.testing.assert_close(sub(inputs, full).logits, expected, **self.close)

    def test_compacted_is_gated_at_the_edges(self, model: Any, anatomy: Anatomy, sub: Any) -> None:
        inputs = toy_inputs(model, [9, 3, 12])
        with torch.no_grad():
            dense = anatomy.logits(inputs)
        for name, mask in odd_masks(anatomy).items():
            expected = run_gated(anatomy, inputs, mask)
            worst = float((sub(inputs, mask).logits - expected).abs().max())
            assert worst <= self.close["atol"], name
            assert name == "full" or (expected - dense).abs().max() > 1e-3, f"{name} should matter"

    def test_compacted_is_gated_with_a_mask_each(self, model: Any, anatomy: Anatomy, sub: Any) -> None:
        masks = list(odd_masks(anatomy).values())
        mask = Mask.stack([masks[i] for i in (8, 1, 0, 8, 5, 1)])
        inputs = toy_inputs(model, [9, 3, 12, 7, 1, 5], extra=1)
        output = sub(inputs, mask)
        torch.testing.assert_close(output.logits, run_gated(anatomy, inputs, mask), **self.close)
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
        torch.testing.assert_close(make_subnetwork(anatomy)(inputs, mask).logits, expected, **self.close)

    def test_gradient_is_the_finite_difference(self) -> None:
        """Per input, by every gate, in float64."""
        model = toy_model(self.family, **self.changes).double()
        anatomy, inputs = toy_anatomy(model), toy_inputs(model, [9, 3, 12])
        heads, neurons = gate_gradients(anatomy, inputs, None, self.target)
        blocks = anatomy.into_blocks(neurons).sum(-1)
        with torch.no_grad():
            chosen = anatomy.logits(inputs).argmax(1)

        @torch.no_grad()
        def value(layer: int, kind: int, unit: int, gate: float) -> torch.Tensor:
            shapes = (3, LAYERS, anatomy.num_heads), (3, LAYERS, anatomy.num_blocks)
            gates = [torch.ones(shape, dtype=torch.float64) for shape in shapes]
            gates[kind][:, layer, unit] = gate
            with gated(anatomy, Gates.of(anatomy, *gates)):
                logits = anatomy.logits(inputs)
            if self.target == "log_probability":
                return logits.log_softmax(1).gather(1, chosen[:, None])[:, 0]
            return margin(logits, chosen)

        for kind, gradients in enumerate((heads, blocks)):
            assert gradients.abs().max() > 1e-2
            for layer in range(LAYERS):
                for unit in range(gradients.shape[2]):
                    up, down = (value(layer, kind, unit, 1 + sign * self.step) for sign in (1, -1))
                    difference = ((up - down) / (2 * self.step)).float()
                    torch.testing.assert_close(gradients[:, layer, unit], difference, **self.difference)

    @pytest.mark.parametrize("name", sorted(set(SCORERS) - {"random"}))  # random draws anew for each input
    def test_padding_changes_nothing(self, model: Any, anatomy: Anatomy, sub: Any, name: str) -> None:
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
            torch.testing.assert_close(sub(alone, planned).logits[0], logits[row], **self.close)

    def test_one_mask_never_touches_another_input(self, model: Any, anatomy: Anatomy, sub: Any) -> None:
        inputs = toy_inputs(model, [9, 9, 9])
        mask = random_mask(anatomy, 3, seed=1)
        other = Mask.stack([mask[0], random_mask(anatomy, seed=2), mask[2]])
        before, after = sub(inputs, mask).logits, sub(inputs, other).logits
        torch.testing.assert_close(after[[0, 2]], before[[0, 2]], **self.close)
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
            torch.testing.assert_close(
                make_subnetwork(anatomy)(inputs, chosen).logits, expected, **self.close
            )
            torch.testing.assert_close(run_gated(anatomy, inputs, chosen), expected, **self.close)

    def test_gradients_do_not_depend_on_the_order(self, model: Any) -> None:
        inputs = toy_inputs(model, [9, 3])
        plain, shuffled = (
            gate_gradients(Anatomy.of(model, 8, order), inputs, None, "margin")
            for order in (None, random_order(3))
        )
        assert torch.equal(plain[0], shuffled[0])
        assert torch.equal(plain[1], shuffled[1])

    def test_model_is_restored_after_an_exception(self, model: Any, anatomy: Anatomy, sub: Any) -> None:
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


class EncoderSuite(FamilySuite):
    """What holds for encoders, classifiers of any number of labels."""

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
        torch.testing.assert_close(SubNetwork(toy_anatomy(model)).dense(inputs), expected, **self.close)

    @pytest.mark.parametrize("labels", [1, 2, 3])
    def test_compacted_is_gated_for_any_number_of_labels(self, labels: int) -> None:
        model = toy_model(self.family, labels, "eager", **self.changes)
        anatomy, inputs = toy_anatomy(model), toy_inputs(model, [9, 3])
        mask = random_mask(anatomy, 2)
        expected = run_gated(anatomy, inputs, mask)
        torch.testing.assert_close(SubNetwork(anatomy)(inputs, mask).logits, expected, **self.close)

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


class DecoderSuite(FamilySuite):
    """What holds for language models: every token's logits, with a KV cache and without."""

    groups: ClassVar[int] = 2
    joined: ClassVar[bool] = False
    close: ClassVar[dict[str, float]] = {"atol": 1e-4, "rtol": 0.0}  # logits are about 10
    target = "log_probability"  # among 64 tokens the runner-up, and so the margin, changes often
    step = 3e-3  # the norms compute in float32 whatever the model's type
    difference: ClassVar[dict[str, float]] = {"atol": 3e-3, "rtol": 1e-2}

    def test_anatomy(self, model: Any, anatomy: Anatomy) -> None:
        assert (anatomy.num_layers, anatomy.num_neurons, anatomy.num_blocks) == (LAYERS, NEURONS, 6)
        assert (anatomy.num_heads, anatomy.hidden_size) == (self.groups, 32)
        assert anatomy.num_heads * anatomy.queries_per_head == model.config.num_attention_heads == 4
        assert anatomy.family.model_type == model.config.model_type
        assert Anatomy.of(anatomy) is anatomy

    def test_units_are_where_the_table_says(self, anatomy: Anatomy) -> None:
        for layer in anatomy.layers:
            context = anatomy.num_heads * anatomy.context_dim
            assert tuple(matrix(layer.attention_out).shape) == (32, context)
            assert tuple(matrix(layer.ffn_out).shape) == (32, NEURONS)
            assert tuple(matrix(layer.ffn_in).shape) == (NEURONS, 32)
            assert (layer.ffn_gate is not None) == (anatomy.ffn_matrices == 3)
            rows = 3 * context if self.joined else context
            assert tuple(matrix(layer.query).shape) == (rows, 32)

    @pytest.mark.parametrize("attention", ["sdpa", "eager"])
    @pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
    def test_lean_dense_run_is_transformers_own(self, attention: str, left: bool) -> None:
        """At every token, padding on either side."""
        model = toy_model(self.family, attention=attention, **self.changes)
        inputs, sub = toy_inputs(model, [9, 3, 12, 1], left=left, extra=2), make_subnetwork(model)
        with torch.no_grad():
            expected = sub.family.all_logits(model, inputs)
        real = inputs["attention_mask"].bool()
        torch.testing.assert_close(sub.all_logits(inputs, sub.whole)[real], expected[real], **self.close)

    def test_every_tokens_compacted_logits_are_the_gated_ones(
        self, model: Any, anatomy: Anatomy, sub: Any
    ) -> None:
        inputs = toy_inputs(model, [9, 3, 12], left=True)
        real = inputs["attention_mask"].bool()
        for name, mask in odd_masks(anatomy).items():
            with torch.no_grad(), gated(anatomy, mask):
                expected = sub.family.all_logits(model, inputs)
            got = sub.all_logits(inputs, sub.select(mask))
            assert float((got - expected)[real].abs().max()) <= 1e-4, name

    def test_with_the_cache_every_step_is_the_gated_run(self, model: Any, anatomy: Anatomy, sub: Any) -> None:
        """Left padding, masks at the edges, six steps: against transformers without a cache, gated."""
        inputs, steps = toy_inputs(model, [9, 3, 12], left=True), 6
        for name, mask in odd_masks(anatomy).items():
            cut = sub.select(mask)
            cache = sub.new_cache(cut, 3, 12 + steps)
            logits = sub.head(sub.prefill(inputs, cut, cache)[:, -1])
            grown = dict(inputs)
            for _ in range(steps):
                chosen = logits.argmax(-1)
                more = {"input_ids": chosen, "attention_mask": torch.ones_like(chosen)}
                grown = {key: torch.cat([grown[key], more[key][:, None]], 1) for key in more}
                logits = sub.step(chosen, cut, cache)
                expected = run_gated(anatomy, grown, mask)
                assert float((logits - expected).abs().max()) <= 1e-4, name

    def test_generation_is_transformers_own(self, model: Any, sub: Any) -> None:
        inputs = toy_inputs(model, [9, 3, 12], left=True)
        limits = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        with torch.no_grad():
            expected = model.generate(**inputs, **limits)[:, 12:]
        made = generate(sub, inputs, max_new_tokens=8)
        assert [list(row) for row in made.tokens] == expected.tolist()
        right = toy_inputs(model, [9, 3, 12])
        assert generate(sub, right, max_new_tokens=8).tokens == made.tokens
        assert made.steps == 7

    def test_generation_under_a_mask_is_the_gated_one(self, model: Any, anatomy: Anatomy, sub: Any) -> None:
        inputs = toy_inputs(model, [9])
        limits = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        for mask in odd_masks(anatomy).values():
            with torch.no_grad(), gated(anatomy, mask):
                expected = model.generate(**inputs, **limits)[0, 9:].tolist()
            assert list(generate(sub, inputs, sub.select(mask), 8).tokens[0]) == expected

    def test_the_cut_is_smaller(self, anatomy: Anatomy, sub: Any) -> None:
        """Weights and cache hold the kept units and nothing else."""
        mask = random_mask(anatomy, seed=5)
        cut = sub.select(mask)
        cache = sub.new_cache(cut, 1, 10)
        for index, (weights, whole) in enumerate(zip(cut, sub.whole, strict=True)):
            heads, blocks = int(mask.heads[0, index].sum()), int(mask.blocks[0, index].sum())
            assert weights.out.numel() == whole.out.numel() // anatomy.num_heads * heads
            assert weights.qkv.numel() == whole.qkv.numel() // anatomy.num_heads * heads
            assert weights.ffn_out.numel() == blocks * anatomy.block_size * 32
            assert weights.ffn_in.numel() == weights.ffn_out.numel() * (anatomy.ffn_matrices - 1)
            assert cache.keys[index].shape == (1, heads, 10, anatomy.head_dim)
        assert sum(part.num_bytes for part in cut) < sum(part.num_bytes for part in sub.whole)

    @pytest.mark.parametrize("keep", [1.0, 0.5, 0.0])
    def test_macs_are_those_computed(self, keep: float) -> None:
        """At a realistic width, without the language-model head."""
        sizes = {"width": 384, "heads": 12, "intermediate_size": 1536, "max_position_embeddings": 160}
        anatomy = toy_anatomy(make_model(toy_config(self.family, **sizes | self.wide)), 128)
        sub, mask = make_subnetwork(anatomy), random_mask(anatomy, keep=keep)
        cut = sub.select(mask)
        for length in (25, 128):
            inputs = toy_inputs(anatomy.model, [length])
            counted = count_macs(lambda inputs=inputs: sub.prefill(inputs, cut))
            stated = int(CostModel.of(anatomy).masked(mask, lengths(inputs))[0])
            assert counted == pytest.approx(stated, rel=0.001)

    def test_bfloat16(self) -> None:
        model = toy_model(self.family, **self.changes).to(torch.bfloat16)
        anatomy, inputs = toy_anatomy(model), toy_inputs(model, [9, 3])
        mask = random_mask(anatomy)
        got, expected = make_subnetwork(anatomy)(inputs, mask).logits, run_gated(anatomy, inputs, mask)
        assert got.dtype == torch.bfloat16
        assert (got - expected).abs().max() <= 0.05 * expected.abs().max()

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
    def test_on_a_gpu(self) -> None:
        model = toy_model(self.family, **self.changes).to("cuda")
        anatomy = toy_anatomy(model)
        inputs = {name: values.to("cuda") for name, values in toy_inputs(model, [9, 3]).items()}
        mask = random_mask(anatomy)
        sub = make_subnetwork(anatomy)
        expected = run_gated(anatomy, inputs, mask)
        torch.testing.assert_close(sub(inputs, mask).logits, expected, atol=1e-4, rtol=0)
        assert generate(sub, inputs, sub.select(mask), 4).steps == 3


class TestBert(EncoderSuite):
    family = "bert"


class TestRoberta(EncoderSuite):
    family = "roberta"
    changes: ClassVar[dict[str, Any]] = {"heads": 2}


class TestElectra(EncoderSuite):
    """Embeddings narrower than the encoder, as in the small ELECTRA."""

    family = "electra"


class TestElectraBase(EncoderSuite):
    """Embeddings as wide as the encoder, as in the base ELECTRA; another activation."""

    family = "electra"
    changes: ClassVar[dict[str, Any]] = {"embedding_size": 32, "hidden_act": "gelu_new"}
    wide: ClassVar[dict[str, Any]] = {"embedding_size": 384}


class TestDistilBert(EncoderSuite):
    family = "distilbert"
    changes: ClassVar[dict[str, Any]] = {"activation": "relu"}


class TestLlama(DecoderSuite):
    family = "llama"


class TestGpt2(DecoderSuite):
    """Every query head has a key of its own; attention is scaled by layer, as some GPT-2s do."""

    family = "gpt2"
    groups = 4
    joined = True
    changes: ClassVar[dict[str, Any]] = {"scale_attn_by_inverse_layer_idx": True}


class TestMistral(DecoderSuite):
    """A window shorter than the inputs."""

    family = "mistral"
    changes: ClassVar[dict[str, Any]] = {"sliding_window": 5}


class TestQwen2(DecoderSuite):
    """Windows in the upper layers only."""

    family = "qwen2"
    changes: ClassVar[dict[str, Any]] = {
        "use_sliding_window": True,
        "sliding_window": 4,
        "max_window_layers": 1,
    }


class TestQwen3(DecoderSuite):
    family = "qwen3"
    changes: ClassVar[dict[str, Any]] = {"attention_bias": True}


class TestGemma(DecoderSuite):
    """One group for all queries, as in the small Gemma."""

    family = "gemma"
    groups = 1
    changes: ClassVar[dict[str, Any]] = {"num_key_value_heads": 1}
