"""One model object that four threads use at once."""

from __future__ import annotations

import sys
import threading

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
    worst, errors = [0.0] * len(JOBS), list[str]()
    barrier = threading.Barrier(len(JOBS))

    def repeat(number: int) -> None:
        barrier.wait()
        try:
            for _ in range(rounds):
                worst[number] = max(worst[number], float((answer(number) - alone[number]).abs().max()))
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=repeat, args=(number,)) for number in range(len(JOBS))]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in lab.model.modules())
    found = f"{rounds * len(JOBS)} runs, worst difference {max(worst):.1e}"
    found += f", {len(errors)} errors, {hooks} hooks left"
    found += f"; {errors[0]}" if errors else ""
    good = max(worst) <= BAR and not errors and not hooks
    return Figure("four threads, one model", found, f"{BAR:.0e}", good)
