"""DynamicPruner: score, plan, select, run, each step timed, for every input anew."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dsgp_lab.anatomy import Anatomy, Inputs
from dsgp_lab.cost import CostModel, Macs
from dsgp_lab.decoder import DecoderSubNetwork, make_subnetwork
from dsgp_lab.devices import now
from dsgp_lab.errors import LabError
from dsgp_lab.latency_budget import LatencyBudget
from dsgp_lab.mask import Mask
from dsgp_lab.plan import Scope, check_keep, plan_mask
from dsgp_lab.report import Report
from dsgp_lab.router import Router
from dsgp_lab.router_planner import BatchPlanner, Planner
from dsgp_lab.sensitivity import Scorer, Sensitivity, lengths, make_scorer
from dsgp_lab.settled import Settled
from dsgp_lab.subnetwork import SubNetwork
from dsgp_lab.together import run_together

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Timings:
    """Milliseconds of each step of one pruned run, and of the dense run through the same lean path.

    Single measurements: they differ from run to run. `dsgp-lab bench` measures in earnest.
    """

    score: float
    plan: float
    select: float
    run: float
    dense: float

    @property
    def total(self) -> float:
        """Everything the pruned run took."""
        return self.score + self.plan + self.select + self.run

    def report(self) -> Report:
        """Rows for print and notebook."""
        steps = ("score", "plan", "select", "run", "total", "dense")
        rows = tuple((step, f"{getattr(self, step):.2f} ms") for step in steps)
        note = f"Run alone is {self.run / self.dense:.2f} of dense, everything {self.total / self.dense:.2f}."
        return Report("Time of one run, measured once", rows, ("step", "time"), (note,))

    def __str__(self) -> str:
        """A small text table."""
        return self.report().text()

    def _repr_html_(self) -> str:
        return self.report().html()


@dataclass(frozen=True, eq=False)
class PrunedBatch:
    """What a pruned run of a batch gave: logits and dense_logits [batch, labels], and how they came about.

    timings are of the whole batch; macs has one entry per input.
    """

    logits: Tensor
    dense_logits: Tensor
    sensitivity: Sensitivity
    mask: Mask
    macs: tuple[Macs, ...]
    timings: Timings
    groups: int


class DynamicPruner:
    """Prunes a model for every input anew: the product path whose accuracy and time are reported.

    `keep` is the share of the encoder's MACs that may run, or a `LatencyBudget` (see `plan_mask`), `scorer`
    a name, a Scorer, or a Router, which decides as the model runs and meets the budget on average; a Settled
    one (see `settled`) only that which it was settled for.
    The model is never changed, so several pruners may share one.
    """

    def __init__(
        self,
        model: PreTrainedModel | Anatomy | SubNetwork | DecoderSubNetwork,
        scorer: str | Scorer | Router | Settled = "first_order",
        keep: float | LatencyBudget = 0.6,
        scope: Scope = "global",
        floor: int = 0,
    ) -> None:
        self.subnetwork: Any = make_subnetwork(model)
        self.anatomy = self.subnetwork.anatomy
        self.cost = CostModel.of(self.anatomy)
        self.scorer = scorer if isinstance(scorer, Router | Settled) else make_scorer(scorer)
        if isinstance(self.scorer, Router | Settled):
            if isinstance(self.subnetwork, DecoderSubNetwork):
                raise LabError(
                    got=f"a router for a {self.anatomy.family.name} language model",
                    allowed="a scorer, such as 'wanda_sp'",
                    hint="routers serve encoders",
                )
            router = self.scorer if isinstance(self.scorer, Router) else self.scorer.router
            router.check_fits(self.anatomy)
            if (scope, floor) != ("global", 0):
                raise LabError(
                    got=f"scope={scope!r} and floor={floor!r} with a router",
                    allowed='scope="global" and floor=0: a router decides for every layer itself',
                    hint="leave them out, or use a scorer",
                )
        self.keep = keep if isinstance(keep, LatencyBudget) else check_keep(keep)
        if isinstance(self.scorer, Settled):
            self.scorer.at(self.keep)
        self.scope: Scope = scope
        self.floor = floor
        self._planned: tuple[float, Planner] | None = None
        self._deciding = 0.0

    def __call__(self, inputs: Inputs, keep: float | None = None) -> PrunedBatch:
        """Score, plan, select and run a batch; then run it densely for comparison.

        `keep` replaces the pruner's own budget for this batch.
        """
        if isinstance(self.scorer, Router | Settled):
            share = self._share(inputs, self.scorer) if keep is None else check_keep(keep)
            return self._routed(inputs, self.scorer, share)
        marks = [time.perf_counter()]

        def mark() -> None:
            if self.anatomy.device.type == "cuda":
                torch.cuda.synchronize()
            marks.append(time.perf_counter())

        sensitivity = self.scorer(self.anatomy, inputs)
        mark()
        real = lengths(inputs)
        mask = plan_mask(
            sensitivity, self.cost, real, self.keep if keep is None else keep, self.scope, self.floor
        )
        mark()
        if len(mask) == 1:
            selection = self.subnetwork.select(mask)
            mark()
            logits, groups = self.subnetwork.run(inputs, selection), 1
        else:
            mark()  # in a batch, selection is part of the run: one for each group of equal masks
            output = self.subnetwork(inputs, mask)
            logits, groups = output.logits, output.groups
        mark()
        dense_logits = self.subnetwork.dense(inputs)
        mark()
        score, planned, selected, ran, dense = (1e3 * (stop - start) for start, stop in pairwise(marks))
        return PrunedBatch(
            logits=logits,
            dense_logits=dense_logits,
            sensitivity=sensitivity,
            mask=mask,
            macs=self._macs(sensitivity, mask, real),
            timings=Timings(score, planned, selected, ran, dense),
            groups=groups,
        )

    def _routed(self, inputs: Inputs, router: Router | Settled, keep: float) -> PrunedBatch:
        """A batch under a router, which decides layer by layer as the batch runs."""
        device, several = self.anatomy.device, len(inputs["input_ids"]) > 1
        planner: Planner | BatchPlanner
        planner = _batch_planner(router, keep) if several else self._planner(router, keep)
        start = now(device)
        if isinstance(planner, Planner):
            logits = self.subnetwork.run(inputs, planner)
        else:
            logits = run_together(self.subnetwork, inputs, planner)
        middle = now(device)
        dense_logits = self.subnetwork.dense(inputs)
        score, dense = planner.seconds, now(device) - middle
        run = middle - start - score
        self._deciding = score / len(logits)
        scores = torch.sigmoid(planner.logits).view(len(logits), *planner.logits.shape[-2:])
        real, mask = lengths(inputs), planner.mask
        macs = torch.tensor([router.macs(self.cost, int(n)) for n in real])
        heads, blocks = scores[..., : self.cost.num_heads], scores[..., self.cost.num_heads :]
        name = "router" if isinstance(router, Settled) or router.sees_input else "twin"
        sensitivity = Sensitivity(heads, blocks, name, macs, score, oracle=False)
        return PrunedBatch(
            logits=logits,
            dense_logits=dense_logits,
            sensitivity=sensitivity,
            mask=mask,
            macs=self._macs(sensitivity, mask, real),
            timings=Timings(*(1e3 * seconds for seconds in (score, 0.0, 0.0, run, dense))),
            groups=len(mask.groups()),
        )

    def _share(self, inputs: Inputs, router: Router | Settled) -> float:
        """The budget as a share of MACs; under a latency budget, one with which the longest input fits.

        What deciding takes is taken off: the time that it took last, or in a run for this purpose.
        """
        if not isinstance(self.keep, LatencyBudget):
            return self.keep
        longest = int(lengths(inputs).max())
        if not self._deciding:
            self._routed(inputs, router, self.keep.share(longest))
        return self.keep.share(longest, 1e3 * self._deciding)

    def _planner(self, router: Router | Settled, keep: float) -> Planner:
        """The planner of a budget, whose folded weights are kept for the next input."""
        if self._planned is None or self._planned[0] != keep:
            if isinstance(router, Settled):
                made = router.at(keep).planner(self.subnetwork.packed)
            else:
                made = Planner(router, keep)
            self._planned = keep, made
        return self._planned[1]

    def _macs(self, sensitivity: Sensitivity, mask: Mask, real: Tensor) -> tuple[Macs, ...]:
        kept = self.cost.masked(mask, real).tolist()
        dense = self.cost.dense(real).tolist()
        scorer = sensitivity.macs.tolist()
        return tuple(
            Macs(int(k), int(d), int(s), charged=not sensitivity.oracle)
            for k, d, s in zip(kept, dense, scorer, strict=True)
        )


def _batch_planner(router: Router | Settled, keep: float) -> BatchPlanner:
    return router.at(keep).batch_planner() if isinstance(router, Settled) else BatchPlanner(router, keep)
