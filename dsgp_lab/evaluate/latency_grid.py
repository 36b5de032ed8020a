"""Time of the dynamic run over the dense one, along the things it depends on: batch, length, budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from dsgp_lab.anatomy import Inputs
from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.bench_inputs import bench_inputs
from dsgp_lab.evaluate.latency import LatencyRatio, measure_latency
from dsgp_lab.lab import Lab
from dsgp_lab.mask import Mask
from dsgp_lab.router import Router
from dsgp_lab.router_planner import BatchPlanner, Planner
from dsgp_lab.together import run_together

DENSE, DYNAMIC = "dense", "dynamic"


@dataclass(frozen=True)
class Grid:
    """Ratios [batches, tokens] of time over dense, and whether each interval leaves out 1."""

    batches: tuple[int, ...]
    tokens: tuple[int, ...]
    ratios: Tensor
    differs: Tensor


def measure_grid(
    lab: Lab,
    batches: Sequence[int] = (1, 4, 16),
    tokens: Sequence[int] = (8, 32, 128),
    keep: float = 0.6,
    rounds: int = 12,
    seed: int = 0,
) -> Grid:
    """Measure the lab's router, decisions included, against the lean dense run, all inputs of one length."""
    router = lab.scorer("router")
    if not isinstance(router, Router):
        raise LabError(got="no router", allowed="a task with one", hint="use Lab('sst2')")
    single, several = Planner(router, keep), BatchPlanner(router, keep)
    found: list[list[LatencyRatio]] = []
    for batch in batches:
        found.append([])
        for length in tokens:
            inputs = bench_inputs(lab, batch, rounds, length, seed).batches
            variants: dict[str, Callable[[Inputs], Tensor]] = {
                DENSE: lab.subnetwork.dense,
                DYNAMIC: partial(_dynamic, lab, single, several),
            }
            table = measure_latency(variants, DENSE, inputs=inputs, rounds=rounds, warmup=4, settle=True)
            found[-1].append(table[DYNAMIC])
    ratios = torch.tensor([[row.ratio for row in line] for line in found])
    differs = torch.tensor([[row.differs for row in line] for line in found])
    return Grid(tuple(batches), tuple(tokens), ratios, differs)


def _dynamic(lab: Lab, single: Planner, several: BatchPlanner, inputs: Inputs) -> Tensor:
    """Logits of a batch under a router, one input alone or several together."""
    if len(inputs["input_ids"]) == 1:
        return lab.subnetwork.run(inputs, single)
    return run_together(lab.subnetwork, inputs, several)


def measure_shares(
    lab: Lab, masks: Sequence[Mask], tokens: int = 25, rounds: int = 30, seed: int = 0, stays: bool = False
) -> tuple[Tensor, tuple[LatencyRatio, ...]]:
    """Share of the MACs and measured ratio of each mask (batch of 1) on one text of `tokens` tokens.

    With `stays` the kept weights are copied together beforehand, as for a static mask.
    """
    inputs = bench_inputs(lab, 1, 1, tokens, seed).batches[0]
    length = torch.tensor([tokens])
    shares = torch.tensor(
        [float(lab.cost.masked(mask, length)[0]) / lab.cost.dense(tokens) for mask in masks]
    )
    selections = {str(i): lab.subnetwork.select(mask, stays=stays) for i, mask in enumerate(masks)}
    variants = {name: partial(lab.subnetwork.run, inputs, chosen) for name, chosen in selections.items()}
    table = measure_latency(
        {DENSE: partial(lab.subnetwork.dense, inputs), **variants}, DENSE, rounds=rounds, settle=True
    )
    return shares, tuple(table[name] for name in selections)
