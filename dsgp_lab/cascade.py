"""Cascade: a small static sub-network answers first; inputs that it is unsure of run again in a larger one.

What a router decides from inside the model, a cascade decides from the small sub-network's own answer: one
comparison an input, and nothing to train beyond the two static masks. Easy inputs cost less, and the budget
holds on average.

Sources: cascades of classifiers (Viola and Jones 2001), stages that are widths of one network (slimmable
networks, Yu et al. 2019), margins as the sign of an easy input (Park et al. 2015, big/little networks).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dsgp_lab.anatomy import Inputs
from dsgp_lab.cost import CostModel
from dsgp_lab.errors import LabError
from dsgp_lab.mask import Mask
from dsgp_lab.plan import check_keep
from dsgp_lab.report import Report, Reported
from dsgp_lab.router import Router
from dsgp_lab.router_planner import Planner
from dsgp_lab.sensitivity import lengths
from dsgp_lab.subnetwork import SubNetwork

SMALL, LARGE = 0.2, 0.5
"""Budgets of the two masks: the lowest that routers and twins are trained at, and one at which twins lose
next to nothing. Above `LARGE` the whole model is the larger one."""


@dataclass(frozen=True, eq=False)
class CascadeOutput:
    """logits [batch, labels]; again [batch], whether the larger sub-network ran too."""

    logits: Tensor
    again: Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Cascade(Reported):
    """Two masks of one sub-network and the margin that decides between them.

    An input whose margin (see `margin`) in the smaller one is below `threshold` runs again in the larger one.
    keep: the budget that it was made for; share and again: the mean share of MACs and the share of inputs
    that ran again on the texts it was calibrated on, `texts` of them.
    """

    subnetwork: SubNetwork
    small: Mask
    large: Mask
    threshold: float
    keep: float
    share: float
    again: float
    texts: int

    @staticmethod
    def fit(subnetwork: SubNetwork, twin: Router, batches: Sequence[Inputs], keep: float) -> Cascade:
        """Choose the threshold with which the mean share of MACs over `batches` is `keep`; no labels needed.

        The masks are those of a constant router, `twin`. Below `SMALL` the smaller mask is that of `keep`
        itself, and nothing runs twice.

        Raises:
            LabError: a model without classes, a router that sees its input, no texts, a budget that is no
                share.
        """
        check_keep(keep)
        _check(subnetwork, twin, batches)
        small = Planner(twin, min(keep, SMALL)).mask
        large = Planner(twin, LARGE).mask if keep <= LARGE else Mask.full(subnetwork.anatomy)
        cost = CostModel.of(subnetwork.anatomy)
        first = subnetwork.select(small)
        margins = torch.cat([margin(subnetwork.run(inputs, first)).cpu() for inputs in batches])
        real = torch.cat([lengths(inputs).cpu() for inputs in batches])
        shares, more = (cost.masked(mask, real) / cost.dense(real) for mask in (small, large))
        order = margins.argsort()
        # the most unsure inputs, as many as the budget pays for
        total = shares.mean() + more[order].cumsum(0) / len(order)
        number = int((total <= keep + 1e-9).sum())
        threshold = float(margins[order[number]]) if number < len(order) else float("inf")
        if keep < SMALL:  # the smaller mask takes all of the budget
            threshold = float("-inf")
        again = margins < threshold
        spent = float((shares + again * more).mean())
        return Cascade(
            subnetwork, small, large, threshold, keep, spent, float(again.double().mean()), len(order)
        )

    def __call__(self, inputs: Inputs) -> CascadeOutput:
        """Run a batch: all of it in the smaller sub-network, the unsure inputs in the larger one, too."""
        subnetwork = self.subnetwork
        logits = subnetwork.run(inputs, subnetwork.select(self.small))
        again = margin(logits) < self.threshold
        rows = again.nonzero().flatten()
        if len(rows):
            some = inputs if len(rows) == len(again) else {name: each[rows] for name, each in inputs.items()}
            larger = subnetwork.run(some, subnetwork.select(self.large))
            logits = logits.index_copy(0, rows, larger)
        return CascadeOutput(logits, again)

    def shares(self, inputs: Inputs, again: Tensor) -> Tensor:
        """The shares [batch] of the dense encoder's MACs that ran, in both sub-networks together."""
        cost, real = CostModel.of(self.subnetwork.anatomy), lengths(inputs).cpu()
        macs = cost.masked(self.small, real) + again.cpu() * cost.masked(self.large, real)
        return macs / cost.dense(real)

    def report(self) -> Report:
        """The rule, and what it did on the texts it was calibrated on."""
        rows = (
            ("budget, mean share of MACs", f"{self.keep:g}"),
            ("runs again below a margin of", f"{self.threshold:.2f}"),
            ("inputs that run again", f"{self.again:.0%}".replace("%", " %")),
            ("mean share of MACs", f"{self.share:.3f}"),
        )
        return Report("Cascade", rows, notes=(f"On {self.texts} texts that it was calibrated on.",))


def margin(logits: Tensor) -> Tensor:
    """How far the best class is above the second [batch], of logits [batch, classes].

    >>> margin(torch.tensor([[2.0, -1.0, 1.5], [0.0, 3.0, 0.0]])).tolist()
    [0.5, 3.0]
    """
    best = logits.float().topk(2, dim=-1).values
    return best[..., 0] - best[..., 1]


def _check(subnetwork: SubNetwork, twin: Router, batches: Sequence[Inputs]) -> None:
    config = subnetwork.anatomy.model.config
    if config.num_labels < 2 or subnetwork.anatomy.is_multi_label:
        raise LabError(
            got="a model without classes that exclude each other, whose answers have no margin",
            allowed="a classifier of two classes or more",
            hint="use a static mask of the budget instead",
        )
    if twin.sees_input:
        raise LabError(
            got=f"a {twin.shape.kind} router",
            allowed="a constant one, the static twin",
            hint="load it with load_router(task, regime, twin=True)",
        )
    twin.check_fits(subnetwork.anatomy)
    if not batches:
        raise LabError(got="no texts", allowed="at least one batch", hint="pass texts to calibrate on")
