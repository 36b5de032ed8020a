"""Headroom: how much of what units matter is the same for every input, and how much is the input's own.

A static mask can use only the first part; a dynamic one can use both, if it can predict the second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from dsgp_lab.errors import LabError
from dsgp_lab.report import Report, Reported
from dsgp_lab.sensitivity import Sensitivity


@dataclass(frozen=True, repr=False)
class Headroom(Reported):
    """Shares of the variance of normalised scores, and how well the mean ranks single inputs.

    unit: explained by which unit it is (the main effect); interaction: unit x input, the rest;
    mean_rank_correlation: Spearman's rho of the other inputs' mean scores with an input's own,
    averaged over inputs.
    """

    scorer: str
    unit: float
    interaction: float
    mean_rank_correlation: float
    inputs: int

    def report(self) -> Report:
        """Rows for print and notebook."""
        rows = (
            ("the unit itself (static can use it)", f"{self.unit:.3f}"),
            ("unit x input (only dynamic can)", f"{self.interaction:.3f}"),
        )
        note = (
            f"{self.inputs} inputs; the others' mean ranks an input's units with Spearman's rho"
            f" {self.mean_rank_correlation:.3f}."
        )
        return Report(f"Variance of {self.scorer} scores explained by", rows, notes=(note,))


def split_variance(scores: np.ndarray) -> tuple[float, float]:
    """Shares of unit and of unit x input in the variance of scores [inputs, units].

    Each input's scores are first divided by their mean size, so that inputs count alike and have no
    main effect of scale; both shares add to 1. With few inputs the unit's share is slightly too large
    (by about interaction / inputs).

    >>> split_variance(np.array([[1.0, 3.0], [2.0, 6.0]]))
    (1.0, 0.0)
    >>> split_variance(np.array([[1.0, 3.0], [3.0, 1.0]]))
    (0.0, 1.0)
    """
    normal = scores / np.abs(scores).mean(axis=1, keepdims=True)
    normal = normal - normal.mean(axis=1, keepdims=True)
    total = float((normal**2).mean())
    unit = min(float((normal.mean(axis=0) ** 2).mean()) / total, 1.0)  # rounding can pass 1
    return unit, 1 - unit


def headroom(sensitivity: Sensitivity) -> Headroom:
    """Split the variance of a batch of scores; needs at least 2 inputs, better 50."""
    scores = sensitivity.flat().double().cpu().numpy()
    inputs = len(scores)
    if inputs < 2:
        raise LabError(
            got="scores of one input", allowed="scores of two or more", hint="pass a list of texts"
        )
    unit, interaction = split_variance(scores)
    normal = scores / np.abs(scores).mean(axis=1, keepdims=True)
    others = (normal.sum(axis=0, keepdims=True) - normal) / (inputs - 1)
    correlations = [spearmanr(mean, own).statistic for mean, own in zip(others, normal, strict=True)]
    return Headroom(sensitivity.scorer, unit, interaction, float(np.mean(correlations)), inputs)
