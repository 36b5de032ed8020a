"""Verdicts on the questions that the results are there for: yes, no or undecided, by the intervals alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.methods import (
    BY_LOT,
    CASCADE,
    DENSE,
    PRICED,
    ROUTER_METHOD,
    SETTLED,
    TWIN,
    check_method,
)
from dsgp_lab.evaluate.results_rows import GLUE_AVERAGE
from dsgp_lab.regimes import REGIMES
from dsgp_lab.report import Report, Reported

if TYPE_CHECKING:
    import pandas as pd

    from dsgp_lab.evaluate.results_table import Results

Answer = Literal["yes", "no", "undecided", "no results"]
Rival = Literal["twin", "equal_macs", "mismatched", "other_task", "cascade_by_lot"]

NAMES = {
    ROUTER_METHOD: "the router",
    TWIN: "the static twin",
    CASCADE: "the cascade",
    SETTLED: "the settled router",
    PRICED: "the settled router with a price on heads",
    DENSE: "the unpruned model",
}

SAVING = (ROUTER_METHOD, CASCADE, TWIN, "static_fisher")
"""Methods whose savings are compared, unless others are named."""

RIVAL_NAMES: dict[Rival, str] = {
    "twin": "its static twin",
    "equal_macs": "its static twin at equal MACs",
    "mismatched": "itself with the masks swapped between inputs",
    "other_task": "itself under masks made for other tasks",
    "cascade_by_lot": "itself with the inputs that run again drawn by lot",
}

Z95 = 1.96
"""Half a 95 % interval in standard errors."""


@dataclass(frozen=True)
class Verdict:
    """The answer for a regime and budget: points with the ends of their 95 % interval, mean over tasks.

    macs: mean share of the dense encoder's MACs that ran; tasks: how many of GLUE's average are in it. Where
    a regime has no results, numbers are NaN and tasks is 0.
    """

    regime: str
    keep: float
    answer: Answer
    macs: float = math.nan
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    tasks: int = 0

    def __str__(self) -> str:
        """One line."""
        if not self.tasks:
            return f"{self.regime}: no results"
        points = f"{_points(self.value)} points [{_points(self.low)}, {_points(self.high)}]"
        tasks = f"mean of {self.tasks} tasks" if self.tasks > 1 else "one task"
        return f"{self.regime} at {self.keep:g}: {self.answer}, {points}, {tasks}"


@dataclass(frozen=True, repr=False)
class Verdicts(Reported):
    """One question, answered for every regime and budget that there are results for."""

    question: str
    entries: tuple[Verdict, ...]

    def answers(self, regime: str) -> dict[float, Answer]:
        """The answers of a regime by budget; empty where it has no results."""
        return {each.keep: each.answer for each in self.entries if each.regime == regime and each.tasks}

    def report(self) -> Report:
        """A row a regime and budget."""
        rows = tuple(
            (
                each.regime,
                f"{each.keep:g}" if each.tasks else "",
                f"{each.macs:.3f}" if each.tasks else "",
                f"{_points(each.value)} [{_points(each.low)}, {_points(each.high)}]" if each.tasks else "",
                str(each.tasks) if each.tasks else "",
                each.answer,
            )
            for each in self.entries
        )
        header = ("regime", "budget", "MACs", "points [95 %]", "tasks", "answer")
        note = "Undecided: the interval reaches to both sides."
        return Report(self.question, rows, header, (note,))


def judge(low: float, high: float, limit: float = 0.0) -> Answer:
    """Whether what lies between low and high is above a limit.

    >>> judge(0.2, 1.4), judge(-1.4, -0.2), judge(-0.2, 1.4)
    ('yes', 'no', 'undecided')
    """
    if low > limit:
        return "yes"
    return "no" if high < limit else "undecided"


def loss_verdicts(results: Results, limit: float = 1.0, method: str = ROUTER_METHOD) -> Verdicts:
    """Does a method lose less than `limit` points on the mean over tasks?

    Raises:
        LabError: an unknown method.
    """
    check_method(method)
    entries = []
    for regime in REGIMES:
        found = _average_rows(results.averages, regime, method)
        for row in found:
            answer = judge(-row["ci_high"], -row["ci_low"], -limit)
            ends = (row["loss"], row["ci_low"], row["ci_high"])
            entries.append(Verdict(regime, row["keep"], answer, row["macs"], *ends, row["tasks"]))
        if not found:
            entries.append(Verdict(regime, math.nan, "no results"))
    return Verdicts(
        f"Does {NAMES.get(method, method)} lose less than {limit:g} point{'s'[: limit != 1]}?", tuple(entries)
    )


def claim_verdicts(results: Results, fewer: float = 0.4, limit: float = 1.0) -> Verdicts:
    """Does the router lose less than `limit` points with that share `fewer` of the MACs, its own included?

    Each regime is judged at its largest budget of at most 1 - fewer, of those measured on as many tasks as
    any: chosen by size, not by outcome.
    """
    entries = []
    for regime in REGIMES:
        mine = _on_most_tasks([e for e in loss_verdicts(results, limit).entries if e.regime == regime])
        small = [each for each in mine if each.keep <= 1 - fewer + 1e-9]
        entries.append(small[-1] if small else Verdict(regime, math.nan, "no results"))
    question = f"{fewer:.0%} fewer MACs and less than {limit:g} point{'s'[: limit != 1]} lost?"
    return Verdicts(question.replace("%", " %"), tuple(entries))


def gain_verdicts(results: Results, rival: Rival = "twin", method: str = ROUTER_METHOD) -> Verdicts:
    """Is the router better than its static twin, or than itself with masks of other inputs, other tasks?

    `rival="equal_macs"` is the twin at the MACs that the router really ran (see `equal_macs`). `method` asks
    the first question of another one, such as "cascade".

    The mean over the tasks of GLUE's average that have both. Its interval is that of `Results.averages`, else
    made from the tasks' own by `mean_gain`.

    Raises:
        LabError: another rival, an unknown method, or a draw by lot as the rival of another method than the
            cascade.
    """
    check_method(method)
    if rival not in get_args(Rival):
        raise LabError(got=f"rival={rival!r}", allowed=" or ".join(get_args(Rival)), hint="choose one")
    if rival == BY_LOT and method != CASCADE:
        raise LabError(
            got=f"rival={rival!r} of method {method!r}",
            allowed=f"method={CASCADE!r}: a draw by lot is its control",
            hint=f"write gain_verdicts(results, {BY_LOT!r}, method={CASCADE!r})",
        )
    rows = results.rows[results.rows["method"] == method]
    if f"gain_{rival}" not in rows:  # a table from before this rival was a method
        rows = rows.assign(**{f"gain_{rival}": math.nan})
    entries = []
    for regime in REGIMES:
        mine = rows[(rows["regime"] == regime) & rows[f"gain_{rival}"].notna()]
        mine = mine[mine["task"].isin(GLUE_AVERAGE)]
        exact = {row["keep"]: row for row in _average_rows(results.averages, regime, method)}
        for keep, group in mine.groupby("keep"):
            value, low, high, tasks = mean_gain(group, rival)
            row = exact.get(keep)  # none of splits that are not GLUE's
            if row is not None and not math.isnan(row.get(f"gain_{rival}", math.nan)):
                value, low, high = (row[f"gain_{rival}{end}"] for end in ("", "_low", "_high"))
            macs = float(group.groupby("task")["macs"].mean().mean())
            entries.append(Verdict(regime, float(keep), judge(low, high), macs, value, low, high, tasks))
        if mine.empty:
            entries.append(Verdict(regime, math.nan, "no results"))
    return Verdicts(f"Is {NAMES.get(method, method)} better than {RIVAL_NAMES[rival]}?", tuple(entries))


def mean_gain(rows: pd.DataFrame, rival: Rival) -> tuple[float, float, float, int]:
    """Mean gain over tasks, the ends of its 95 % interval, and the number of tasks.

    rows: one method, regime and budget; seeds are averaged within a task, their intervals' widths too. Tasks
    are independent, so their standard errors, read off the intervals, add in squares.
    """
    names = [f"gain_{rival}{end}" for end in ("", "_low", "_high")]
    by_task = rows.groupby("task")[names].mean()
    value = float(by_task[names[0]].mean())
    errors = (by_task[names[2]] - by_task[names[1]]) / (2 * Z95)
    half = Z95 * float((errors**2).sum()) ** 0.5 / len(by_task)
    return value, value - half, value + half, len(by_task)


@dataclass(frozen=True, repr=False)
class Savings(Reported):
    """The smallest budget at which each regime and method surely loses less than `limit` points, or None."""

    limit: float
    found: dict[tuple[str, str], Verdict | None]

    def report(self) -> Report:
        """A row a regime and method."""
        rows = tuple(
            (regime, method, *(_saving(verdict) if verdict else ("none of those measured", "", "")))
            for (regime, method), verdict in self.found.items()
        )
        title = f"Smallest budget with a mean loss below {self.limit:g} for sure"
        return Report(title, rows, ("regime", "method", "share of MACs", "points lost [95 %]", "tasks"))


def savings(results: Results, limit: float = 1.0, methods: Sequence[str] = SAVING) -> Savings:
    """How few MACs are enough: for each regime and method, by the upper end of the mean loss's interval.

    Of each method, budgets measured on fewer tasks than others are left out, and so are methods that a regime
    has no results for.

    Raises:
        LabError: an unknown method.
    """
    verdicts = {method: loss_verdicts(results, limit, method).entries for method in methods}
    found: dict[tuple[str, str], Verdict | None] = {}
    for regime in REGIMES:
        for method, entries in verdicts.items():
            mine = _on_most_tasks([each for each in entries if each.regime == regime])
            if mine:  # budgets come in rising order
                found[regime, method] = next((each for each in mine if each.answer == "yes"), None)
    return Savings(limit, found)


def claims_report(results: Results, fewer: float = 0.4, limit: float = 1.0) -> Report:
    """The paper's three claims beside what was measured, a row a regime.

    Saved: MACs that the smallest budget of `savings` does without. Lost: the points of `claim_verdicts`. Than
    static: MACs saved against the static method that needs fewest, if it was measured on as many tasks. A
    router cannot be faster than a static mask by more than that: it runs on top of the units.
    """
    enough, lost = savings(results, limit).found, claim_verdicts(results, fewer, limit)
    rows = []
    for claim in lost.entries:
        mine = enough.get((claim.regime, ROUTER_METHOD))
        static = [enough.get((claim.regime, name)) for name in (TWIN, "static_fisher")]
        rivals = [each.macs for each in static if each and mine and each.tasks == mine.tasks]
        points = f"{_points(claim.value)} [{_points(claim.low)}, {_points(claim.high)}], {claim.answer}"
        rows.append(
            (
                claim.regime,
                _percent(1 - mine.macs) if mine else "-",
                points if claim.tasks else "-",
                _percent(1 - mine.macs / min(rivals)) if mine and rivals else "-",
                str(claim.tasks) if claim.tasks else "-",
            )
        )
    paper = ("(the paper)", _percent(fewer), f"under {limit:g}", "30 % less time", "")
    header = ("", "MACs saved", f"points lost at {1 - fewer:g} or less", "against static", "tasks")
    return Report("Three claims, and what was measured", (paper, *rows), header)


def _on_most_tasks(entries: Sequence[Verdict]) -> list[Verdict]:
    """Those that speak of as many tasks as any of them does, and of at least one."""
    most = max((each.tasks for each in entries), default=0)
    return [each for each in entries if each.tasks == most > 0]


def _percent(share: float) -> str:
    """A whole percentage.

    >>> _percent(0.651)
    '65 %'
    """
    return f"{round(100 * share) + 0:d} %"


def _average_rows(averages: pd.DataFrame, regime: str, method: str) -> list[dict[str, Any]]:
    mine = averages[(averages["regime"] == regime) & (averages["method"] == method)]
    rows: list[dict[str, Any]] = mine.sort_values("keep").to_dict("records")
    return rows


def _saving(verdict: Verdict) -> tuple[str, str, str]:
    points = f"{_points(verdict.value)} [{_points(verdict.low)}, {_points(verdict.high)}]"
    return f"{verdict.macs:.3f}", points, str(verdict.tasks)


def _points(value: float) -> str:
    """Two decimals, and no minus before a zero.

    >>> _points(-0.001)
    '0.00'
    """
    return f"{round(value, 2) + 0.0:.2f}"
