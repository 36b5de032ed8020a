"""Masks and costs by group of inputs, such as phenomena or tasks: what differs, and is it chance?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import pearsonr, rankdata

from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.statistics import bootstrap_mean
from dsgp_lab.mask import Mask
from dsgp_lab.report import Report, Reported

SHUFFLES = 500


@dataclass(frozen=True, eq=False, repr=False)
class KeepRates(Reported):
    """How often each unit runs, group by group.

    names and counts [groups]; heads [groups, layers, heads] and blocks [groups, layers, blocks] are shares of
    a group's inputs whose mask keeps the unit. spread: variance of a unit's rate between groups, mean over
    units; chance: the same for groups drawn at random, mean over `SHUFFLES` draws; p_value: share of draws
    with at least this spread. always, never, varying: units that run for all inputs, for none, for some.
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]
    heads: np.ndarray
    blocks: np.ndarray
    spread: float
    chance: float
    p_value: float
    always: int
    never: int
    varying: int

    @property
    def flat(self) -> np.ndarray:
        """All units' rates [groups, units]: heads of every layer, then blocks."""
        groups = len(self.names)
        return np.concatenate([self.heads.reshape(groups, -1), self.blocks.reshape(groups, -1)], axis=1)

    def most_different(self, number: int = 24) -> tuple[list[int], list[str]]:
        """Units whose rates differ between groups, the most different first: places in `flat`, and names."""
        variance = self.flat.var(axis=0)
        order = [int(i) for i in np.argsort(-variance, kind="stable")[:number] if variance[i] > 1e-12]
        return order, [self._unit(place) for place in order]

    def report(self) -> Report:
        """What varies, and what of it goes with the groups."""
        units = self.always + self.never + self.varying
        rows = (
            ("units that always run", str(self.always)),
            ("units that never run", str(self.never)),
            ("units that run for some inputs", f"{self.varying} of {units}"),
            ("spread of rates between groups", f"{self.spread:.4f}"),
            ("the same for groups drawn at random", f"{self.chance:.4f}"),
            ("p", f"{self.p_value:.3f}"),
        )
        note = f"{sum(self.counts)} inputs in {len(self.names)} groups; spread: variance, mean over units."
        return Report("Masks by group", rows, notes=(note,))

    def _unit(self, place: int) -> str:
        kind, part = ("head", self.heads) if place < self.heads[0].size else ("block", self.blocks)
        layer, unit = divmod(place - (0 if kind == "head" else self.heads[0].size), part.shape[2])
        return f"{kind} {layer}/{unit}"


