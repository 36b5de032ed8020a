"""Bootstrap intervals: against the normal approximation, repeatable, for every kind of metric."""

from __future__ import annotations

import pytest

from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.statistics import bootstrap_mean, bootstrap_metric


def test_bootstrap_matches_the_normal_interval():
    hits = [1.0] * 785 + [0.0] * 87  # 0.90 of 872: standard error 0.0102
    low, high = bootstrap_mean(hits)
    assert (low, high) == pytest.approx((0.9002 - 1.96 * 0.0102, 0.9002 + 1.96 * 0.0102), abs=0.003)
    assert bootstrap_mean(hits) == (low, high)
    assert bootstrap_mean([1.0, 1.0]) == (1.0, 1.0)


@pytest.mark.parametrize("metric", ["accuracy", "f1"])
def test_bootstrap_of_a_metric(metric):
    labels = [i % 2 for i in range(80)]
    predictions = [label if i % 10 else 1 - label for i, label in enumerate(labels)]
    interval = bootstrap_metric("mrpc", predictions, labels, metric, resamples=200)
    assert interval.low < interval.value < interval.high
    assert interval.n == 80
    assert interval == bootstrap_metric("mrpc", predictions, labels, metric, resamples=200)


def test_bootstrap_of_a_correlation_and_unknown_metric():
    scores = [float(i % 6) for i in range(40)]
    interval = bootstrap_metric("stsb", [s + (i % 3) for i, s in enumerate(scores)], scores, resamples=100)
    assert 0.5 < interval.low < interval.value < interval.high < 1
    with pytest.raises(LabError, match=r"metric 'accuracy'\. Allowed: pearson, spearman"):
        bootstrap_metric("stsb", scores, scores, "accuracy")
