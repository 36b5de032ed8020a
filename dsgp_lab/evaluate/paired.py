"""Paired statistics of several methods on the same examples: every method is resampled in the same way.

Accuracy, Matthews' and Pearson's correlation are functions of sums over examples. A resample only changes
how often each example counts in the sums, so that all methods and resamples are one matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.statistics import Interval
from dsgp_lab.tasks import Task, get_task

RESAMPLES = 2_000
BATCH = 50
"""Resamples that are drawn and multiplied at once."""


def resampled_metric(
    task: str | Task,
    predictions: Sequence[Sequence[int | float]] | np.ndarray,
    labels: Sequence[int | float] | np.ndarray,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> np.ndarray:
    """The task's first metric under bootstrap resamples of the examples [resamples, methods].

    predictions [methods, examples] are class numbers, or numbers for a regression task; labels [examples].
    Within a row every method sees the same resample: differences between columns are paired. Tasks draw
    independently of each other.

    >>> drawn = resampled_metric("sst2", [[1, 1, 0], [1, 1, 0]], [1, 1, 1], resamples=4)
    >>> drawn.shape, bool((drawn[:, 0] == drawn[:, 1]).all())
    ((4, 2), True)

    Raises:
        LabError: no examples, or as many predictions as labels are not there.
    """
    known = get_task(task) if isinstance(task, str) else task
    given, truth = np.asarray(predictions, dtype=float), np.asarray(labels, dtype=float)
    if given.ndim != 2 or given.shape[1] != len(truth) or not len(truth):
        raise LabError(
            got=f"predictions of shape {list(given.shape)} for {len(truth)} labels",
            allowed="predictions [methods, examples], a label for each example, at least one example",
            hint="predict every example with every method",
        )
    terms = _terms(known, given.T, truth)  # [examples, methods, terms]
    examples, methods, width = terms.shape
    flat = terms.reshape(examples, methods * width)
    chance = np.random.default_rng([seed, *known.name.encode()])
    parts = []
    for start in range(0, resamples, BATCH):
        count = min(BATCH, resamples - start)
        drawn = chance.integers(examples, size=(count, examples))
        drawn += np.arange(count)[:, None] * examples
        weights = np.bincount(drawn.ravel(), minlength=count * examples).reshape(count, examples)
        parts.append(_value((weights.astype(float) @ flat).reshape(count, methods, width), examples))
    return np.concatenate(parts)


def paired_difference(
    task: str | Task,
    predictions: Sequence[int | float] | np.ndarray,
    others: Sequence[int | float] | np.ndarray,
    labels: Sequence[int | float] | np.ndarray,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The task's first metric of `predictions` minus that of `others`, with its paired bootstrap interval.

    >>> print(paired_difference("sst2", [1, 1, 0, 1] * 25, [1, 0, 0, 1] * 25, [1, 1, 0, 0] * 25))
    0.2500 [0.1700, 0.3400]

    Raises:
        LabError: as `resampled_metric`.
    """
    known = get_task(task) if isinstance(task, str) else task
    both = np.stack([np.asarray(predictions, dtype=float), np.asarray(others, dtype=float)])
    drawn = resampled_metric(known, both, labels, resamples=resamples, seed=seed)
    truth = np.asarray(labels, dtype=float)
    mine, theirs = _value(_terms(known, both.T, truth).sum(0), len(truth))
    low, high = percentile_interval(drawn[:, 0] - drawn[:, 1], confidence)
    return Interval(float(mine - theirs), low, high, len(truth), confidence)


def percentile_interval(draws: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Ends of the percentile interval of bootstrap draws [resamples].

    >>> percentile_interval(np.arange(101.0), confidence=0.5)
    (25.0, 75.0)
    """
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def mcnemar(hits: Sequence[bool] | np.ndarray, others: Sequence[bool] | np.ndarray) -> float:
    """McNemar's exact test: the p-value of two methods' hits [examples] on the same examples.

    Only examples that one method gets right and the other wrong count; under the null hypothesis both kinds
    are equally likely (binomial test, two-sided). 1 where the methods never differ.

    >>> mcnemar([True, True, True, True], [False, False, False, True])
    0.25
    """
    from scipy.stats import binomtest

    mine, theirs = np.asarray(hits, dtype=bool), np.asarray(others, dtype=bool)
    better, worse = int((mine & ~theirs).sum()), int((~mine & theirs).sum())
    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def _terms(task: Task, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What is summed over examples, from predictions [examples, methods]: [examples, methods, terms]."""
    y = np.broadcast_to(labels[:, None], predictions.shape)
    if task.metrics[0] == "accuracy":
        right: np.ndarray = (predictions == y)[:, :, None].astype(float)
        return right
    # Matthews' coefficient of two classes is Pearson's correlation of the class numbers 0 and 1
    x = predictions
    return np.stack([x, y, x * x, y * y, x * y], axis=-1)


def _value(sums: np.ndarray, examples: int) -> np.ndarray:
    """The metric from sums [..., terms]; a correlation with a constant counts as 0, as in `metrics`."""
    if sums.shape[-1] == 1:
        return sums[..., 0] / examples
    x, y, xx, yy, xy = np.moveaxis(sums / examples, -1, 0)
    spread_x, spread_y = xx - x * x, yy - y * y
    varies = (spread_x > 1e-12 * xx) & (spread_y > 1e-12 * yy)  # below that it is rounding
    root = np.sqrt(np.where(varies, spread_x * spread_y, 1.0))
    return np.where(varies, (xy - x * y) / root, 0.0)
