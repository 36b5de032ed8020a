"""checks.py: each fact passes when it holds, fails with both numbers when it does not, and never on NaN."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from dsgp_lab import checks

HOLDING: list[tuple[Callable[[], str], str]] = [
    (lambda: checks.close(torch.ones(2, requires_grad=True), np.ones(2), 0, "x"), "x: equal within 0"),
    (lambda: checks.close(1.0, 1.05, 0.1, "x"), "x: equal within 0.1"),
    (lambda: checks.equal("positive", "positive", "x"), "x: equal"),
    (lambda: checks.equal((6, 12), [6, 12], "x"), "x: equal"),
    (lambda: checks.between(torch.tensor([0.0, 1.0]), 0, 1, "x"), "x: between 0 and 1"),
    (lambda: checks.at_most(0.3, 0.3, "x"), "x: at most 0.3"),
    (lambda: checks.at_least([2, 3], 2, "x"), "x: at least 2"),
    (lambda: checks.shape(torch.zeros(2, 6, 12), (2, 6, 12), "x"), "x: shape [2, 6, 12]"),
    (lambda: checks.all_true(torch.ones(3, dtype=torch.bool), "x"), "x: true for all 3"),
    (lambda: checks.fraction_at_least([True, False], 0.5, "x"), "x: at least 50 % of 2"),
    (
        lambda: checks.same_prediction(torch.tensor([[0.0, 1.0]]), [[0.4, 0.6]], "x"),
        "same prediction for all 1",
    ),
    (lambda: checks.sums_to_one(torch.full((2, 3, 4), 0.25), "x"), "x: sum to 1 within 1e-05"),
]

FAILING: list[tuple[Callable[[], str], str]] = [
    (lambda: checks.close([1.0, 2.0], [1.0, 2.5], 0.1, "x"), r"x: got 2 and 2.5 at \[1\]; .* at most 0.1"),
    (lambda: checks.close([1.0, 2.0], [1.0], 0.1, "x"), r"shapes \[2\] and \[1\]"),
    (lambda: checks.close([math.nan], [math.nan], 1, "x"), "nan and nan"),
    (lambda: checks.equal("positive", "negative", "x"), "'positive' and 'negative'"),
    (lambda: checks.equal([1, 2], [1, 3], "x"), r"\[1, 2\] and \[1, 3\]"),
    (lambda: checks.between([0.5, 1.5], 0, 1, "x"), "got 1.5; allowed: 0 to 1"),
    (lambda: checks.between(math.nan, 0, 1, "x"), "got nan"),
    (lambda: checks.at_most([0.1, 0.4], 0.3, "x"), "got 0.4; allowed: at most 0.3"),
    (lambda: checks.at_most(math.nan, 0.3, "x"), "got nan"),
    (lambda: checks.at_least([0.1, 0.4], 0.3, "x"), "got 0.1; allowed: at least 0.3"),
    (lambda: checks.shape(torch.zeros(2), (3,), "x"), r"got shape \[2\]; allowed: shape \[3\]"),
    (lambda: checks.all_true([True, False], "x"), "got 1 of 2 true"),
    (lambda: checks.all_true(torch.ones(0, dtype=torch.bool), "x"), r"bool values of shape \[0\]"),
    (lambda: checks.all_true([1, 1], "x"), "int64 values"),
    (
        lambda: checks.fraction_at_least([True, False, False], 0.5, "x"),
        "got 1 of 3 true; allowed: at least 0.5",
    ),
    (lambda: checks.same_prediction([[0.0, 1.0]], [[1.0, 0.0]], "x"), "class 1 and class 0 in row 0"),
    (lambda: checks.same_prediction([[0.0, 1.0]], [[1.0]], "x"), r"shapes \[1, 2\] and \[1, 1\]"),
    (lambda: checks.sums_to_one([[0.5, 0.5], [0.5, 0.6]], "x"), "a sum of 1.1; allowed: 1 within 1e-05"),
    (lambda: checks.sums_to_one([math.nan], "x"), "a sum of nan"),
]


@pytest.mark.parametrize(("check", "text"), HOLDING)
def test_a_fact_that_holds_says_so(check: Callable[[], str], text: str) -> None:
    fact = check()
    assert fact.startswith("checked: x: ")
    assert text in fact
    assert repr(fact) == str(fact)


@pytest.mark.parametrize(("check", "message"), FAILING)
def test_a_fact_that_fails_names_both_numbers(check: Callable[[], str], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check()


def test_the_text_does_not_depend_on_the_measured_value() -> None:
    assert checks.at_most(0.1, 0.3, "seconds") == checks.at_most(0.2, 0.3, "seconds")
    assert checks.close(1.0, 1.0 + 1e-9, 1e-5, "logits") == checks.close(1.0, 1.0 - 1e-7, 1e-5, "logits")
