"""Latency, measured so that it can be believed: paired, interleaved, in random order, with a control.

Every round runs each variant once on the same input, in random order; what counts is the ratio to
the baseline within the round, so that a machine that speeds up or slows down does not matter. The
baseline runs twice a round: the ratio of the second to the first (A/A) shows what pure noise gives.
On a GPU its own clock is read (CUDA events), elsewhere the processor's.
"""

from __future__ import annotations

import platform
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch

from dsgp_lab.errors import LabError
from dsgp_lab.report import Report, Reported

Say = Callable[[str], None]
"""Told in one line how far a long measurement is."""

AGAIN = "again"
RESAMPLES = 2000
RECORD_KEYS = (
    *("variant", "baseline", "task", "threads", "batch", "tokens", "keep"),
    *("ratio", "ci_low", "ci_high", "aa_low", "aa_high", "median_ms"),
)


def silent(line: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class LatencyRatio:
    """One variant against the baseline.

    ratio: median of the rounds' ratios, with its 95 % bootstrap interval and quartiles; median_ms in ms;
    macs: the ratio that the operations predict, where they were counted; keep: the variant's budget.
    """

    variant: str
    ratio: float
    ci_low: float
    ci_high: float
    quartile_low: float
    quartile_high: float
    median_ms: float
    macs: float | None = None
    keep: float | None = None

    @property
    def differs(self) -> bool:
        """Whether the interval leaves out 1; if not, there is no measurable difference."""
        return not self.ci_low <= 1 <= self.ci_high


@dataclass(frozen=True, repr=False)
class LatencyTable(Reported):
    """All variants of one measurement; `control` is the baseline against itself.

    batch: inputs a run; tokens: median of their real tokens, padded: of the columns that a run is given.
    """

    baseline: str
    rows: tuple[LatencyRatio, ...]
    control: LatencyRatio
    rounds: int
    threads: int
    setting: str
    task: str = ""
    batch: int = 1
    tokens: float = 0
    padded: float = 0
    notes: tuple[str, ...] = ()

    def __getitem__(self, variant: str) -> LatencyRatio:
        """The row of a variant; LabError lists the names."""
        by_name = {row.variant: row for row in self.rows}
        if variant not in by_name:
            raise LabError(
                got=f"variant {variant!r}", allowed=", ".join(by_name), hint="use one of these names"
            )
        return by_name[variant]

    def report(self) -> Report:
        """Rows for print and notebook."""

        def line(row: LatencyRatio) -> tuple[str, ...]:
            verdict = "" if row.differs or row.variant == self.baseline else "no measurable difference"
            interval = f"{row.ci_low:.3f} to {row.ci_high:.3f}"
            quartiles = f"{row.quartile_low:.3f} to {row.quartile_high:.3f}"
            macs = () if not counted else ("" if row.macs is None else f"{row.macs:.3f}",)
            return (
                row.variant,
                f"{row.median_ms:.2f}",
                f"{row.ratio:.3f}",
                interval,
                quartiles,
                *macs,
                verdict,
            )

        every = (*self.rows, self.control)
        counted = any(row.macs is not None for row in every)
        header = ("variant", "median ms", f"time / {self.baseline}", "95 % interval", "quartiles")
        notes = (f"{self.rounds} rounds, {self.threads} thread{'s' * (self.threads > 1)}, {machine()}.",)
        title = f"Latency, {self.setting}"
        columns = (*header, *(("MACs / dense",) if counted else ()), "")
        return Report(title, tuple(line(row) for row in every), columns, (*notes, *self.notes))

    def records(self) -> list[dict[str, object]]:
        """A plain row for each variant: `RECORD_KEYS`, then what else is known."""
        return [
            {
                "variant": row.variant,
                "baseline": self.baseline,
                "task": self.task,
                "threads": self.threads,
                "batch": self.batch,
                "tokens": self.tokens,
                "keep": row.keep,
                "ratio": row.ratio,
                "ci_low": row.ci_low,
                "ci_high": row.ci_high,
                "aa_low": self.control.ci_low,
                "aa_high": self.control.ci_high,
                "median_ms": row.median_ms,
                "quartile_low": row.quartile_low,
                "quartile_high": row.quartile_high,
                "macs": row.macs,
                "padded": self.padded,
                "rounds": self.rounds,
                "differs": row.differs,
            }
            for row in self.rows
        ]


def measure_latency(
    variants: Mapping[str, Callable[..., object]],
    baseline: str,
    *,
    inputs: Sequence[Any] | None = None,
    rounds: int = 100,
    warmup: int = 10,
    seed: int = 0,
    setting: str = "",
    device: str = "cpu",
    settle: bool = False,
) -> LatencyTable:
    """Time the variants against one of them. A variant is a function that runs it once.

    With `inputs`, a variant takes one of them; all variants of a round get the same, each input in turn;
    the last ones warm up.
    With `settle`, each timed run follows one of the same variant on the input of the round before, as in a
    program that runs one model; else it pays for caches that another variant has filled.
    `device` is where they run: on "cuda" its own clock counts.

    Raises LabError for an unknown baseline or fewer than 5 rounds.
    """
    if baseline not in variants or rounds < 5:
        raise LabError(
            got=f"baseline {baseline!r}, {rounds} rounds",
            allowed=f"one of {', '.join(variants)} and at least 5 rounds",
            hint="100 rounds are a good start",
        )
    control = f"{baseline} {AGAIN}"
    runners = {**variants, control: variants[baseline]}
    arguments: list[tuple[Any, ...]] = [()] if inputs is None else [(each,) for each in inputs]
    for run in variants.values():
        for step in range(warmup):
            run(*arguments[-1 - step % len(arguments)])
    chance = random.Random(seed)
    times: dict[str, list[float]] = {name: [] for name in runners}
    timed = _on_gpu if device == "cuda" else _on_cpu
    for step in range(rounds):
        given, before = arguments[step % len(arguments)], arguments[(step - 1) % len(arguments)]
        for name in chance.sample(list(runners), len(runners)):
            if settle:
                runners[name](*before)
            times[name].append(timed(runners[name], given))
    rows = {name: _ratio(name, times[name], times[baseline], seed) for name in runners}
    return LatencyTable(
        baseline=baseline,
        rows=tuple(rows[name] for name in variants),
        control=rows[control],
        rounds=rounds,
        threads=torch.get_num_threads(),
        setting=setting,
    )


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Run torch on this many threads inside the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def machine() -> str:
    """The machine and the versions that a time belongs to.

    >>> "torch" in machine()
    True
    """
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{platform.machine()} {platform.system()}, {versions}"


def _now() -> float:
    return time.perf_counter()


def _on_cpu(run: Callable[..., object], given: tuple[Any, ...]) -> float:
    start = _now()
    run(*given)
    return _now() - start


def _on_gpu(run: Callable[..., object], given: tuple[Any, ...]) -> float:
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run(*given)
    stop.record()
    torch.cuda.synchronize()
    milliseconds: float = start.elapsed_time(stop)
    return 1e-3 * milliseconds


def _ratio(name: str, mine: list[float], base: list[float], seed: int) -> LatencyRatio:
    ratios = np.array(mine) / np.array(base)
    draws = np.random.default_rng(seed).choice(ratios, size=(RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    quartile_low, quartile_high = np.quantile(ratios, [0.25, 0.75])
    return LatencyRatio(
        variant=name,
        ratio=float(np.median(ratios)),
        ci_low=float(low),
        ci_high=float(high),
        quartile_low=float(quartile_low),
        quartile_high=float(quartile_high),
        median_ms=1e3 * median(mine),
    )
