"""The results table as reports for terminal and notebook, and as a README."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.equal_macs import EQUAL_MACS
from dsgp_lab.evaluate.methods import DENSE, METHODS, MISMATCHED, OTHER_TASK, ROUTER_METHOD, TWIN
from dsgp_lab.evaluate.paired import RESAMPLES
from dsgp_lab.evaluate.results_rows import GLUE_AVERAGE
from dsgp_lab.evaluate.seed_spread import seed_spreads
from dsgp_lab.regimes import REGIMES
from dsgp_lab.report import Report

if TYPE_CHECKING:
    import pandas as pd

MISSING = "-"
KNOWLEDGE = ("static_fisher", TWIN, ROUTER_METHOD, "oracle_first_order", "oracle_signed")
"""Methods by what they know: the task, the training for the budget, the input, the whole run."""


def reports(rows: pd.DataFrame, averages: pd.DataFrame) -> tuple[Report, ...]:
    """The dense values, then for each regime: losses at each budget, the router's rivals, several seeds."""
    made = [_dense_report(rows)]
    for regime in (regime for regime in REGIMES if regime in set(rows["regime"])):
        mine, means = rows[rows["regime"] == regime], averages[averages["regime"] == regime]
        keeps = sorted(set(mine.loc[mine["method"] != DENSE, "keep"]))
        made += [_loss_report(mine, means, regime, keep) for keep in keeps]
        if ROUTER_METHOD in set(mine["method"]):
            made.append(_router_report(mine, means, regime))
        made += [spread.report() for spread in seed_spreads(rows, averages, regime)]
    return tuple(made)


def task_report(rows: pd.DataFrame, task: str) -> Report:
    """Points that a task loses: a row each regime and method, a column each budget; means over seeds.

    Raises:
        LabError: a task that the table does not have.
    """
    mine = rows[rows["task"] == task]
    if mine.empty:
        raise LabError(
            got=f"task {task!r}",
            allowed=", ".join(dict.fromkeys(rows["task"])),
            hint="choose one that the table has",
        )
    first = mine.iloc[0]
    title = f"{task}: points of {first['metric']} lost against the dense checkpoint's {first['dense']:.2f}"
    return _by_budget(title, mine, f"{first['n']} examples. In brackets: 95 % intervals.")


def average_report(averages: pd.DataFrame) -> Report:
    """The mean losses over tasks: a row each regime, method and number of tasks, a column each budget."""
    return _by_budget("Points lost, mean over tasks", averages, "In brackets: 95 % intervals.")


def knowledge_report(rows: pd.DataFrame, regime: str) -> Report:
    """A regime's methods by what they know, from static scores to oracles, on the tasks of all of them.

    Mean losses in points over the tasks of GLUE's average that every method has at every budget shown, seeds
    averaged within a task; no intervals. Budgets at which no task has all methods are left out.
    """
    mine = rows[(rows["regime"] == regime) & rows["method"].isin(KNOWLEDGE)]
    mine = mine[mine["task"].isin(GLUE_AVERAGE)]
    methods = [name for name in KNOWLEDGE if name in set(mine["method"])]
    there: dict[float, list[str]] = {}
    for (keep, task), group in mine.groupby(["keep", "task"], sort=False):
        if set(methods) <= set(group["method"]):
            there.setdefault(keep, []).append(task)
    keeps = sorted(there)
    tasks = [task for task in GLUE_AVERAGE if keeps and all(task in there[keep] for keep in keeps)]
    means = mine[mine["task"].isin(tasks)].groupby(["keep", "method", "task"])["loss"].mean()
    table = means.groupby(["keep", "method"]).mean()
    lines = tuple((name, *(_points(table[keep, name]) for keep in keeps)) for name in methods if tasks)
    title = f"Regime {regime}: points lost, by what the method knows"
    return Report(title, lines, ("", *(f"at {keep:g}" for keep in keeps)), (f"Tasks: {', '.join(tasks)}.",))


