"""Gates and captures: they multiply, they end, they keep to their thread."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from toys import hook_count, random_mask, toy_anatomy, toy_inputs, toy_model

from dsgp_lab import Anatomy, LabError, Mask, SubNetwork, attention_weights, captured, gated
from dsgp_lab.gates import Gates

MODEL = toy_model("bert")
ANATOMY = toy_anatomy(MODEL)
INPUTS = toy_inputs(MODEL, [9, 3, 12])


@pytest.fixture(autouse=True)
def _no_hooks_left() -> Iterator[None]:
    yield
    assert hook_count(MODEL) == 0


@torch.no_grad()
def logits() -> torch.Tensor:
    return MODEL(**INPUTS).logits


def random_gates(seed: int, batch: int = 3) -> Gates:
    generator = torch.Generator().manual_seed(seed)
    heads, blocks = (
        torch.rand(batch, ANATOMY.num_layers, units, generator=generator)
        for units in (ANATOMY.num_heads, ANATOMY.num_blocks)
    )
    return Gates.of(ANATOMY, heads, blocks)


def test_nested_gates_multiply() -> None:
    first, second = random_gates(1), random_gates(2, batch=1)
    product = Gates(first.heads * second.heads, first.neurons * second.neurons)
    with gated(ANATOMY, first), gated(ANATOMY, second):
        nested = logits()
    with gated(ANATOMY, product):
        torch.testing.assert_close(nested, logits(), atol=1e-5, rtol=0)
    assert (nested - logits()).abs().max() > 1e-2


def test_nested_masks_keep_what_both_keep() -> None:
    first, second = random_mask(ANATOMY, 3, 0.8, 1), random_mask(ANATOMY, 1, 0.8, 2)
    with gated(ANATOMY, first), gated(ANATOMY, second):
        nested = logits()
    torch.testing.assert_close(SubNetwork(ANATOMY)(INPUTS, first & second).logits, nested, atol=1e-5, rtol=0)


def test_an_inner_exception_leaves_the_outer_gate() -> None:
    mask = random_mask(ANATOMY)
    with gated(ANATOMY, mask):
        expected = logits()
        with pytest.raises(KeyError), gated(ANATOMY, ~mask), captured(ANATOMY):
            raise KeyError
        assert torch.equal(logits(), expected)


def test_a_gate_multiplies_its_own_unit_only() -> None:
    """A gate of 0.25 on head 2 and block 1 of layer 1, seen in what enters the output projections."""
    heads, blocks = torch.ones(1, 3, ANATOMY.num_heads), torch.ones(1, 3, ANATOMY.num_blocks)
    heads[0, 1, 2], blocks[0, 1, 1] = 0.25, 0.25
    with captured(ANATOMY) as before:
        logits()
    with gated(ANATOMY, Gates.of(ANATOMY, heads, blocks)), captured(ANATOMY) as after:
        logits()
    assert torch.equal(before.contexts[0], after.contexts[0])
    assert torch.equal(before.activations[0], after.activations[0])
    expected = before.contexts[1].clone()
    expected[:, :, 2] *= 0.25
    assert torch.equal(after.contexts[1], expected)
    gated_neurons = ANATOMY.order[1, ANATOMY.block_size : 2 * ANATOMY.block_size]
    with gated(ANATOMY, Gates.of(ANATOMY, heads, torch.ones_like(blocks))), captured(ANATOMY) as only_head:
        logits()
    expected = only_head.activations[1].clone()
    expected[..., gated_neurons] *= 0.25
    assert torch.equal(after.activations[1], expected)


def test_captures_are_what_the_layers_see() -> None:
    """Contexts times the output weights, plus bias, are the module's own output; likewise the neurons."""
    outputs: dict[str, torch.Tensor] = {}
    layer = MODEL.bert.encoder.layer[1]
    handles = [
        module.register_forward_hook(lambda _m, _i, out, name=name: outputs.update({name: out}))
        for name, module in (("attention", layer.attention.output.dense), ("ffn", layer.output.dense))
    ]
    with captured(MODEL) as captures:
        logits()
    for handle in handles:
        handle.remove()
    assert [len(part) for part in (captures.contexts, captures.activations, captures.hidden)] == [3, 3, 3]
    parts = ANATOMY.layers[1]
    attention = captures.contexts[1].flatten(2) @ parts.attention_out.weight.T + parts.attention_out.bias
    torch.testing.assert_close(attention, outputs["attention"])
    ffn = captures.activations[1] @ parts.ffn_out.weight.T + parts.ffn_out.bias
    torch.testing.assert_close(ffn, outputs["ffn"])
    assert captures.hidden[0].shape == (3, 12, 32)


