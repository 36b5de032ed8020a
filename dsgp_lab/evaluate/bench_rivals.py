"""Every task's router against the static mask that is as accurate: the comparison that a user cares for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import cast

from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.bench_inputs import BenchInputs, bench_inputs
from dsgp_lab.evaluate.bench_variants import dynamic_name, mean_share, routed_share, static_mask
from dsgp_lab.evaluate.latency import AGAIN, LatencyTable, Say, measure_latency, silent, threads
from dsgp_lab.evaluate.methods import DENSE
from dsgp_lab.evaluate.results_table import Results
from dsgp_lab.evaluate.rivals import Rival, find_rival, routed_settings
from dsgp_lab.lab import Lab
from dsgp_lab.mask import Mask
from dsgp_lab.regimes import Regime
from dsgp_lab.report import Report, Reported
from dsgp_lab.router import Router
from dsgp_lab.router_planner import Planner
from dsgp_lab.tasks import get_task

ROUNDS, WARMUP = 40, 40


@dataclass(frozen=True, repr=False)
class RivalTable(Reported):
    """Routers against static masks of equal accuracy; tables: their times, the static mask as baseline."""

    rivals: tuple[Rival, ...]
    tables: tuple[LatencyTable, ...]
    notes: tuple[str, ...] = ()

    def report(self) -> Report:
        """A row for each router and budget."""

        def line(rival: Rival, table: LatencyTable) -> tuple[str, ...]:
            row, control = table[dynamic_name(rival.router_keep)], table.control
            return (
                f"{rival.task}, {rival.regime}",
                f"{rival.router_keep:g}",
                f"{rival.router_value:.1f}",
                f"{rival.method} {rival.keep:g}",
                f"{rival.value:.1f}",
                f"{(row.macs or 0) / (table.rows[0].macs or 1):.3f}",
                f"{row.ratio:.3f}",
                f"{row.ci_low:.3f} to {row.ci_high:.3f}",
                f"{control.ci_low:.3f} to {control.ci_high:.3f}",
                "" if row.differs else "no measurable difference",
            )

        columns = (
            "task",
            "keep",
            "points",
            "static",
            "points",
            "MACs / static",
            "time / static",
            "95 % interval",
            AGAIN,
            "",
        )
        notes = (
            "Points of the results table, estimates both. Batch 1, own lengths; router with decisions; the"
            " static mask is that of the static twin at the budget, cut out beforehand.",
        )
        rows = tuple(line(*pair) for pair in zip(self.rivals, self.tables, strict=True))
        return Report("Router against a static mask as accurate", rows, columns, (*notes, *self.notes))


def bench_rivals(
    tasks: Sequence[str] | None = None,
    rounds: int = ROUNDS,
    num_threads: int = 1,
    seed: int = 0,
    results: Results | None = None,
    say: Say = silent,
) -> RivalTable:
    """Time every router of the results table, or those of some tasks, against its rival (see `find_rival`).

    `say` is told how far it is.

    A router whose checkpoint is not there, or that has no rival, is named in a note.

    Raises:
        LabError: an unknown task, or no results table.
    """
    rows = (results or Results.load()).rows
    wanted = None if tasks is None else {get_task(task).name for task in tasks}
    settings = [each for each in routed_settings(rows) if wanted is None or each[0] in wanted]
    rivals: list[Rival] = []
    tables: list[LatencyTable] = []
    notes = [
        f"{task}: the results table has no router."
        for task in sorted((wanted or set()) - {s[0] for s in settings})
    ]
    start = time.perf_counter()
    for (task, regime), group in groupby(settings, key=lambda each: each[:2]):
        try:
            lab = Lab(task, regime=cast("Regime", regime))
            router = lab.scorer("router")
        except LabError as error:
            notes.append(f"{task}, {regime}: left out: {error.got}.")
            continue
        assert isinstance(router, Router)
        inputs = bench_inputs(lab, 1, rounds + WARMUP, None, seed)
        for *_, keep in group:
            seconds, number = time.perf_counter() - start, 1 + settings.index((task, regime, keep))
            say(f"{seconds:.0f} s, {number} of {len(settings)}: {task}, {regime}, {keep:g}")
            found = find_rival(rows, task, regime, keep)
            if isinstance(found, str):
                notes.append(f"{task}, {regime}, {keep:g}: {found}")
                continue
            rivals.append(found)
            tables.append(_measure(lab, router, found, inputs, rounds, num_threads, seed))
    return RivalTable(tuple(rivals), tuple(tables), tuple(notes))


def _measure(
    lab: Lab, router: Router, rival: Rival, inputs: BenchInputs, rounds: int, num_threads: int, seed: int
) -> LatencyTable:
    sub, planner, name = lab.subnetwork, Planner(router, rival.router_keep), dynamic_name(rival.router_keep)
    static = f"{rival.method} {rival.keep:g}, {rival.regime}"
    mask = Mask.full(lab.anatomy) if rival.method == DENSE else static_mask(lab, rival.keep)
    selection = sub.select(mask, stays=rival.method != DENSE)
    share = routed_share(lab, router, planner, inputs)
    sub.copies.clear()
    with threads(num_threads):
        table = measure_latency(
            {static: lambda each: sub.run(each, selection), name: lambda each: sub.run(each, planner)},
            static,
            inputs=inputs.batches,
            rounds=rounds,
            warmup=WARMUP,
            seed=seed,
            setting=f"{lab.name}, {static}",
            settle=True,
        )
    macs = {static: mean_share(lab, inputs, mask), name: share}
    keeps = {static: rival.keep, name: rival.router_keep}
    found = tuple(replace(row, macs=macs[row.variant], keep=keeps[row.variant]) for row in table.rows)
    return replace(table, rows=found, task=lab.name, tokens=inputs.tokens, padded=inputs.padded)