def _by_budget(title: str, table: pd.DataFrame, note: str) -> Report:
    pruned = table[table["method"] != DENSE].assign(group=table.get("tasks", 1))
    keeps = sorted(set(pruned["keep"]))
    means = pruned.groupby(["regime", "method", "group", "keep"])[["loss", "ci_low", "ci_high"]].mean()
    there = {place: _interval(*row) for place, row in zip(means.index, means.to_numpy(), strict=True)}
    lines = []
    for regime, method in product(REGIMES, METHODS):
        for group in sorted({place[2] for place in there if place[:2] == (regime, method)}):
            cells = (there.get((regime, method, group, keep), MISSING) for keep in keeps)
            tasks = (str(group),) if "tasks" in table else ()
            lines.append((f"{regime}, {method}", *tasks, *cells))
    header = ("", *(("tasks",) if "tasks" in table else ()), *(f"at {keep:g}" for keep in keeps))
    return Report(title, tuple(lines), header, (note,))


def readme(
    rows: pd.DataFrame, averages: pd.DataFrame, machines: Sequence[str], predicted: Sequence[str] = ()
) -> str:
    """The README of data/results: what the files hold, how they were made, all tables.

    `predicted` names the regimes whose predictions are published beside the tables.
    """
    tables = "\n\n".join(report.markdown() for report in reports(rows, averages))
    return f"""# Results

<!-- Generated by `dsgp-lab results --from FOLDER --write`; do not edit. -->

`results.parquet` has one row for each task, regime, method, budget and seed; `averages.parquet` has the means
over tasks. Values, losses and gains are in points of 100. Made by

    {_commands(rows)}
    dsgp-lab results --from runs/sweep --write

on {" and ".join(machines)}. `dsgp-lab results` prints these tables, with `--json` the rows.
{_predicted(predicted)}
| column | what it holds |
| --- | --- |
| `keep`, `macs` | the budget, and the mean share of the dense encoder's multiply-accumulates that ran |
| `value`, `dense`, `loss` | the task's first metric; the dense checkpoint's; the difference |
| `ci_low`, `ci_high` | 95 % interval of the loss: paired bootstrap over examples, {RESAMPLES:,} resamples |
| `p_dense`, `p_twin` | McNemar's exact test against the dense checkpoint, the twin (accuracy only) |
| `gain_twin` and so on | value minus that of these methods; `_low`, `_high`: 95 % interval |
| `gain_equal_macs` | the same over the twin at the MACs that ran, between its two nearest budgets |
| `n`, `split`, `limit` | examples; where they come from; how many were drawn, if not all |

Intervals and tests speak of the choice of examples, not of the seed of training (tables *by seed* do, where
there are several), and are not corrected for their number. An oracle looks at the whole model's run first,
and its cost is not counted: it is an instrument, not a competitor.

| method | what it is |
| --- | --- |
{chr(10).join(f"| `{name}` | {text} |" for name, text in METHODS.items() if name in set(rows["method"]))}

{tables}
"""


def _predicted(regimes: Sequence[str]) -> str:
    if not regimes:
        return ""
    return f"""
`predictions.parquet` has what was predicted for every example, without the texts, by the dense checkpoints
and in regime {", ".join(regimes)}. From it `dsgp-lab results --from data/results/predictions.parquet`
computes these rows, intervals and tests again. With `--update` a later sweep replaces what it swept anew.
"""


def _dense_report(rows: pd.DataFrame) -> Report:
    dense = rows[(rows["method"] == DENSE) & (rows["regime"] == "frozen")].itertuples()
    lines = tuple((r.task, r.split, r.metric, str(r.n), f"{r.value:.2f}") for r in dense)
    return Report("Dense checkpoints, points", lines, ("task", "split", "metric", "examples", "value"))


def _loss_report(rows: pd.DataFrame, averages: pd.DataFrame, regime: str, keep: float) -> Report:
    """Methods by tasks; the dense method's row is the regime's own model, unpruned."""
    tasks = list(dict.fromkeys(rows["task"]))
    lines = []
    for method in METHODS:
        budget = 1.0 if method == DENSE else keep
        found = rows[(rows["method"] == method) & (rows["keep"] == budget)]
        if found.empty or (method == DENSE and regime == "frozen"):
            continue  # frozen and dense: what all losses are counted from
        losses, share = found.groupby("task")["loss"].mean(), f"{found['macs'].mean():.3f}"
        cells = [_points(losses[task]) if task in losses else MISSING for task in tasks]
        name = "unpruned" if method == DENSE else method
        lines.append((name, share, *cells, _mean_loss(_average(averages, method, budget))))
    mean = f"mean of {len(GLUE_AVERAGE)} [95 %]"
    title = f"Regime {regime}, budget {keep:g}: points lost against the dense checkpoint"
    return Report(title, tuple(lines), ("method", "MACs", *tasks, mean))


