"""Routers settled for the benchmark, each once, on other inputs than those that are timed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.bench_inputs import bench_inputs
from dsgp_lab.lab import Lab
from dsgp_lab.router import Router
from dsgp_lab.settled import HEAD_PRICE, Settled

BATCHES, BATCH = 8, 16
"""What a router is settled on: so many batches of so many held-out inputs."""

PRICES = (0.0, HEAD_PRICE)


@lru_cache(maxsize=8)  # two budgets, two lengths, two prices
def settled_router(lab: Lab, keep: float, tokens: int | None, head_price: float) -> Settled:
    """The lab's router settled on inputs of their own length, or joined to `tokens` tokens.

    Raises:
        LabError: there is no router that is asked layer by layer, or there are no texts to settle it on.
    """
    router = lab.scorer("router")
    if not isinstance(router, Router):
        raise AssertionError("the trained router is a router")
    texts = bench_inputs(lab, BATCH, BATCHES, tokens, held_out=True).batches
    return Settled.fit(lab.subnetwork, router, texts, keep, head_price=head_price)


def settled_routers(
    lab: Lab, keeps: Sequence[float], tokens: int | None = None
) -> tuple[list[Settled], list[str]]:
    """One for each budget and price; and, where there are none, a note that says why."""
    try:
        return [settled_router(lab, keep, tokens, price) for keep in keeps for price in PRICES], []
    except LabError as error:
        return [], [f"Settled routers are left out: {error.got}."]
