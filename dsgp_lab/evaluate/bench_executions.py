"""The ways to run a batch of different masks, beside the dense batch and the cost table's forecast."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from dsgp_lab.anatomy import Inputs
from dsgp_lab.evaluate.bench_inputs import BenchInputs, bench_inputs
from dsgp_lab.evaluate.bench_variants import LEAN, static_mask
from dsgp_lab.evaluate.latency import LatencyTable, measure_latency, threads
from dsgp_lab.execution import Execution, predict_executions
from dsgp_lab.lab import Lab
from dsgp_lab.mask import Mask
from dsgp_lab.sensitivity import lengths

WAYS: tuple[Execution, ...] = ("together", "union", "groups", "each")
CHOSEN: Execution = "auto"
SIMILAR, FOUR, HALVES = "15 % of the units redrawn", "four masks", "random halves"
"""Kinds of masks in a batch: each input's differs a little, few masks come often, nothing is shared."""


def mixed_masks(lab: Lab, kind: str, batch: int, keep: float = 0.6, seed: int = 0) -> Mask:
    """Masks of a batch, near the static one of a budget: `SIMILAR`, `FOUR` of those in turn, or `HALVES`.

    Redrawn units are kept with the probability of the budget.
    """
    chance = random.Random(seed)
    static = static_mask(lab, keep)
    redrawn, kept = (1.0, 0.5) if kind == HALVES else (0.15, keep)

    def one() -> Mask:
        def part(units: torch.Tensor) -> torch.Tensor:
            values = [
                chance.random() < kept if chance.random() < redrawn else u for u in units.flatten().tolist()
            ]
            return torch.tensor(values).view(units.shape)

        return Mask(part(static.heads), part(static.blocks))

    masks = [one() for _ in range(4 if kind == FOUR else batch)]
    return Mask.stack([masks[row % len(masks)] for row in range(batch)])


def bench_executions(
    lab: Lab, batch: int = 32, rounds: int = 5, num_threads: int = 1, seed: int = 0
) -> tuple[LatencyTable, ...]:
    """Every way to run a batch, for three kinds of masks, on the inputs' own lengths; MACs are the masks'.

    A note says what the machine's cost table foretells, and so which way is chosen.
    """
    with threads(num_threads):
        inputs = bench_inputs(lab, batch, rounds + 1, None, seed)
        return tuple(_measure(lab, inputs, kind, rounds, seed) for kind in (SIMILAR, FOUR, HALVES))


def _measure(lab: Lab, inputs: BenchInputs, kind: str, rounds: int, seed: int) -> LatencyTable:
    sub, batches = lab.subnetwork, inputs.batches
    mask = mixed_masks(lab, kind, inputs.batch, seed=seed)
    sub.copies.clear()
    runs: dict[str, Callable[..., object]] = {LEAN: sub.dense}
    runs |= {way: partial(_run, lab, mask, way) for way in (*WAYS, CHOSEN)}
    table = measure_latency(
        runs,
        LEAN,
        inputs=batches,
        rounds=rounds,
        warmup=1,
        seed=seed,
        setting=f"{lab.name}, {inputs.source}, own lengths, batch {inputs.batch}, {kind}",
    )
    real = lengths(batches[0])
    share = float(lab.cost.masked(mask, real).sum() / lab.cost.dense(real).sum())
    rows = tuple(replace(row, macs=1.0 if row.variant == LEAN else share) for row in table.rows)
    return replace(
        table,
        rows=rows,
        task=lab.name,
        batch=inputs.batch,
        tokens=inputs.tokens,
        padded=inputs.padded,
        notes=(_foretold(lab, mask, real),),
    )


def _run(lab: Lab, mask: Mask, way: Execution, each: Inputs) -> object:
    return lab.subnetwork(each, mask, way)


def _foretold(lab: Lab, mask: Mask, real: torch.Tensor) -> str:
    costs = lab.subnetwork.cost_table
    if costs is None:
        return "No cost table of this machine, so a batch runs together; dsgp-lab calibrate makes one."
    found = predict_executions(costs, mask, mask.groups(), real)
    times = ", ".join(f"{way} {found[way]:.1f} ms" for way in WAYS)
    return f"Foretold by the cost table: {times}; so auto runs {min(found, key=found.__getitem__)}."
