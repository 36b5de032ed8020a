"""One-line facts that notebooks and tests assert.

Each raises an AssertionError that names both numbers, and otherwise returns a line of text that is the same
on every machine (the bound, never the measured value), so that nbval can compare it.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from dsgp_lab.views.style import as_array


class Checked(str):
    """A fact that holds; a notebook shows it without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Print as the sentence itself."""
        return str(self)


def close(a: Any, b: Any, atol: float, what: str) -> Checked:
    """Assert that two arrays of one shape differ by at most `atol` anywhere.

    >>> close([1.0, 2.0], [1.0, 2.0000001], 1e-5, "gated and compacted logits")
    checked: gated and compacted logits: equal within 1e-05
    """
    first, second = as_array(a).astype(float), as_array(b).astype(float)
    if first.shape != second.shape:
        _fail(what, f"shapes {list(first.shape)} and {list(second.shape)}", "the same shape")
    gaps = np.abs(first - second)
    if not (gaps <= atol).all():
        worst = np.unravel_index(int(np.nan_to_num(gaps, nan=np.inf).argmax()), gaps.shape)
        there = f" at {[int(i) for i in worst]}" if worst else ""
        _fail(what, f"{first[worst]:.6g} and {second[worst]:.6g}{there}", f"a difference of at most {atol:g}")
    return _holds(what, f"equal within {atol:g}")


def equal(a: Any, b: Any, what: str) -> Checked:
    """Assert that two values (numbers, texts, arrays) are the same.

    >>> equal(3 * 4, 12, "heads")
    checked: heads: equal
    """
    first, second = as_array(a), as_array(b)
    if first.shape != second.shape or not (first == second).all():
        _fail(what, f"{_brief(a)} and {_brief(b)}", "the same on both sides")
    return _holds(what, "equal")


def between(value: Any, low: float, high: float, what: str) -> Checked:
    """Assert that a number, or each of an array, lies between two bounds, ends included.

    >>> between(0.61, 0.55, 0.62, "kept share of MACs")
    checked: kept share of MACs: between 0.55 and 0.62
    """
    values = as_array(value).astype(float)
    outside = values[~((values >= low) & (values <= high))]
    if outside.size:
        _fail(what, f"{outside.flat[0]:.6g}", f"{low:g} to {high:g}")
    return _holds(what, f"between {low:g} and {high:g}")


def at_most(value: Any, limit: float, what: str) -> Checked:
    """Assert that a number, or each of an array, is `limit` or less.

    >>> at_most(0.21, 0.3, "seconds for one heat map")
    checked: seconds for one heat map: at most 0.3
    """
    values = as_array(value).astype(float)
    if not (values <= limit).all():
        _fail(what, f"{values.max():.6g}", f"at most {limit:g}")
    return _holds(what, f"at most {limit:g}")


def at_least(value: Any, limit: float, what: str) -> Checked:
    """Assert that a number, or each of an array, is `limit` or more.

    >>> at_least(0.894, 0.89, "dev accuracy")
    checked: dev accuracy: at least 0.89
    """
    values = as_array(value).astype(float)
    if not (values >= limit).all():
        _fail(what, f"{values.min():.6g}", f"at least {limit:g}")
    return _holds(what, f"at least {limit:g}")


def shape(tensor: Any, expected: tuple[int, ...], what: str) -> Checked:
    """Assert the shape of a tensor.

    >>> shape([[0, 0, 0]], (1, 3), "logits [batch, classes]")
    checked: logits [batch, classes]: shape [1, 3]
    """
    got = as_array(tensor).shape
    if got != tuple(expected):
        _fail(what, f"shape {list(got)}", f"shape {list(expected)}")
    return _holds(what, f"shape {list(got)}")


def all_true(flags: Any, what: str) -> Checked:
    """Assert that every element of a bool tensor is true, and that there is one.

    >>> all_true([True, True], "each layer keeps a head")
    checked: each layer keeps a head: true for all 2
    """
    return _share(flags, 1.0, what, "true for all {total}")


def fraction_at_least(flags: Any, share: float, what: str) -> Checked:
    """Assert that at least this share of a bool tensor is true.

    >>> fraction_at_least([True, True, True, False], 0.7, "sentences with an unchanged prediction")
    checked: sentences with an unchanged prediction: at least 70 % of 4
    """
    return _share(flags, share, what, f"at least {share:.0%} of {{total}}".replace("%", " %"))


def same_prediction(a: Any, b: Any, what: str) -> Checked:
    """Assert that two arrays of logits or probabilities [..., classes] have the same best class throughout.

    >>> same_prediction([[0.1, 0.9]], [[0.4, 0.6]], "dense and pruned")
    checked: dense and pruned: same prediction for all 1
    """
    first, second = as_array(a), as_array(b)
    if first.shape != second.shape or first.ndim == 0:
        _fail(what, f"shapes {list(first.shape)} and {list(second.shape)}", "the same shape [..., classes]")
    best = first.argmax(-1).ravel(), second.argmax(-1).ravel()
    changed = np.flatnonzero(best[0] != best[1])
    if changed.size:
        row = int(changed[0])
        _fail(
            what, f"class {best[0][row]} and class {best[1][row]} in row {row}", "the same class in every row"
        )
    return _holds(what, f"same prediction for all {best[0].size}")


def sums_to_one(values: Any, what: str, axis: int = -1, atol: float = 1e-5) -> Checked:
    """Assert that values along an axis sum to 1: probabilities, attention weights, shares.

    >>> sums_to_one([[0.25, 0.75], [0.5, 0.5]], "probabilities")
    checked: probabilities: sum to 1 within 1e-05
    """
    sums = as_array(values).astype(float).sum(axis)
    if not (np.abs(sums - 1) <= atol).all():
        worst = np.ravel(sums)[int(np.nan_to_num(np.abs(np.ravel(sums) - 1), nan=np.inf).argmax())]
        _fail(what, f"a sum of {worst:.6g}", f"1 within {atol:g}")
    return _holds(what, f"sum to 1 within {atol:g}")


def _share(flags: Any, share: float, what: str, outcome: str) -> Checked:
    array = as_array(flags)
    if array.dtype != bool or array.size == 0:
        _fail(what, f"{array.dtype} values of shape {list(array.shape)}", "bool values, at least one")
    true, total = int(array.sum()), array.size
    if true < share * total - 1e-9:
        _fail(what, f"{true} of {total} true", f"at least {share:g} of them")
    return _holds(what, outcome.format(total=total))


def _brief(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:59] + "…"


def _holds(what: str, fact: str) -> Checked:
    return Checked(f"checked: {what}: {fact}")


def _fail(what: str, got: str, allowed: str) -> NoReturn:
    raise AssertionError(f"{what}: got {got}; allowed: {allowed}")
