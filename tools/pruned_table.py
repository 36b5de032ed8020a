"""Write the README's table of pruned models from data/results; or check that it is what they say.

python tools/pruned_table.py            # write
python tools/pruned_table.py --check    # exit 1 if the table is another
"""

from __future__ import annotations

import sys

from readme_section import write_or_check

from dsgp_lab.evaluate.results_rows import GLUE_AVERAGE
from dsgp_lab.evaluate.results_table import Results
from dsgp_lab.evaluate.verdicts import Rival, Verdict, gain_verdicts

METHODS = ("router", "twin", "cascade", "static_fisher")
GAINS: tuple[tuple[str, Rival], ...] = (
    ("router", "twin"),
    ("router", "equal_macs"),
    ("router", "mismatched"),
    ("cascade", "twin"),
    ("cascade", "cascade_by_lot"),
)
HEADINGS = (
    "regime",
    "MACs",
    "tasks",
    "router",
    "static twin",
    "cascade",
    "static Fisher",
    "router over twin",
    "the same at equal MACs",
    "router over other inputs' masks",
    "cascade over twin",
    "cascade over one by lot",
)


def table() -> str:
    """Points lost by regime and budget, mean of the tasks that have a router and a twin; and the gains."""
    results = Results.load()
    rows = results.rows[results.rows["task"].isin(GLUE_AVERAGE)]
    gains = {
        (each.regime, each.keep, *pair): _interval(each)
        for pair in GAINS
        for each in gain_verdicts(results, pair[1], pair[0]).entries
        if each.tasks
    }
    lines = [HEADINGS, ("---",) * len(HEADINGS)]
    for (regime, keep), group in rows[rows["keep"] < 1].groupby(["regime", "keep"], sort=False):
        losses = group.groupby(["method", "task"], sort=False)["loss"].mean()
        there = {name: losses[name] for name in METHODS if name in losses}
        if not {"router", "twin"} <= set(there):
            continue
        tasks = there["router"].index.intersection(there["twin"].index)
        means = [
            f"{own[tasks].mean():.2f}" if own is not None and set(tasks) <= set(own.index) else "-"
            for own in map(there.get, METHODS)
        ]
        names = "all eight" if len(tasks) == len(GLUE_AVERAGE) else ", ".join(tasks)
        gained = [gains.get((regime, keep, *pair), "-") for pair in GAINS]
        lines.append((regime, f"{keep:g}", names, *means, *gained))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _interval(gain: Verdict) -> str:
    """Points with two decimals, and no minus before a zero."""
    value, low, high = (f"{round(each, 2) + 0.0:.2f}" for each in (gain.value, gain.low, gain.high))
    return f"{value} ({low} to {high})"


if __name__ == "__main__":
    raise SystemExit(write_or_check("pruned", table(), sys.argv[1:]))
