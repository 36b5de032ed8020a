"""What a click takes: a step of the budget's slider, and the maps of one text, beside the dense run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import cycle

from dsgp_lab.evaluate.bench import LEAN, text_of_length
from dsgp_lab.evaluate.latency import LatencyTable, measure_latency, threads
from dsgp_lab.lab import Lab
from dsgp_lab.plan import plan_mask
from dsgp_lab.sensitivity import lengths

SLIDER, FIRST_ORDER = "slider step", "first-order map"
BUDGETS = tuple(round(0.3 + 0.05 * step, 2) for step in range(13))


def leave_one_out_map(lab: Lab) -> str:
    """The variant that removes every unit once."""
    return f"leave-one-out map, {lab.anatomy.num_units} units"


def bench_interaction(
    lab: Lab, tokens: int = 25, rounds: int = 10, num_threads: int = 1, seed: int = 0
) -> LatencyTable:
    """A step of the slider (plan, select, run; the scores are there), and the maps of one text.

    The slider moves between 0.3 and 0.9, a step in each round. Both maps run through the whole model: first
    order once forward and backward, leave-one-out once for each unit.
    """
    inputs = text_of_length(lab, tokens)
    real, budgets = lengths(inputs), cycle(BUDGETS)
    first_order, leave_one_out = lab.scorer("first_order"), lab.scorer("leave_one_out")
    scores = first_order(lab.anatomy, inputs)

    def slider() -> None:
        mask = plan_mask(scores, lab.cost, real, next(budgets))
        lab.subnetwork.run(inputs, lab.subnetwork.select(mask))

    variants: dict[str, Callable[[], object]] = {
        LEAN: lambda: lab.subnetwork.dense(inputs),
        SLIDER: slider,
        FIRST_ORDER: lambda: first_order(lab.anatomy, inputs),
        leave_one_out_map(lab): lambda: leave_one_out(lab.anatomy, inputs),
    }
    with threads(num_threads):
        setting = f"what a click takes, {lab.name}, {tokens} tokens, batch 1, float32"
        table = measure_latency(variants, LEAN, rounds=rounds, warmup=1, seed=seed, setting=setting)
    macs = {LEAN: 1.0}
    for name, scorer in ((FIRST_ORDER, first_order), (leave_one_out_map(lab), leave_one_out)):
        macs[name] = scorer.macs(lab.cost, tokens) / lab.cost.dense(tokens)
    rows = tuple(replace(row, macs=macs.get(row.variant)) for row in table.rows)
    return replace(table, rows=rows, task=lab.name, tokens=tokens, padded=tokens)
