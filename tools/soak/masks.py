"""Random masks on toy models of every family: the cut model gives what the gated model gives."""

from __future__ import annotations

import random

import torch
from figures import Figure
from toys import GROUPED, random_mask, toy_anatomy, toy_inputs, toy_model

from dsgp_lab import gated
from dsgp_lab.decoder import make_subnetwork

FAMILIES = ("bert", "roberta", "electra", "distilbert", "gpt2", *GROUPED)
BATCH = 20
BAR = 1e-4
"""Of the largest logit of the run, for the toys' logits are about 10."""


@torch.no_grad()
def random_masks(number: int = 10_000, seed: int = 0) -> Figure:
    """That many masks over all families, each kept share equally likely, on texts of 1 to 16 tokens."""
    chance, worst, where, done = random.Random(seed), 0.0, "", 0
    for place, family in enumerate(FAMILIES):
        model = toy_model(family, seed=seed)
        anatomy = toy_anatomy(model)
        sub = make_subnetwork(anatomy)
        while done < number * (place + 1) // len(FAMILIES):
            inputs = toy_inputs(model, [chance.randint(1, 16) for _ in range(BATCH)], seed=done)
            mask = random_mask(anatomy, BATCH, keep=chance.random(), seed=seed + done)
            with gated(anatomy, mask):
                expected = anatomy.logits(inputs)
            error = (sub(inputs, mask).logits - expected).abs().max() / expected.abs().max()
            if not float(error) <= worst:  # NaN counts
                worst, where = float(error), family
            done += BATCH
    found = f"{done:,} masks, worst difference {worst:.1e} of the largest logit ({where})"
    return Figure(f"gated = compacted, {len(FAMILIES)} families", found, f"{BAR:.0e}", worst <= BAR)
