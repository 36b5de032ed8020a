"""Teach a router, before its own training, to rank units as each group of inputs needs them.

Trained from one common ranking, a router and the weights soon agree on a common mask, and whatever the groups
(tasks that share an encoder) need for themselves is trained away before the router can tell them apart.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor

from dsgp_lab.router import STEEPNESS, Router

STEPS, RATE, BATCH = 400, 3e-3, 64


def learn_rankings(router: Router, features: Tensor, ranks: Tensor, seed: int = 0) -> float:
    """Fit the router's network so that each input's units begin to run at its own ranks.

    features [inputs, layers, features] as `pooled` gives them; ranks [inputs, layers, units], the budget at
    which each unit begins to run. Bias and slope stay, and with them the common ranking that the router was
    started from. A constant router learns nothing, since it sees no input.

    Returns the share of the ranks' variance around that common ranking that the network explains.
    """
    if not router.sees_input:
        return 0.0
    drawn, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    wanted = -STEEPNESS * ranks - router.bias.detach()
    network = [router.w1, router.b1, router.w_keep, router.w2]
    optimizer = torch.optim.Adam(network, lr=RATE)
    for _ in range(STEPS):
        rows = torch.randint(len(features), (BATCH,), generator=generator)
        loss = (_deviation(router, features[rows], drawn.random()) - wanted[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    router.zero_grad(set_to_none=True)
    with torch.no_grad():
        left = (_deviation(router, features, 0.5) - wanted).square().mean()
    return float(1 - left / wanted.square().mean())


def _deviation(router: Router, features: Tensor, budget: float) -> Tensor:
    """What the network adds to bias and slope [inputs, layers, units]."""
    keep = torch.full((len(features),), budget)
    logits = [router.logits(layer, features[:, layer], keep) for layer in range(router.shape.num_layers)]
    constant = router.bias + budget * router.slope
    return torch.stack(logits, dim=1) - constant.detach()
