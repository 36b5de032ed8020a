"""The standing benchmark: the time of half of the units beside the dense run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle, islice

import torch

from dsgp_lab.anatomy import Inputs
from dsgp_lab.evaluate.bench_inputs import check_tokens
from dsgp_lab.evaluate.latency import LatencyTable, measure_latency, threads
from dsgp_lab.gates import gated
from dsgp_lab.lab import Lab
from dsgp_lab.mask import Mask
from dsgp_lab.tasks import load_teaching

TRANSFORMERS, LEAN = "transformers dense", "lean dense"
WARMUP = 10
CUT, AGAIN, ONE_RUN = "half, a new mask", "half, a mask that came before", "half in one run"
GATED = "half, gated only"


def text_of_length(lab: Lab, tokens: int) -> Inputs:
    """A batch of one: teaching sentences joined and cut to exactly this many tokens."""
    check_tokens(lab, tokens)
    sentences = [" ".join(text) for text in load_teaching("sst2").texts]
    inputs = lab.encode([" ".join(sentences)]) if lab.task is None or not lab.task.is_pair else None
    if inputs is None:
        half = len(sentences) // 2
        inputs = lab.encode([(" ".join(sentences[:half]), " ".join(sentences[half:]))])
    return {
        name: torch.cat([values[:, : tokens - 1], values[:, -1:]], dim=1) for name, values in inputs.items()
    }


def half_masks(lab: Lab, seed: int) -> Iterator[Mask]:
    """Endless random masks under which exactly half of the model's heads and half of its blocks run."""
    generator = torch.Generator().manual_seed(seed)

    def half(units: int) -> torch.Tensor:
        layers = lab.anatomy.num_layers
        flat = torch.zeros(layers * units, dtype=torch.bool)
        flat[torch.randperm(layers * units, generator=generator)[: layers * units // 2]] = True
        return flat.view(1, layers, units)

    while True:
        yield Mask(half(lab.anatomy.num_heads), half(lab.anatomy.num_blocks))


def first_half(lab: Lab) -> Mask:
    """The mask under which the first half of each layer's units runs: one run each, the best case."""

    def half(units: int) -> torch.Tensor:
        return (torch.arange(units) < units // 2).expand(1, lab.anatomy.num_layers, units)

    return Mask(half(lab.anatomy.num_heads), half(lab.anatomy.num_blocks))


def bench_half(lab: Lab, tokens: int, rounds: int = 200, num_threads: int = 1, seed: int = 0) -> LatencyTable:
    """Dense through transformers, the lean dense run, and the model cut to a random half of its units.

    The half is new in every round, or the same in every round, whose weights are then copied
    together; or it lies in one run of units; or it is multiplied in without a cut. A cut run's time includes
    selecting the units of its mask; scoring and planning are left out.
    """
    lab.subnetwork.copies.clear()
    inputs, together = text_of_length(lab, tokens), first_half(lab)
    drawn = list(islice(half_masks(lab, seed), 2 * rounds + WARMUP + 2))  # now, so that drawing is not timed
    few, masks, gates = cycle(drawn[:1]), iter(drawn[1:]), cycle(drawn)

    @torch.inference_mode()
    def transformers_dense() -> None:
        lab.model(**inputs)

    def cut(mask: Mask) -> None:
        lab.subnetwork.run(inputs, lab.subnetwork.select(mask))

    @torch.inference_mode()
    def gated_only() -> None:
        with gated(lab.anatomy, next(gates)):
            lab.model(**inputs)

    variants: dict[str, Callable[[], object]] = {
        TRANSFORMERS: transformers_dense,
        LEAN: lambda: lab.subnetwork.dense(inputs),
        CUT: lambda: cut(next(masks)),
        AGAIN: lambda: cut(next(few)),
        ONE_RUN: lambda: cut(together),
        GATED: gated_only,
    }
    with threads(num_threads):
        setting = f"{lab.name}, {tokens} tokens, batch 1, float32"
        table = measure_latency(
            variants, LEAN, rounds=rounds, warmup=WARMUP, seed=seed, setting=setting, settle=True
        )
    half = {CUT: 0.5, AGAIN: 0.5, ONE_RUN: 0.5}
    rows = tuple(
        replace(row, macs=half.get(row.variant, 1.0), keep=half.get(row.variant, 1.0)) for row in table.rows
    )
    return replace(table, rows=rows, task=lab.name, tokens=tokens, padded=tokens)
