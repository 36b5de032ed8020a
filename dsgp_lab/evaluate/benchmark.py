"""`dsgp-lab bench`: every variant on the same real inputs, where the time goes, rivals, and memory."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

from dsgp_lab.cost_table import Machine
from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.bench import bench_half
from dsgp_lab.evaluate.bench_executions import bench_executions
from dsgp_lab.evaluate.bench_inputs import bench_inputs, check_tokens
from dsgp_lab.evaluate.bench_interaction import bench_interaction
from dsgp_lab.evaluate.bench_rivals import ROUNDS, RivalTable, bench_rivals
from dsgp_lab.evaluate.bench_settled import settled_router, settled_routers
from dsgp_lab.evaluate.bench_steps import StepTable, measure_steps
from dsgp_lab.evaluate.bench_variants import LEAN, make_variants, static_mask
from dsgp_lab.evaluate.latency import LatencyTable, Say, machine, measure_latency, silent, threads
from dsgp_lab.evaluate.memory import MemoryTable, measure_memory
from dsgp_lab.evaluate.methods import ROUTER_METHOD, best_regime
from dsgp_lab.evaluate.sweep_plan import check_regime
from dsgp_lab.lab import Lab
from dsgp_lab.plan import check_keep
from dsgp_lab.regimes import Regime
from dsgp_lab.report import Report, ReportedInParts
from dsgp_lab.settled import Settled
from dsgp_lab.tasks import TASKS
from dsgp_lab.whole_files import whole_file, write_text

ENDINGS = (".parquet", ".json", ".md", ".html", ".txt")
"""Of files that a benchmark can be saved as."""

KEEPS = (0.6, 0.35)
WARMUP = 60
"""Runs of each variant before the clock counts, on other inputs: then masks that repeat have come before."""


def bench_lab(task: str = "sst2", regime: str | None = None) -> Lab:
    """The lab that is timed: of the named regime, else of one whose weights were trained along, if there."""
    if regime is not None:
        return Lab(task, regime=check_regime(regime))
    return Lab(task, regime=best_regime(task, ROUTER_METHOD) if task in TASKS else None)


def bench_task(
    lab: Lab,
    batch: int = 1,
    tokens: int | None = None,
    keeps: Sequence[float] = KEEPS,
    rounds: int = 200,
    num_threads: int = 1,
    seed: int = 0,
) -> LatencyTable:
    """All variants against the lean dense run; every round on the next input, or batch of them.

    tokens: None for the inputs' own lengths, else joined texts of exactly that length.
    """
    with threads(num_threads):
        warmup = min(WARMUP, 2 * rounds) if batch == 1 else 3
        inputs = bench_inputs(lab, batch, rounds + warmup, tokens, seed)
        settled, notes = settled_routers(lab, keeps, tokens)
        made = make_variants(lab, inputs, tuple(keeps), settled)
        made.notes.extend(notes)
        length = f"{inputs.tokens:g} tokens" if tokens else f"own lengths, median {inputs.tokens:g} tokens"
        padding = f", padded to {inputs.padded:g}" if inputs.padded > inputs.tokens and batch > 1 else ""
        table = measure_latency(
            made.runs,
            LEAN,
            inputs=inputs.batches,
            rounds=rounds,
            warmup=warmup,
            seed=seed,
            setting=f"{lab.name}, {lab.regime}, {inputs.source}, {length}{padding}, batch {batch}, float32",
            device=lab.anatomy.device.type,
            settle=True,
        )
    rows = tuple(replace(r, macs=made.macs[r.variant], keep=made.keeps[r.variant]) for r in table.rows)
    return replace(
        table,
        rows=rows,
        task=lab.name,
        batch=batch,
        tokens=inputs.tokens,
        padded=inputs.padded,
        notes=tuple(made.notes),
    )


@dataclass(frozen=True, repr=False)
class Benchmark(ReportedInParts):
    """Tables of one benchmark, with the machine they belong to."""

    tables: tuple[LatencyTable, ...]
    steps: tuple[StepTable, ...]
    memory: MemoryTable | None
    description: dict[str, str]
    rivals: RivalTable | None = None
    notes: tuple[str, ...] = ()

    def reports(self) -> tuple[Report, ...]:
        """All tables, the machine last."""
        reports = [each.report() for each in self.tables] + [each.report() for each in self.steps]
        if self.rivals is not None:
            reports.append(self.rivals.report())
        if self.memory is not None:
            reports.append(self.memory.report())
        return (*reports, Report("Machine", tuple(self.description.items()), notes=self.notes))

    def records(self) -> list[dict[str, object]]:
        """All variants of all tables as plain rows."""
        rivals = () if self.rivals is None else self.rivals.tables
        return [record for table in (*self.tables, *rivals) for record in table.records()]

    def save(self, path: str | Path) -> Path:
        """Write as .parquet (the machine in its metadata), .json, .md, .html or .txt, by the ending."""
        import pandas as pd
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = check_ending(Path(path))
        match path.suffix:
            case ".parquet":
                table = pa.Table.from_pandas(pd.DataFrame(self.records()), preserve_index=False)
                described = {b"machine": json.dumps(self.description).encode()}
                with whole_file(path) as scratch:
                    metadata = {**(table.schema.metadata or {}), **described}
                    pq.write_table(table.replace_schema_metadata(metadata), scratch)
            case ".json":
                write_text(path, json.dumps(self.records(), indent=2))
            case ".md":
                write_text(path, self.markdown() + "\n")
            case ".html":
                head = '<!DOCTYPE html>\n<meta charset="utf-8">\n<title>Benchmark</title>'
                write_text(path, f"{head}\n{self._repr_html_()}\n")
            case ".txt":
                write_text(path, f"{self}\n")
        return path


def check_ending(path: Path) -> Path:
    """Return a path that `Benchmark.save` can write to, by its ending; else LabError."""
    if path.suffix not in ENDINGS:
        raise LabError(
            got=f"a file ending in {path.suffix!r}",
            allowed=", ".join(ENDINGS),
            hint=f"write {path.stem}.parquet",
        )
    return path


def describe_machine(lab: Lab, num_threads: int) -> dict[str, str]:
    """What a time belongs to: device, threads, number type, attention kernel, versions."""
    with threads(num_threads):
        found = asdict(Machine.of(lab.subnetwork))
    attention = f"scaled_dot_product_attention; the model's own run: {lab.model.config._attn_implementation}"
    return {
        "device": found["device"],
        "cores": str(os.cpu_count()),
        "threads": str(num_threads),
        "number type": found["dtype"],
        "attention": attention,
        "versions": f"{machine()}, transformers {version('transformers')}",
    }


def run_bench(
    lab: Lab,
    batches: Sequence[int] = (1, 32),
    keeps: Sequence[float] = KEEPS,
    long: int = 128,
    rounds: int = 120,
    num_threads: int = 1,
    with_memory: bool = True,
    say: Say = silent,
) -> Benchmark:
    """The benchmark of one task; `say` is told how far it is.

    Half of the units, all variants, ways to run a batch, the steps of a run, what a click takes, and memory.

    Variants run at every batch size on the inputs' own lengths, and at batch 1 at `long` tokens.
    Batches of several inputs take a tenth of the rounds, but at least 15 (or `rounds`, if that is fewer).

    Raises:
        LabError: before anything is measured, for a setting that cannot be, or a task without texts.
    """
    for budget in keeps:
        check_keep(budget)
    if not batches or min(batches) < 1:
        raise LabError(
            got=f"batches {list(batches)}", allowed="whole numbers from 1", hint="write --batches 1,32"
        )
    check_tokens(lab, long)
    bench_inputs(lab, count=1)  # a task without texts is refused here,
    static_mask(lab, keeps[0])  # and here
    some = max(rounds // 10, min(15, rounds))
    start, tables = time.perf_counter(), []

    def tell(what: str) -> None:
        say(f"{time.perf_counter() - start:.0f} s: {what}")

    for tokens in (25, long):
        tell(f"half of the units, {tokens} tokens")
        tables.append(bench_half(lab, tokens, rounds, num_threads))
    for size in batches:
        tell(f"all variants, batch {size}")
        turns = rounds if size == 1 else some
        tables.append(bench_task(lab, size, None, keeps, turns, num_threads))
    tell(f"all variants, {long} tokens")
    tables.append(bench_task(lab, 1, long, keeps, rounds, num_threads))
    if max(batches) > 1:
        tell(f"ways to run a batch of {max(batches)}")
        tables += bench_executions(lab, max(batches), min(7, rounds), num_threads)
    methods = ("router", "wanda_sp", "first_order") if _has_router(lab) else ("wanda_sp", "first_order")
    tell("steps of a run")
    turns = min(40, rounds)
    steps = tuple(
        measure_steps(lab, methods, keeps[0], t, turns, num_threads, settled=_settled(lab, keeps[0], t))
        for t in (None, long)
    )
    tell("what a click takes")
    tables.append(bench_interaction(lab, rounds=min(10, rounds), num_threads=num_threads))
    if with_memory:
        tell("memory")
    memory, notes = _memory(lab.name, lab.regime) if with_memory else (None, ())
    tell("done")
    return Benchmark(tuple(tables), steps, memory, describe_machine(lab, num_threads), notes=notes)


def run_rivals(
    lab: Lab,
    tasks: Sequence[str] | None = None,
    rounds: int = ROUNDS,
    num_threads: int = 1,
    say: Say = silent,
) -> Benchmark:
    """Routers against static masks of equal accuracy, on some tasks or all that have results."""
    rivals = bench_rivals(tasks, rounds, num_threads, say=say)
    return Benchmark((), (), None, describe_machine(lab, num_threads), rivals)


def _memory(task: str, regime: Regime) -> tuple[MemoryTable | None, tuple[str, ...]]:
    """The memory table, or a note on why there is none: what was measured before is worth keeping."""
    try:
        return measure_memory(task, regime), ()
    except LabError as error:
        return None, (f"Memory is left out. {error}",)


def _has_router(lab: Lab) -> bool:
    try:
        lab.scorer("router")
    except LabError:
        return False
    return True


def _settled(lab: Lab, keep: float, tokens: int | None) -> Settled | None:
    try:
        return settled_router(lab, keep, tokens, 0.0)
    except LabError:
        return None
