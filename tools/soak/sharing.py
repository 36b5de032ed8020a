"""One model object that four threads use at once."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import torch
from figures import Figure

from dsgp_lab import Lab, gated

JOBS = (
    ("a warm funny film", "first_order", 0.6),
    ("the film is not good", "activation_norm", 0.4),
    ("very dull", "leave_one_out", 0.5),
    ("a very good film is not bad", "wanda_sp", 0.8),
)
BAR = 1e-5


def one_model(lab: Lab, rounds: int = 25) -> Figure:
    """Four threads score, cut and gate their own text on one lab; each must get what it gets alone."""

    def answer(number: int) -> torch.Tensor:
        text, scorer, keep = JOBS[number]
        run = lab.prune(text, keep, scorer)
        with torch.no_grad(), gated(lab.anatomy, run.mask):
            masked = lab.model(**lab.encode([text])).logits[0]
        cut = torch.tensor(run.prediction.logits)
        return torch.cat([cut, masked, run.sensitivity.flat()[0], run.mask.heads.flatten().float()])

    alone = [answer(number) for number in range(len(JOBS))]
    barrier = threading.Barrier(len(JOBS))

    def repeat(number: int) -> float:
        barrier.wait()
        return max(float((answer(number) - alone[number]).abs().max()) for _ in range(rounds))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(len(JOBS)) as pool:
            runs = [pool.submit(repeat, number) for number in range(len(JOBS))]
    finally:
        sys.setswitchinterval(interval)
    errors = [f"{type(error).__name__}: {error}" for run in runs if (error := run.exception())]
    worst = max((run.result() for run in runs if not run.exception()), default=0.0)
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in lab.model.modules())
    found = f"{rounds * len(JOBS)} runs, worst difference {worst:.1e}"
    found += f", {len(errors)} errors, {hooks} hooks left"
    found += f"; {errors[0]}" if errors else ""
    good = worst <= BAR and not errors and not hooks
    return Figure("four threads, one model", found, f"{BAR:.0e}", good)
