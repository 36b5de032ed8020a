"""How well a scorer ranks an input's units: rank agreement with leave-one-out truth, per input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau, spearmanr

from dsgp_lab.errors import LabError
from dsgp_lab.report import Report, Reported
from dsgp_lab.sensitivity import Sensitivity


@dataclass(frozen=True, eq=False, repr=False)
class Agreement(Reported):
    """Per input: Spearman's rho, Kendall's tau-b, and the recall of the truth's bottom `k` units.

    Recall: of the k units that matter least in truth, the share that is among the estimate's k lowest.
    Chance level of the recall is k / units.
    """

    scorer: str
    spearman: np.ndarray
    kendall: np.ndarray
    recall: np.ndarray
    k: int
    units: int

    def report(self) -> Report:
        """Means over the inputs."""
        rows = (
            ("Spearman's rho", f"{self.spearman.mean():.3f}"),
            ("Kendall's tau-b", f"{self.kendall.mean():.3f}"),
            (f"recall of the bottom {self.k}", f"{self.recall.mean():.3f}"),
        )
        note = f"Mean of {len(self.spearman)} inputs; recall by chance is {self.k / self.units:.3f}."
        return Report(f"{self.scorer} against leave-one-out", rows, notes=(note,))


def rank_agreement(estimate: Sensitivity, truth: Sensitivity, bottom: float = 0.25) -> Agreement:
    """Compare two scorers' rankings of all heads and blocks, input by input.

    `bottom` is the share of units whose recall is measured. Raises LabError if the inputs differ in number.
    """
    mine, real = estimate.flat().double().cpu().numpy(), truth.flat().double().cpu().numpy()
    if mine.shape != real.shape:
        raise LabError(
            got=f"scores [inputs, units] of shape {list(mine.shape)} and {list(real.shape)}",
            allowed="two scorers' scores of the same inputs and model",
            hint="score the same texts with both",
        )
    k = max(1, round(bottom * mine.shape[1]))
    return Agreement(
        scorer=estimate.scorer,
        spearman=np.array([spearmanr(a, b).statistic for a, b in zip(mine, real, strict=True)]),
        kendall=np.array([kendalltau(a, b).statistic for a, b in zip(mine, real, strict=True)]),
        recall=np.array([bottom_recall(a, b, k) for a, b in zip(mine, real, strict=True)]),
        k=k,
        units=mine.shape[1],
    )


def bottom_recall(estimate: np.ndarray, truth: np.ndarray, k: int) -> float:
    """Share of the truth's k lowest entries that are among the estimate's k lowest.

    >>> bottom_recall(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 9.0, 2.0, 9.0]), k=2)
    0.5
    """
    lowest = [set(np.argsort(scores, kind="stable")[:k].tolist()) for scores in (estimate, truth)]
    return len(lowest[0] & lowest[1]) / k