@dataclass(frozen=True, eq=False, repr=False)
class GroupMeans(Reported):
    """A number's mean in each group with its 95 % bootstrap interval: names, counts, mean, low, high."""

    what: str
    names: tuple[str, ...]
    counts: tuple[int, ...]
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def report(self) -> Report:
        """A row a group, the highest mean first."""
        rows = tuple(
            (
                self.names[i],
                str(self.counts[i]),
                f"{self.mean[i]:.3f}",
                f"{self.low[i]:.3f} to {self.high[i]:.3f}",
            )
            for i in np.argsort(-self.mean, kind="stable")
        )
        return Report(f"{self.what}, by group", rows, ("", "inputs", "mean", "95 %"))


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rho of two numbers over inputs, between the ends of its 95 % interval (Fisher's z).

    NaN where one of the two is the same for all inputs.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "not defined: one of the two never varies"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def keep_rates(masks: Mask, groups: Sequence[str], *, shuffles: int = SHUFFLES, seed: int = 0) -> KeepRates:
    """The share of each group's inputs that keep each unit, in the order in which groups first appear.

    The permutation test shuffles the groups' names over the inputs. It says whether masks go with the group,
    not why: groups may differ in length, for instance.

    Raises:
        LabError: as many group names as masks are not there, or all are the same.
    """
    names, numbers = _numbered(groups, len(masks))
    heads, blocks = (part.cpu().numpy().astype(float) for part in (masks.heads, masks.blocks))
    kept = np.concatenate([heads.reshape(len(masks), -1), blocks.reshape(len(masks), -1)], axis=1)
    member = np.eye(len(names))[numbers]  # [inputs, groups]
    counts = member.sum(axis=0)
    rates = member.T @ kept / counts[:, None]
    rng = np.random.default_rng(seed)
    spread = _spread(rates, counts)
    drawn = np.array(
        [_spread(rng.permutation(member).T @ kept / counts[:, None], counts) for _ in range(shuffles)]
    )
    mean = kept.mean(axis=0)
    split = heads[0].size
    return KeepRates(
        names=names,
        counts=tuple(int(count) for count in counts),
        heads=rates[:, :split].reshape(-1, *heads.shape[1:]),
        blocks=rates[:, split:].reshape(-1, *blocks.shape[1:]),
        spread=spread,
        chance=float(drawn.mean()),
        p_value=float((1 + (drawn >= spread - 1e-12).sum()) / (1 + shuffles)),
        always=int((mean == 1).sum()),
        never=int((mean == 0).sum()),
        varying=int(((mean > 0) & (mean < 1)).sum()),
    )


def group_means(values: Any, groups: Sequence[str], what: str = "share of MACs") -> GroupMeans:
    """The mean of one number an input in each group, in the order in which groups first appear.

    >>> print(group_means([0.4, 0.6, 0.5], ["a", "a", "b"]))
    share of MACs, by group
       inputs   mean            95 %
    a       2  0.500  0.400 to 0.600
    b       1  0.500  0.500 to 0.500

    Raises:
        LabError: as many group names as values are not there.
    """
    numbers = np.asarray(values, dtype=float)
    names, which = _numbered(groups, len(numbers), least=1)
    mine = [numbers[which == i] for i in range(len(names))]
    ends = np.array([bootstrap_mean(each) for each in mine])
    means, counts = np.array([each.mean() for each in mine]), tuple(len(each) for each in mine)
    return GroupMeans(what, names, counts, means, ends[:, 0], ends[:, 1])


def rank_correlations(values: Any, others: Mapping[str, Any]) -> dict[str, RankCorrelation]:
    """Spearman's rho of one number an input with others of the same inputs; at least four inputs.

    >>> str(rank_correlations([1, 2, 3, 4, 5], {"squares": [1, 4, 9, 16, 25]})["squares"])
    '1.00 [1.00, 1.00]'
    """
    ranks = rankdata(np.asarray(values, dtype=float))
    found = {}
    for name, other in others.items():
        theirs = rankdata(np.asarray(other, dtype=float))
        if theirs.shape != ranks.shape or len(ranks) < 4:
            raise LabError(
                got=f"{len(ranks)} values and {len(theirs)} of {name}",
                allowed="as many of both, at least four",
                hint="measure both on the same inputs",
            )
        if np.ptp(ranks) == 0 or np.ptp(theirs) == 0:
            found[name] = RankCorrelation(math.nan, math.nan, math.nan, len(ranks))
            continue
        result = pearsonr(ranks, theirs)
        ends = result.confidence_interval(0.95)
        found[name] = RankCorrelation(float(result.statistic), float(ends.low), float(ends.high), len(ranks))
    return found


def _numbered(groups: Sequence[str], inputs: int, least: int = 2) -> tuple[tuple[str, ...], np.ndarray]:
    """Group names in order of appearance, and each input's group number."""
    names = tuple(dict.fromkeys(groups))
    if len(groups) != inputs or len(names) < least:
        raise LabError(
            got=f"{len(groups)} group names for {inputs} inputs, {len(names)} of them different",
            allowed=f"a name for each input, at least {least} different",
            hint="pass examples.tags, or the name of each input's task",
        )
    return names, np.array([names.index(group) for group in groups])


def _spread(rates: np.ndarray, counts: np.ndarray) -> float:
    """Variance of rates [groups, units] between groups, weighted by their counts, mean over units.

    >>> _spread(np.array([[1.0, 0.5], [0.0, 0.5]]), np.array([10.0, 10.0]))
    0.125
    """
    weights = counts / counts.sum()
    mean = weights @ rates
    return float((weights @ (rates - mean) ** 2).mean())
