"""Where the time of a pruned run goes: score, plan, select, run, each step timed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median
from typing import cast

from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.bench_inputs import bench_inputs
from dsgp_lab.evaluate.latency import threads
from dsgp_lab.evaluate.methods import SETTLED
from dsgp_lab.lab import Lab
from dsgp_lab.packed import LayerSelection, PackedLayer
from dsgp_lab.plan import plan_mask
from dsgp_lab.report import Report, Reported
from dsgp_lab.router import Router
from dsgp_lab.router_planner import Planner
from dsgp_lab.runs import Kept
from dsgp_lab.sensitivity import lengths
from dsgp_lab.settled import Settled

Steps = tuple[float, float, float, float]
"""Score, plan, select, run."""


@dataclass(frozen=True, repr=False)
class StepTable(Reported):
    """Median milliseconds of score, plan, select and run for methods, on the same inputs; dense_ms beside."""

    rows: tuple[tuple[str, float, float, float, float], ...]
    dense_ms: float
    setting: str

    def overhead(self, method: str) -> float:
        """Score, plan and select of a method over the dense run's time."""
        found = {row[0]: sum(row[1:4]) / self.dense_ms for row in self.rows}
        if method not in found:
            raise LabError(got=f"method {method!r}", allowed=", ".join(found), hint="use one of these")
        return found[method]

    def report(self) -> Report:
        """A row a method."""
        rows = tuple(
            (name, *(f"{value:.2f}" for value in (*steps, sum(steps))), f"{sum(steps) / self.dense_ms:.2f}")
            for name, *steps in self.rows
        )
        header = ("ms", "score", "plan", "select", "run", "sum", "sum / dense")
        notes = (
            f"Lean dense: {self.dense_ms:.2f} ms. Medians. The router scores, plans and selects as it runs.",
        )
        return Report(f"Where the time goes, {self.setting}", rows, header, notes)


def measure_steps(
    lab: Lab,
    methods: Sequence[str] = ("router", "wanda_sp", "first_order"),
    keep: float = 0.6,
    tokens: int | None = None,
    count: int = 40,
    num_threads: int = 1,
    seed: int = 0,
    settled: Settled | None = None,
) -> StepTable:
    """Time each step of the methods at batch 1, after a first turn in which their masks come up.

    With `settled`, the router runs settled, too, as the method "settled".
    """
    with threads(num_threads):
        inputs = bench_inputs(lab, 1, count, tokens, seed)
        times: dict[str, list[Steps]] = {method: [] for method in methods}
        planners: dict[str, Planner] = {}
        scorers = {method: lab.scorer(method) for method in methods}
        if settled is not None:
            scorers[SETTLED], planners[SETTLED] = settled.router, settled.planner(lab.subnetwork.packed)
            times[SETTLED] = []
        watched, layers = copy(lab.subnetwork), [_WatchedLayer(layer) for layer in lab.subnetwork.packed]
        watched.packed = cast("tuple[PackedLayer, ...]", tuple(layers))
        dense = []
        for turn in range(2):
            for each in inputs.batches:
                start = time.perf_counter()
                lab.subnetwork.dense(each)
                dense.append(time.perf_counter() - start)
                for method, scorer in scorers.items():
                    for layer in layers:
                        layer.seconds = 0.0  # one that is decided beforehand is not selected
                    marks = [time.perf_counter()]
                    if isinstance(scorer, Router):
                        planner = planners.setdefault(method, Planner(scorer, keep))
                        watched.run(each, planner)
                        whole = time.perf_counter() - marks[0]
                        select = sum(layer.seconds for layer in layers)
                        steps = (planner.seconds, 0.0, select, whole - planner.seconds - select)
                    else:
                        sensitivity = scorer(lab.anatomy, each)
                        marks.append(time.perf_counter())
                        free = replace(sensitivity, oracle=True)  # a scorer's own MACs may exceed the budget
                        mask = plan_mask(free, lab.cost, lengths(each), keep)
                        marks.append(time.perf_counter())
                        selection = lab.subnetwork.select(mask)
                        marks.append(time.perf_counter())
                        lab.subnetwork.run(each, selection)
                        marks.append(time.perf_counter())
                        score, plan, select, run = (stop - start for start, stop in pairwise(marks))
                        steps = (score, plan, select, run)
                    if turn:
                        times[method].append(steps)
        length = f"{tokens} tokens" if tokens else f"median {inputs.tokens:g} tokens"
        rows = tuple((method, *_medians(found)) for method, found in times.items())
        setting = f"{lab.name}, {lab.regime}, {length}, keep {keep:g}"
        setting += f", {num_threads} thread{'s' * (num_threads > 1)}"
        return StepTable(rows, 1e3 * median(dense), setting)


class _WatchedLayer:
    """A packed layer whose last selection is timed."""

    def __init__(self, layer: PackedLayer) -> None:
        self.layer, self.seconds = layer, 0.0
        self.attention, self.ffn, self.activation = layer.attention, layer.ffn, layer.activation

    def select(self, heads: Kept, blocks: Kept) -> LayerSelection:
        start = time.perf_counter()
        selection = self.layer.select(heads, blocks)
        self.seconds = time.perf_counter() - start
        return selection


def _medians(times: list[Steps]) -> Steps:
    score, plan, select, run = (1e3 * median(step) for step in zip(*times, strict=True))
    return score, plan, select, run
