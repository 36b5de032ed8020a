"""Neuron orders: permutations that put alike neurons together, and blocks that follow them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import LAYERS, NEURONS, random_order, toy_inputs, toy_model

from dsgp_lab import Anatomy, captured
from dsgp_lab.ordering import by_coactivation, by_importance, coactivation_order

MODEL = toy_model("bert")


def is_permutation(order: torch.Tensor) -> bool:
    return torch.equal(order.sort(-1).values, torch.arange(order.shape[-1]).expand(order.shape))


@given(st.integers(0, 999), st.sampled_from([1, 2, 6, 16, 48]))
def test_blocks_and_neurons_are_two_ways_to_say_the_same(seed: int, block_size: int) -> None:
    anatomy = Anatomy.of(MODEL, block_size, random_order(seed))
    values = torch.randn(2, LAYERS, anatomy.num_blocks, generator=torch.Generator().manual_seed(seed))
    spread = anatomy.to_neurons(values)
    assert spread.shape == (2, LAYERS, NEURONS)
    blocks = anatomy.into_blocks(spread)
    assert blocks.shape == (2, LAYERS, anatomy.num_blocks, block_size)
    assert torch.equal(blocks, values[..., None].expand(blocks.shape))
    for layer in range(LAYERS):  # and by hand
        for block in range(anatomy.num_blocks):
            members = anatomy.order[layer, block * block_size : (block + 1) * block_size]
            assert (spread[:, layer, members] == values[:, layer, block, None]).all()


def test_by_importance() -> None:
    scores = torch.randn(LAYERS, NEURONS, generator=torch.Generator().manual_seed(0))
    order = by_importance(scores)
    assert is_permutation(order)
    ranked = scores.gather(1, order)
    assert (ranked[:, :-1] >= ranked[:, 1:]).all()
    blocks = Anatomy.of(MODEL, 8, order).into_blocks(scores[None])[0]
    assert (blocks.min(-1).values[:, :-1] >= blocks.max(-1).values[:, 1:]).all()
    assert torch.equal(by_importance(torch.ones(1, 5)), torch.arange(5)[None])


def test_by_coactivation_finds_the_groups() -> None:
    """Three hidden groups of four neurons, shuffled, with noise: each comes out side by side."""
    generator = torch.Generator().manual_seed(0)
    causes = torch.randn(200, 3, generator=generator)
    group = torch.arange(12) % 3
    activations = causes[:, group] + 0.1 * torch.randn(200, 12, generator=generator)
    order = by_coactivation(activations)
    assert is_permutation(order)
    assert sorted(len(group[order[i : i + 4]].unique()) for i in (0, 4, 8)) == [1, 1, 1]


def test_silent_neurons_are_no_trouble() -> None:
    activations = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    activations[:, [1, 4]] = 0.0
    assert is_permutation(by_coactivation(activations))


def test_coactivation_order_reads_real_tokens_of_every_layer() -> None:
    anatomy = Anatomy.of(MODEL, 8)
    batches = [toy_inputs(MODEL, [9, 4], seed=1, extra=3), toy_inputs(MODEL, [7], seed=2)]
    order = coactivation_order(anatomy, batches)
    assert order.shape == (LAYERS, NEURONS)
    assert is_permutation(order)
    rows = []
    for batch in batches:
        with torch.no_grad(), captured(anatomy) as captures:
            MODEL(**batch)
        rows.append(captures.activations[1][batch["attention_mask"].bool()])
    assert torch.cat(rows).shape == (20, NEURONS)
    assert torch.equal(order[1], by_coactivation(torch.cat(rows)))
    assert Anatomy.of(MODEL, 8, order).num_blocks == 6


@pytest.mark.parametrize("number", [1, 7, 48])
def test_divisors(number: int) -> None:
    from dsgp_lab.anatomy.base import divisors

    assert divisors(number) == [d for d in range(1, number + 1) if number % d == 0]
