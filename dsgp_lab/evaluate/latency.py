"""Latency, measured so that it can be believed: paired, interleaved, in random order, with a control.

Every round runs each variant once on the same input, in random order; what counts is the ratio to
the baseline within the round, so that a machine that speeds up or slows down does not matter. The
baseline runs twice a round: the ratio of the second to the first (A/A) shows what pure noise gives.
"""

from __future__ import annotations

import platform
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from dsgp_lab.errors import LabError
from dsgp_lab.report import Report

AGAIN = "again"
RESAMPLES = 2000


@dataclass(frozen=True)
class LatencyRatio:
    """One variant against the baseline.

    ratio: median of the rounds' ratios, with its 95 % bootstrap interval and quartiles; median_ms in ms.
    """

    variant: str
    ratio: float
    ci_low: float
    ci_high: float
    quartile_low: float
    quartile_high: float
    median_ms: float

    @property
    def differs(self) -> bool:
        """Whether the interval leaves out 1; if not, there is no measurable difference."""
        return not self.ci_low <= 1 <= self.ci_high


@dataclass(frozen=True)
class LatencyTable:
    """All variants of one measurement; `control` is the baseline against itself."""

    baseline: str
    rows: tuple[LatencyRatio, ...]
    control: LatencyRatio
    rounds: int
    threads: int
    setting: str

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
            return row.variant, f"{row.median_ms:.2f}", f"{row.ratio:.3f}", interval, quartiles, verdict

        header = ("variant", "median ms", f"time / {self.baseline}", "95 % interval", "quartiles", "")
        notes = (f"{self.rounds} rounds, {self.threads} thread{'s' * (self.threads > 1)}, {machine()}.",)
        rows = tuple(line(row) for row in (*self.rows, self.control))
        return Report(f"Latency, {self.setting}", rows, header, notes)

    def __str__(self) -> str:
        """A text table."""
        return self.report().text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.report().html()


def measure_latency(
    variants: Mapping[str, Callable[[], object]],
    baseline: str,
    *,
    rounds: int = 100,
    warmup: int = 10,
    seed: int = 0,
    setting: str = "",
) -> LatencyTable:
    """Time the variants against one of them. A variant is a function that runs it once.

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
    for run in variants.values():
        for _ in range(warmup):
            run()
    chance = random.Random(seed)
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):
        for name in chance.sample(list(runners), len(runners)):
            start = _now()
            runners[name]()
            times[name].append(_now() - start)
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
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


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