def _router_report(rows: pd.DataFrame, averages: pd.DataFrame, regime: str) -> Report:
    lines = []
    swaps = (MISMATCHED, OTHER_TASK)[: 2 if OTHER_TASK in set(rows["method"]) else 1]
    for row in rows[rows["method"] == ROUTER_METHOD].to_dict("records"):
        loss = _interval(row["loss"], row["ci_low"], row["ci_high"])
        p_value = MISSING if row["p_twin"] != row["p_twin"] else f"{row['p_twin']:.2g}"
        gains = (_gain(row, TWIN), p_value, *(_gain(row, each) for each in (EQUAL_MACS, *swaps)))
        lines.append((row["task"], f"{row['keep']:g}", str(row["seed"]), f"{row['macs']:.3f}", loss, *gains))
    for keep in sorted(set(rows.loc[rows["method"] == ROUTER_METHOD, "keep"])):
        row = _average(averages, ROUTER_METHOD, keep)
        if row is not None:
            gains = (_gain(row, TWIN), MISSING, _gain(row, EQUAL_MACS), *[MISSING] * len(swaps))
            name = f"mean of {len(GLUE_AVERAGE)}"
            lines.append((name, f"{keep:g}", "", f"{row['macs']:.3f}", _mean_loss(row), *gains))
    header = (
        "task",
        "keep",
        "seed",
        "MACs",
        "loss [95 %]",
        "over twin [95 %]",
        "p",
        "at equal MACs [95 %]",
        *(f"over {each.replace('_', ' ')} [95 %]" for each in swaps),
    )
    return Report(f"Regime {regime}: the router, points", tuple(lines), header)


def _average(averages: pd.DataFrame, method: str, keep: float) -> dict[str, Any] | None:
    """A method's average if all of its tasks are there; with fewer it would compare with nothing."""
    found = averages[(averages["method"] == method) & (averages["keep"] == keep)]
    complete = found[found["tasks"] == len(GLUE_AVERAGE)].to_dict("records")
    return complete[0] if complete else None


def _mean_loss(row: dict[str, Any] | None) -> str:
    return MISSING if row is None else _interval(row["loss"], row["ci_low"], row["ci_high"])


def _gain(row: dict[str, Any], rival: str) -> str:
    value, low, high = (row.get(f"gain_{rival}{end}", math.nan) for end in ("", "_low", "_high"))
    return MISSING if value != value else _interval(value, low, high)  # NaN: there is no such rival


def _interval(value: float, low: float, high: float) -> str:
    """A value with its interval.

    >>> _interval(1.234, 0.5, 2.0)
    '1.23 [0.50, 2.00]'
    """
    return f"{_points(value)} [{_points(low)}, {_points(high)}]"


def _points(value: float) -> str:
    """Two decimals, and no minus before a zero.

    >>> _points(-0.001), _points(12.346)
    ('0.00', '12.35')
    """
    return f"{round(value, 2) + 0.0:.2f}"


def _commands(rows: pd.DataFrame) -> str:
    """The sweeps that made the rows: of the project's own checkpoints, then those elsewhere by regime."""
    root = rows["root"].fillna("")
    parts = rows.groupby([root, rows["regime"].where(root != "", "")])
    return "\n    ".join(_command(mine, root) for (root, _), mine in parts)


def _command(rows: pd.DataFrame, root: str) -> str:
    """One sweep of checkpoints under one root."""
    pruned = rows[rows["method"] != DENSE]
    options: dict[str, list[Any]] = {
        "tasks": list(dict.fromkeys(rows["task"].replace({"mnli-mm": "mnli"}))),
        "regimes": list(dict.fromkeys(rows["regime"])),
        "methods": [name for name in METHODS if name in set(rows["method"])],
        "keeps": [f"{keep:g}" for keep in sorted(set(pruned["keep"]))],
        "seeds": sorted(set(pruned["seed"])),
        "root": [root] if root else [],
    }
    for name in ("limit", "split"):
        if rows[name].nunique(dropna=False) == 1 and rows[name].notna().all():
            options[name] = [rows[name].iloc[0]]
    if len(options["methods"]) == len(METHODS):
        del options["methods"]
    given = [f"--{name} {','.join(map(str, values))}" for name, values in options.items() if values]
    return " ".join(["dsgp-lab sweep", *given, "--out runs/sweep"])
