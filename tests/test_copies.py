"""Copies of masks that come again: who gets one, who must leave, and the limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsgp_lab.copies import COUNTED, Copies


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 50)), max_size=200), st.integers(0, 120))
def test_the_limit_holds_and_no_key_gets_anothers_copy(calls: list[tuple[int, int]], limit: int) -> None:
    copies: Copies[str] = Copies(limit)
    sizes: dict[int, int] = {}
    for key, size in calls:
        size = sizes.setdefault(key, size)
        assert copies.get(key, lambda size=size: size, lambda key=key: f"copy of {key}") in (
            None,
            f"copy of {key}",
        )
        assert copies.statistics().held_bytes <= limit


def test_a_copy_is_made_once() -> None:
    copies: Copies[object] = Copies(100)
    made = [copies.get("a", lambda: 50, object) for _ in range(5)]
    assert made[0] is None
    assert made[1] is not None
    assert len({id(copy) for copy in made[1:]}) == 1
    done = copies.statistics()
    assert (done.made, done.found, done.held_bytes) == (1, 3, 50)


def test_many_rare_keys_do_not_drive_out_a_frequent_one() -> None:
    copies: Copies[str] = Copies(100)
    for _ in range(10):
        copies.get("often", lambda: 100, lambda: "often")
    for rare in range(50):
        for _ in range(3):
            assert copies.get(rare, lambda: 100, lambda: "rare") is None
    for _ in range(20):
        found = copies.get("more often", lambda: 100, lambda: "more often")
    assert found == "more often"
    assert copies.get("often", lambda: 100, lambda: "often") is None
    assert copies.statistics().held_bytes == 100


def test_what_is_larger_than_the_limit_is_never_copied() -> None:
    copies: Copies[str] = Copies(10)
    assert [copies.get("a", lambda: 11, lambda: pytest.fail("copied")) for _ in range(5)] == [None] * 5


def test_counts_have_a_bound() -> None:
    copies: Copies[str] = Copies(10)
    for key in range(3 * COUNTED):
        copies.get(key, lambda: 1, str)
    assert len(copies._uses) <= COUNTED + 1


def test_clear() -> None:
    copies: Copies[str] = Copies(10)
    copies.get("a", lambda: 1, str)
    copies.get("a", lambda: 1, str)
    copies.clear()
    assert copies.statistics().held_bytes == 0
    assert copies.get("a", lambda: 1, str) is None
