"""The explorer under many slider moves: memory, threads, and the state it ends in."""

from __future__ import annotations

import gc
import random
import resource
import threading
import time
from pathlib import Path

import torch
from figures import Figure

from dsgp_lab import Lab, plan_mask
from dsgp_lab.sensitivity import lengths

TEXT = "Though the plot is thin, the two leads make this little film a warm and surprising pleasure."
WARM = 100
"""Moves before memory is first looked at: caches of masks fill in them."""


def resident_bytes() -> int:
    """Memory of this process; where the system does not say it, the largest it has been."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def slider_moves(lab: Lab, moves: int = 1_000, seed: int = 0, pause: float = 0.005) -> Figure:
    """Drag the budget at random; every 50 moves the hand rests until everything is computed."""
    chance, threads = random.Random(seed), threading.active_count()
    panel = lab.explore(TEXT, keep=0.6)
    before = 0
    for move in range(moves + WARM):
        panel.face.keep.value = chance.randint(10, 100) / 100
        time.sleep(pause)
        if move % 50 == 49:
            panel.wait()
        if move == WARM - 1:
            gc.collect()
            before = resident_bytes()
    panel.wait()
    gc.collect()
    grown = resident_bytes() / before - 1
    scores = lab.sensitivity(TEXT)
    planned = plan_mask(scores, lab.cost, lengths(lab.encode([TEXT])), panel.choice.keep)
    right = panel.mask is not None and torch.equal(panel.mask.heads, planned.heads)
    panel.close()
    left = threading.active_count() - threads
    last = "right" if right else "wrong"
    found = f"{moves:,} moves: memory {grown:+.2%}, {left} threads left, last mask {last}"
    good = grown < 0.02 and not left and right
    return Figure("slider moves in the explorer", found, "memory under +2 %, 0 threads", good)