def in_threads(*jobs: Callable[[], None]) -> None:
    """Run jobs at once, switching between them as often as Python can; raise what they raise."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(len(jobs)) as pool:
            for done in [pool.submit(job) for job in jobs]:
                done.result()
    finally:
        sys.setswitchinterval(interval)


def test_two_threads_share_one_model() -> None:
    """Each thread gets the logits of its own mask; a third one, with no gates, the dense ones."""
    masks = [random_mask(ANATOMY, 3, 0.5, 1), random_mask(ANATOMY, 3, 0.5, 2)]
    sub, expected, dense = SubNetwork(ANATOMY), [], logits()
    for mask in masks:
        with gated(ANATOMY, mask):
            expected.append(logits())
    assert (expected[0] - expected[1]).abs().max() > 1e-2
    barrier = threading.Barrier(3)

    def pruned(number: int) -> None:
        barrier.wait()
        for _ in range(25):
            with gated(ANATOMY, masks[number]), captured(ANATOMY) as captures:
                assert torch.equal(logits(), expected[number])
            assert len(captures.contexts) == ANATOMY.num_layers
            own = sub(INPUTS, masks[number]).logits
            torch.testing.assert_close(own, expected[number], atol=1e-5, rtol=0)

    def plain() -> None:
        barrier.wait()
        for _ in range(50):
            assert torch.equal(logits(), dense)

    in_threads(lambda: pruned(0), lambda: pruned(1), plain)


def test_gradients_in_two_threads_at_once() -> None:
    from dsgp_lab.sensitivity import FirstOrder

    scorers = FirstOrder(), FirstOrder("log_probability", signed=True)
    expected = [scorer(ANATOMY, INPUTS).flat() for scorer in scorers]

    def score(number: int) -> None:
        for _ in range(10):
            assert torch.equal(scorers[number](ANATOMY, INPUTS).flat(), expected[number])

    in_threads(lambda: score(0), lambda: score(1))


@pytest.mark.parametrize("shape", [(1, 3, 5), (1, 2, 4), (1, 3, 1)])
def test_gates_of_the_wrong_shape(shape: tuple[int, int, int]) -> None:
    gates = Gates(torch.ones(shape), torch.ones(1, 3, 48))
    message = (
        r"gates on heads \[\d, \d\] and neurons \[3, 48\].*Allowed: heads \[3, 4\] and neurons \[3, 48\]"
    )
    with pytest.raises(LabError, match=message), gated(ANATOMY, gates):
        pass


def test_masks_of_the_wrong_shape() -> None:
    mask = random_mask(ANATOMY)
    message = r"blocks \[3, 6\].*heads \[3, 4\] and blocks \[3, 1\] for this model"
    with pytest.raises(LabError, match=message), gated(MODEL, mask):  # one block a layer by itself
        pass
    with pytest.raises(LabError, match="gates for 2 inputs and a batch of 3"), gated(ANATOMY, mask[[0, 0]]):
        logits()


def test_one_row_of_gates_serves_every_input() -> None:
    mask = random_mask(ANATOMY)
    with gated(ANATOMY, mask):
        shared = logits()
    with gated(ANATOMY, mask[[0, 0, 0]]):
        assert torch.equal(logits(), shared)


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "distilbert"])
def test_attention_weights_are_those_of_the_eager_model(family: str) -> None:
    fused, eager = (toy_model(family, attention=attention) for attention in ("sdpa", "eager"))
    inputs = toy_inputs(fused, [9, 3, 12], extra=2)
    with torch.no_grad():
        expected = torch.stack(eager(**inputs, output_attentions=True).attentions, dim=1)
    weights = attention_weights(fused, inputs)
    assert weights.shape == (3, 3, 4, 14, 14)
    torch.testing.assert_close(weights, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 3, 4, 14))
    padding = (inputs["attention_mask"] == 0)[:, None, None, None, :].expand_as(weights)
    assert (weights[padding] == 0).all()
    assert (weights[~padding] > 0).all()


def test_a_full_mask_by_gates_is_bitwise_dense() -> None:
    with gated(Anatomy.of(MODEL), Mask.full(Anatomy.of(MODEL))):
        gated_logits = logits()
    assert torch.equal(gated_logits, logits())
