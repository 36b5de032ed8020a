"""What the seed of training moves in a regime's results, beside what the choice of examples does."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import mean, stdev, variance
from typing import TYPE_CHECKING, Literal, get_args

from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.methods import CASCADE, ROUTER_METHOD, TWIN
from dsgp_lab.evaluate.results_rows import GLUE_AVERAGE
from dsgp_lab.evaluate.verdicts import Z95
from dsgp_lab.regimes import SHARING
from dsgp_lab.report import Report, Reported

if TYPE_CHECKING:
    import pandas as pd

Measure = Literal["loss", "gain_twin", "gain_equal_macs"]

TRAINED = (ROUTER_METHOD, CASCADE, TWIN)
"""Methods that another seed of training changes."""

TITLES: dict[Measure, str] = {
    "loss": "points lost",
    "gain_twin": "points gained on the static twin",
    "gain_equal_macs": "points gained on the static twin at equal MACs",
}

MEAN = f"mean of {len(GLUE_AVERAGE)}"

ENDS: dict[Measure, tuple[str, str]] = {
    "loss": ("ci_low", "ci_high"),
    "gain_twin": ("gain_twin_low", "gain_twin_high"),
    "gain_equal_macs": ("gain_equal_macs_low", "gain_equal_macs_high"),
}
"""Columns with the ends of their intervals."""


@dataclass(frozen=True)
class Spread:
    """A method's results on one task at one budget, by seed of training, in points.

    examples: their standard error by the choice of examples, from the bootstrap intervals of single seeds.

    >>> round(Spread("rte", "router", 0.5, (1.0, 2.0, 3.0), 2.5).seeds, 3)
    1.0
    """

    task: str
    method: str
    keep: float
    values: tuple[float, ...]
    examples: float

    @property
    def seeds(self) -> float:
        """Standard deviation between seeds; NaN with one."""
        return stdev(self.values) if len(self.values) > 1 else math.nan


@dataclass(frozen=True, repr=False)
class SeedSpread(Reported):
    """How far a regime's trainings under other seeds lie apart, task by task and for the mean over tasks.

    spreads: one for each method, budget and task of GLUE's average; averages: mean over tasks with the ends
    of its interval over examples, by method and budget, where the regime has all tasks.
    """

    regime: str
    measure: Measure
    spreads: tuple[Spread, ...]
    averages: dict[tuple[str, float], tuple[float, float, float]]

    def of_mean(self, method: str, keep: float) -> float:
        """Standard error of the mean over tasks by the seeds of training alone, with those that were trained.

        Where each task has a training of its own, tasks are independent, and one with a single seed counts
        as if it varied like the others, which for larger tasks is rather too much. Where one training serves
        all tasks, a seed moves them together: the means of the seeds are compared, and where not every task
        has every seed the answer is NaN.
        """
        return math.sqrt(self._variance(method, keep)[0])

    def freedom(self, method: str, keep: float) -> float:
        """Degrees of freedom of the interval's standard error: how many trainings stand behind it.

        By Satterthwaite (1946, An Approximate Distribution of Estimates of Variance Components): few where
        the seeds weigh most and are few, many where the examples do, whose error is counted as known.
        """
        by_seeds, of_seeds = self._variance(method, keep)
        if not by_seeds > 0:
            return math.nan if math.isnan(by_seeds) else math.inf
        return of_seeds * ((by_seeds + self._by_examples(method, keep) ** 2) / by_seeds) ** 2

    def interval(self, method: str, keep: float) -> tuple[float, float, float]:
        """Mean over tasks and the ends of a 95 % interval over both, examples and seeds of training.

        Both errors are taken as independent; by Student's t, since few trainings are no sure measure of how
        far trainings lie apart. NaN where the regime lacks a task.
        """
        from scipy.stats import t

        value = self.averages.get((method, keep), (math.nan,))[0]
        error = math.hypot(self._by_examples(method, keep), self.of_mean(method, keep))
        half = float(t.ppf(0.975, self.freedom(method, keep))) * error
        return value, value - half, value + half

    def report(self) -> Report:
        """Rows: each task of each method, then the mean over tasks; a column each budget."""
        keeps = sorted({each.keep for each in self.spreads})
        there = {(each.method, each.task, each.keep): each for each in self.spreads}
        rows: list[tuple[str, ...]] = []
        for method in dict.fromkeys(each.method for each in self.spreads):
            several = [each for each in self.spreads if each.method == method and len(each.values) > 1]
            for task in dict.fromkeys(each.task for each in several):
                seeds = max(len(each.values) for each in several if each.task == task)
                found = (there.get((method, task, keep)) for keep in keeps)
                rows.append((f"{method}, {task}", str(seeds), *map(_shown, found)))
            whole = [keep for keep in keeps if not math.isnan(self.interval(method, keep)[1])]
            if whole:
                errors = {keep: f"{self.of_mean(method, keep):.2f}" for keep in whole}
                spans = {
                    keep: "{:.2f} [{:.2f}, {:.2f}]".format(*self._rounded(method, keep)) for keep in whole
                }
                for name, cells in ((f"{MEAN}: error by seeds", errors), (f"{MEAN} [95 %]", spans)):
                    rows.append((f"{method}, {name}", "", *(cells.get(keep, "-") for keep in keeps)))
        notes = (
            "Tasks: standard deviation between seeds; in brackets the standard error over examples of one.",
            f"{MEAN.capitalize()}: its standard error by seeds alone,"
            " then with its interval over examples and seeds (Student's t).",
        )
        header = ("", "seeds", *(f"at {keep:g}" for keep in keeps))
        return Report(f"Regime {self.regime}: {TITLES[self.measure]}, by seed", tuple(rows), header, notes)

    def _of(self, method: str, keep: float) -> list[Spread]:
        return [each for each in self.spreads if (each.method, each.keep) == (method, keep)]

    def _by_examples(self, method: str, keep: float) -> float:
        """Standard error of the mean over tasks by the choice of examples."""
        _, low, high = self.averages.get((method, keep), (math.nan,) * 3)
        return (high - low) / 2 / Z95

    def _variance(self, method: str, keep: float) -> tuple[float, float]:
        """Squared standard error of the mean over tasks by seeds of training, and its degrees of freedom."""
        found = self._of(method, keep)
        several = [each for each in found if len(each.values) > 1]
        if not several:
            return math.nan, math.nan
        if self.regime in SHARING:
            seeds = {len(each.values) for each in found}
            if len(seeds) != 1:
                return math.nan, math.nan
            columns = zip(*(each.values for each in found), strict=True)
            means: list[float] = [mean(values) for values in columns]
            return variance(means) / len(means), len(means) - 1
        lone = (len(found) - len(several)) / len(several)  # tasks that each one here speaks for
        parts = [
            (each.seeds**2 * (1 / len(each.values) + lone) / len(found) ** 2, len(each.values) - 1)
            for each in several
        ]
        total = sum(part for part, _ in parts)
        return total, total**2 / sum(part**2 / free for part, free in parts) if total else math.inf

    def _rounded(self, method: str, keep: float) -> tuple[float, ...]:
        return tuple(round(each, 2) + 0.0 for each in self.interval(method, keep))  # no minus before a zero


def seed_spread(
    rows: pd.DataFrame, averages: pd.DataFrame, regime: str, measure: Measure = "loss"
) -> SeedSpread:
    """The spread between seeds in a results table's rows and averages (see `Results`).

    Budgets at which a method has several seeds on no task are left out.

    Raises:
        LabError: no task of the regime has several seeds, or another measure.
    """
    if measure not in get_args(Measure):
        raise LabError(
            got=f"measure {measure!r}", allowed=", ".join(get_args(Measure)), hint="choose one of them"
        )
    found = [each for each in seed_spreads(rows, averages, regime) if each.measure == measure]
    if not found:
        known = ", ".join(dict.fromkeys(rows["regime"]))
        raise LabError(
            got=f"regime {regime!r}, of which no task has several seeds",
            allowed=f"a regime trained under several; the table has {known}",
            hint="train more with make seeds, sweep them, and pass the table of that sweep",
        )
    return found[0]


def seed_spreads(rows: pd.DataFrame, averages: pd.DataFrame, regime: str) -> tuple[SeedSpread, ...]:
    """The same for each measure of which some task has several seeds; none raises no error."""
    mine = rows[(rows["regime"] == regime) & rows["task"].isin(GLUE_AVERAGE)]
    whole = averages[(averages["regime"] == regime) & (averages["tasks"] == len(GLUE_AVERAGE))]
    made = []
    for measure in get_args(Measure):
        if measure not in mine or measure not in whole:
            continue  # a table from before that was measured
        low, high = ENDS[measure]
        spreads = [
            _spread(seeds, measure)
            for method in TRAINED
            for _, group in mine[mine["method"] == method].dropna(subset=[measure]).groupby("keep")
            if group["task"].duplicated().any()
            for _, seeds in group.groupby("task", sort=False)
        ]
        if spreads:
            means = whole[["method", "keep", measure, low, high]].itertuples(index=False, name=None)
            ends = {(name, keep): (value, start, end) for name, keep, value, start, end in means}
            made.append(SeedSpread(regime, measure, tuple(spreads), ends))
    return tuple(made)


def _spread(seeds: pd.DataFrame, measure: Measure) -> Spread:
    """Of one method's rows on one task at one budget."""
    first, (low, high) = seeds.iloc[0], ENDS[measure]
    error = float((seeds[high] - seeds[low]).mean()) / 2 / Z95
    values = tuple(map(float, seeds.sort_values("seed")[measure]))
    return Spread(str(first["task"]), str(first["method"]), float(first["keep"]), values, error)


def _shown(spread: Spread | None) -> str:
    return "-" if spread is None or len(spread.values) < 2 else f"{spread.seeds:.2f} ({spread.examples:.2f})"
