"""Mask: its algebra, groups and checks."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import random_mask, toy_anatomy, toy_model

from dsgp_lab import LabError, Mask

ANATOMY = toy_anatomy(toy_model("bert"))

masks = st.builds(
    lambda batch, keep, seed: random_mask(ANATOMY, batch, keep, seed),
    st.integers(1, 6),
    st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]),
    st.integers(0, 999),
)


def same(a: Mask, b: Mask) -> bool:
    return torch.equal(a.heads, b.heads) and torch.equal(a.blocks, b.blocks)


@given(masks, st.integers(0, 999))
def test_algebra(a: Mask, seed: int) -> None:
    b = random_mask(ANATOMY, len(a), 0.5, seed)
    full = Mask.full(ANATOMY, len(a))
    assert same(~~a, a)
    assert same(a | ~a, full)
    assert same(a & ~a, ~full)
    assert same(~(a | b), ~a & ~b)
    assert torch.equal(a.overlap(b), b.overlap(a))
    assert ((a.overlap(b) >= 0) & (a.overlap(b) <= 1)).all()
    torch.testing.assert_close(a.keep_share + (~a).keep_share, torch.ones(len(a)))


@given(masks)
def test_groups_are_a_partition_by_equality(mask: Mask) -> None:
    mask = Mask.stack([mask, mask[0], mask[len(mask) - 1]])
    groups = mask.groups()
    assert sorted(row for _, rows in groups for row in rows) == list(range(len(mask)))
    assert [rows[0] for _, rows in groups] == sorted(rows[0] for _, rows in groups)
    for shared, rows in groups:
        assert all(same(mask[row], shared) for row in rows)
    firsts = [shared for shared, _ in groups]
    assert not any(same(a, b) for i, a in enumerate(firsts) for b in firsts[:i])


def test_groups_of_two() -> None:
    first, second = random_mask(ANATOMY, seed=1), random_mask(ANATOMY, seed=2)
    for masks, rows in (([first, second], [[0], [1]]), ([first, first], [[0, 1]])):
        groups = Mask.stack(masks).groups()
        assert [found for _, found in groups] == rows
        assert all(len(shared) == 1 for shared, _ in groups)


def test_overlap_of_a_single_unit() -> None:
    one = Mask(torch.tensor([[[True, False]]]), torch.tensor([[[False]]]))
    assert one.overlap(one).tolist() == [1.0]


def test_groups_of_one() -> None:
    mask = random_mask(ANATOMY)
    assert [(same(shared, mask), rows) for shared, rows in mask.groups()] == [(True, [0])]


def test_share_and_overlap_by_hand() -> None:
    a = Mask(torch.tensor([[[True, False], [True, True]]]), torch.tensor([[[False], [True]]]))
    b = Mask(torch.tensor([[[True, True], [False, True]]]), torch.tensor([[[False], [False]]]))
    assert a.keep_share.tolist() == pytest.approx([4 / 6])
    assert a.overlap(b).tolist() == pytest.approx([2 / 5])
    empty = a & ~a
    assert empty.overlap(empty).tolist() == [0.0]
    assert repr(a) == "Mask of 1 input: 3 of 4 heads, 1 of 2 blocks run"
    assert repr(Mask.stack([a, b])) == "Mask of 2 inputs: 3 of 4 heads, 0.5 of 2 blocks run"


@given(masks)
def test_json_round_trip(mask: Mask) -> None:
    assert same(Mask.from_dict(json.loads(json.dumps(mask.to_dict()))), mask)


def test_rows() -> None:
    mask = random_mask(ANATOMY, 4)
    assert len(mask) == 4
    assert len(mask[1]) == 1
    assert same(mask[-1], mask[3])
    assert same(Mask.stack([mask[:2], mask[[2, 3]]]), mask)
    assert same(mask[torch.tensor([1, 0])], Mask.stack([mask[1], mask[0]]))


@pytest.mark.parametrize(
    ("heads", "blocks", "message"),
    [
        (
            torch.ones(1, 2, 3),
            torch.ones(1, 2, 3).bool(),
            r"heads of type torch\.float32 and shape \[1, 2, 3\]",
        ),
        (
            torch.ones(2, 3).bool(),
            torch.ones(1, 2, 3).bool(),
            r"shape \[2, 3\].*a bool tensor \[batch, layers",
        ),
        (torch.ones(1, 2, 3).bool(), torch.ones(1, 2, 3).int(), r"blocks of type torch\.int32"),
        (torch.ones(1, 2, 3).bool(), torch.ones(2, 2, 3).bool(), "the same batch and layers in both"),
        (torch.ones(1, 2, 3).bool(), torch.ones(1, 3, 3).bool(), "the same batch and layers in both"),
    ],
)
def test_what_is_no_mask(heads: torch.Tensor, blocks: torch.Tensor, message: str) -> None:
    with pytest.raises(LabError, match=message):
        Mask(heads, blocks)


def test_check_fits() -> None:
    mask = random_mask(ANATOMY, 2)
    mask.check_fits(ANATOMY)
    mask.check_fits(ANATOMY, 2)
    mask[0].check_fits(ANATOMY, 5)
    with pytest.raises(LabError, match=r"2 masks for 3 inputs.*pass mask\[0\]"):
        mask.check_fits(ANATOMY, 3)
    fewer_layers = Mask(mask.heads[:, :2], mask.blocks[:, :2])
    with pytest.raises(
        LabError, match=r"heads \[2, 4\] and blocks \[2, 6\].*heads \[3, 4\] and blocks \[3, 6\]"
    ):
        fewer_layers.check_fits(ANATOMY)
