"""Intervals for metrics: resampling of examples."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsgp_lab.errors import LabError
from dsgp_lab.tasks import Task, get_task, metrics


@dataclass(frozen=True)
class Interval:
    """A measured value between the ends of its confidence interval, from ``n`` examples."""

    value: float
    low: float
    high: float
    n: int
    confidence: float = 0.95

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def bootstrap_metric(
    task: str | Task,
    predictions: Sequence[int | float],
    labels: Sequence[int | float],
    metric: str | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> Interval:
    """A metric of a task with its percentile bootstrap interval over examples (Efron 1979).

    ``metric`` is the task's first one if None. Limits: the interval speaks of the choice of examples alone,
    not of the seed of training.

    >>> print(bootstrap_metric("sst2", [1, 1, 0, 0] * 25, [1, 1, 0, 1] * 25))
    0.7500 [0.6600, 0.8300]

    Raises:
        LabError: an unknown metric, or as ``metrics`` does.
    """
    known = get_task(task) if isinstance(task, str) else task
    name = metric or known.metrics[0]
    value = metrics(known, predictions, labels)
    if name not in value:
        raise LabError(
            got=f"metric {name!r}",
            allowed=f"{', '.join(known.metrics)} for {known.name}",
            hint=f'write metric="{known.metrics[0]}"',
        )
    pairs = np.stack([np.asarray(predictions, dtype=float), np.asarray(labels, dtype=float)])

    def statistic(positions: np.ndarray) -> float:
        drawn = pairs[:, positions]
        return metrics(known, drawn[0].tolist(), drawn[1].tolist())[name]

    if name == "accuracy":  # a mean of hits: thousands of times faster than one call a resample
        low, high = bootstrap_mean(
            (pairs[0] == pairs[1]).astype(float), confidence=confidence, resamples=resamples, seed=seed
        )
    else:
        low, high = _bootstrap(np.arange(len(labels)), statistic, False, confidence, resamples, seed)
    return Interval(value[name], low, high, len(labels), confidence)


def bootstrap_mean(
    values: Sequence[float] | np.ndarray, *, confidence: float = 0.95, resamples: int = 2_000, seed: int = 0
) -> tuple[float, float]:
    """Ends of the percentile bootstrap interval of a mean.

    >>> bootstrap_mean([0.0, 1.0] * 50)
    (0.4, 0.6)
    """
    return _bootstrap(np.asarray(values, dtype=float), np.mean, True, confidence, resamples, seed)


def _bootstrap(
    data: np.ndarray, statistic: Any, vectorized: bool, confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    from scipy import stats

    if len(data) < 2 or (vectorized and np.all(data == data[0])):
        only = float(statistic(data))  # nothing varies: the interval is a point
        return only, only
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # resamples with a single class
        result = stats.bootstrap(
            (data,),
            statistic,
            vectorized=vectorized,
            batch=100,
            confidence_level=confidence,
            n_resamples=resamples,
            method="percentile",
            random_state=np.random.default_rng(seed),
        )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
