"""Measure the machine's cost table (`dsgp-lab calibrate`): time masks on a grid, fit what units cost.

At every point of the grid the costs of `CostTable` are fitted to the times of several masks by least squares
with no term below 0.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

import torch

from dsgp_lab.cost_table import CostPoint, CostTable, Machine, counts
from dsgp_lab.mask import Mask

if TYPE_CHECKING:
    from dsgp_lab.anatomy import Inputs
    from dsgp_lab.subnetwork import SubNetwork

BATCHES, TOKENS = (1, 8, 32), (8, 16, 32, 64, 128)
LARGEST = 2048
"""Tokens in a batch beyond which no point is measured; the last one is extrapolated."""
SECONDS = 60.0


def calibrate(
    subnetwork: SubNetwork,
    batches: Sequence[int] = BATCHES,
    tokens: Sequence[int] = TOKENS,
    seconds: float = SECONDS,
    say: Callable[[str], None] = lambda line: None,
) -> CostTable:
    """Measure the costs on a grid, in about `seconds`, with the threads that torch uses now."""
    start = time.perf_counter()
    longest = int(getattr(subnetwork.anatomy.model.config, "max_position_embeddings", 10**6)) - 2
    tokens = [n for n in tokens if n <= longest] or [min(tokens)]
    grid = [(b, n) for b in batches for n in tokens if b * n <= LARGEST or (b, n) == (batches[0], tokens[0])]
    points = []
    for index, (batch, length) in enumerate(grid):
        left = seconds - (time.perf_counter() - start)
        points.append(_measure_point(subnetwork, batch, length, max(left, 0.0) / (len(grid) - index)))
        say(f"{index + 1}/{len(grid)}: batch {batch}, {length} tokens")
    a = subnetwork.anatomy
    units = (a.num_layers * a.num_heads, a.num_layers * a.num_blocks)
    return CostTable(Machine.of(subnetwork), tuple(points), units, time.perf_counter() - start)


def _measure_point(subnetwork: SubNetwork, batch: int, tokens: int, seconds: float) -> CostPoint:
    """Time masks in interleaved rounds and fit the four costs, errors counted relatively."""
    import numpy as np
    from scipy.optimize import nnls

    inputs = _inputs(subnetwork, batch, tokens)
    masks = _masks(subnetwork, seed=batch * tokens)
    subnetwork.copies.clear()  # a fresh mask's runs are to be measured
    selections = {name: subnetwork.select(mask) for name, mask in masks.items()}
    chance = random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in masks}
    start, rounds = time.perf_counter(), 0
    while rounds < 4 or (time.perf_counter() - start < seconds and rounds < 60):
        for name in chance.sample(list(masks), len(masks)):
            begin = time.perf_counter()
            subnetwork.run(inputs, selections[name])
            if rounds:  # the first round warms up
                times[name].append(1e3 * (time.perf_counter() - begin))
        rounds += 1
    measured = np.array([median(values) for values in times.values()])
    matrix = np.array([[1.0, *counts(mask)] for mask in masks.values()])
    fixed, head, block, run = nnls(matrix / measured[:, None], np.ones(len(measured)))[0].tolist()
    point = CostPoint(batch, tokens, fixed, head, block, run)
    if batch == 1:
        return point
    from dsgp_lab.execution import measure_mixed

    whole = counts(Mask.full(subnetwork.anatomy))
    return replace(point, mixed=measure_mixed(subnetwork, inputs, point.time(*whole)))


def _masks(subnetwork: SubNetwork, seed: int) -> dict[str, Mask]:
    """Masks to time: shares of each layer's first heads and blocks, random halves, every second unit."""
    a = subnetwork.anatomy
    generator = torch.Generator().manual_seed(seed)

    def first(heads: float, blocks: float) -> Mask:
        parts = [
            torch.arange(u) < round(share * u) for u, share in ((a.num_heads, heads), (a.num_blocks, blocks))
        ]
        return Mask(*(part.expand(1, a.num_layers, len(part)) for part in parts))

    def scattered() -> Mask:
        shapes = [(1, a.num_layers, units) for units in (a.num_heads, a.num_blocks)]
        return Mask(*(torch.rand(shape, generator=generator) < 0.5 for shape in shapes))

    shares = ((1, 1), (1, 0.5), (0.5, 1), (0.75, 0.75), (0.5, 0.5), (0.25, 0.25))
    masks = {f"first {h:g} of the heads, {b:g} of the blocks": first(h, b) for h, b in shares}
    masks |= {f"random half {number}": scattered() for number in range(3)}
    second = [(torch.arange(u) % 2 == 0).expand(1, a.num_layers, u) for u in (a.num_heads, a.num_blocks)]
    return masks | {"every second unit": Mask(*second)}


def _inputs(subnetwork: SubNetwork, batch: int, tokens: int) -> Inputs:
    vocabulary = int(subnetwork.anatomy.model.config.vocab_size)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary // 2, vocabulary, (batch, tokens), generator=generator)
    device = subnetwork.anatomy.device
    return {"input_ids": ids.to(device), "attention_mask": torch.ones_like(ids).to(device)}
