"""A router settled on the texts it will meet: the budget holds on them, and fewer layers are asked.

A trained router was calibrated on its task's own texts; on longer or other ones its budget drifts. And in
many layers it decides nearly the same for every input: asking there costs time and changes next to nothing.
So both are measured on texts at hand, without labels: the budget input with which the mean share of MACs is
the one wanted, and the layers whose decisions hardly vary, which are then decided beforehand.

Heads take more time an operation than neurons do. With a price on heads fewer of them run, and in their
place, at equal MACs, more blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from dsgp_lab.anatomy import Inputs
from dsgp_lab.cost import CostModel
from dsgp_lab.errors import LabError
from dsgp_lab.latency_budget import LatencyBudget
from dsgp_lab.mask import Mask
from dsgp_lab.packed import PackedLayer
from dsgp_lab.plan import check_keep
from dsgp_lab.report import Report, Reported
from dsgp_lab.router import Router
from dsgp_lab.router_planner import BatchPlanner, Planner, Settlements
from dsgp_lab.sensitivity import lengths
from dsgp_lab.subnetwork import SubNetwork
from dsgp_lab.together import run_together

TOLERANCE = 0.02
"""A layer is settled if at most this share of its decisions differ from the usual ones: half a unit of 24."""

HEAD_PRICE = 3.0
"""A price on heads that cost an earlier SST-2 model no accuracy at 0.6 of the MACs, on 300 held-out
examples (regime adaptive); at smaller budgets, and on MNLI, it did. `data/results` has it of today's."""

FAR = 0.02
"""A mean share this far from the budget is said to miss it; settling layers moves it a little, too."""

BUDGETS, STEPS = (-0.5, 1.5), 10
"""Where the budget input is looked for, and how often that range is halved."""


@dataclass(frozen=True, eq=False, repr=False)
class Settled(Reported):
    """A router under one budget, with what was found on `texts` texts.

    budget: the largest of the router's inputs with which they take at most the share `keep` of the MACs on
    average, all layers asked; layers: what is decided beforehand; share: the mean share that ran then, the
    router's own MACs included; differ: the mean share of decisions, of all units, that the settled layers
    take in another way than the router would. `router` has the price on heads in its logits.
    """

    router: Router
    keep: float
    budget: float
    layers: Settlements
    share: float
    differ: float
    texts: int
    head_price: float = 0.0

    @staticmethod
    def fit(
        subnetwork: SubNetwork,
        router: Router,
        batches: Sequence[Inputs],
        keep: float,
        tolerance: float = TOLERANCE,
        head_price: float = 0.0,
    ) -> Settled:
        """Measure both on `batches`; no labels needed. Cost: twelve pruned runs of them.

        `head_price` is taken off the logit of every head.

        Raises:
            LabError: a router that is not asked layer by layer, no texts, a budget that is no share.
        """
        check_keep(keep)
        if not 0 <= tolerance <= 1 or not 0 <= head_price < 100:
            raise LabError(
                got=f"tolerance={tolerance}, head_price={head_price}",
                allowed="a tolerance from 0 to 1, a price from 0, below 100",
                hint=f"leave them out, or try head_price={HEAD_PRICE:g}",
            )
        if router.shape.kind != "layerwise":
            raise LabError(
                got=f"a {router.shape.kind} router",
                allowed="a layerwise one, which is asked before every layer",
                hint="the others decide once: run them as they are",
            )
        router.check_fits(subnetwork.anatomy)
        if not batches:
            raise LabError(got="no texts", allowed="at least one batch", hint="pass texts to settle it on")
        if head_price:
            router = deepcopy(router)
            with torch.no_grad():
                router.bias[:, : router.shape.num_heads] -= head_price
        low, high = BUDGETS
        for _ in range(STEPS):
            middle = (low + high) / 2
            share, _mask = _measure(subnetwork, router, batches, BatchPlanner(router, keep, middle))
            low, high = (middle, high) if share <= keep else (low, middle)
        _, mask = _measure(subnetwork, router, batches, BatchPlanner(router, keep, low))
        layers, differ = settle(mask, tolerance)
        planner = BatchPlanner(router, keep, low, layers)
        share, _ = _measure(subnetwork, router, batches, planner)
        return Settled(router, keep, low, layers, share, differ, len(mask), head_price)

    @property
    def asked(self) -> int:
        """How many layers the router is asked in."""
        return sum(layer is None for layer in self.layers)

    def at(self, keep: float | LatencyBudget) -> Settled:
        """Itself, if `keep` is the budget that it was settled for; else LabError."""
        if keep != self.keep:
            given = "a budget in time" if isinstance(keep, LatencyBudget) else f"keep={keep}"
            raise LabError(
                got=f"{given} with a router settled for {self.keep}",
                allowed=f"keep={self.keep}",
                hint="leave keep out, or settle it for another budget with lab.settled(keep)",
            )
        return self

    def planner(self, packed: Sequence[PackedLayer] = ()) -> Planner:
        """The plan of single inputs, for `SubNetwork.run`.

        With that network's `packed` the weights of the settled layers are copied together now, once.
        """
        return Planner(self.router, self.keep, self.budget, self.layers, packed)

    def batch_planner(self) -> BatchPlanner:
        """The plan of batches, for `run_together`."""
        return BatchPlanner(self.router, self.keep, self.budget, self.layers)

    def macs(self, cost: CostModel, length: int) -> int:
        """The router's own MACs for one input of `length` tokens, in the layers it is asked in."""
        return self.router.macs(cost, length, self.asked)

    def report(self) -> Report:
        """What was found."""
        asked = [str(number + 1) for number, layer in enumerate(self.layers) if layer is None]
        rows: tuple[tuple[str, str], ...] = (
            ("budget, mean share of MACs", f"{self.keep:g}"),
            ("layers that the router is asked in", ", ".join(asked) or "none"),
            ("decisions that settling changes", f"{100 * self.differ:.1f} %"),
            ("mean share of MACs", f"{self.share:.3f}"),
        )
        if self.head_price:
            rows += (("price on heads, in logits", f"{self.head_price:g}"),)
        notes: tuple[str, ...] = (f"On {self.texts} texts that it was settled on.",)
        if abs(self.share - self.keep) > FAR:
            notes += ("The router cannot bring these texts to that budget.",)
        return Report("Settled router", rows, notes=notes)


def settle(mask: Mask, tolerance: float = TOLERANCE) -> tuple[Settlements, float]:
    """The layers whose masks hardly vary between inputs, with their usual mask; and the share that differs.

    >>> heads = torch.tensor([[[True], [True]], [[True], [False]], [[True], [True]]])
    >>> settle(Mask(heads, heads), tolerance=0.1)
    ((((True,), (True,)), None), 0.0)
    """
    kept = torch.cat([mask.heads, mask.blocks], dim=-1)
    usual = kept.double().mean(0) > 0.5
    differ = (kept != usual).double().mean(dim=(0, 2))
    heads = mask.heads.shape[-1]
    layers = tuple(
        (tuple(row[:heads]), tuple(row[heads:])) if share <= tolerance else None
        for row, share in zip(usual.tolist(), differ.tolist(), strict=True)
    )
    return layers, float(torch.where(differ <= tolerance, differ, 0.0).mean())


def _measure(
    subnetwork: SubNetwork, router: Router, batches: Sequence[Inputs], planner: BatchPlanner
) -> tuple[float, Mask]:
    """The mean share of MACs, the router's own included, and all masks."""
    cost, shares, masks = CostModel.of(subnetwork.anatomy), [], []
    for inputs in batches:
        run_together(subnetwork, inputs, planner)
        mask = planner.mask
        mask = Mask(mask.heads.cpu(), mask.blocks.cpu())
        shares.append(run_shares(cost, router, planner, lengths(inputs).cpu(), mask))
        masks.append(mask)
    return float(torch.cat(shares).mean()), Mask.stack(masks)


def run_shares(cost: CostModel, router: Router, planner: BatchPlanner, real: Tensor, mask: Mask) -> Tensor:
    """The shares [batch] of the dense encoder's MACs that a planner's last run took, deciding included.

    real [batch] and mask, those of that run, are on the CPU.
    """
    own = torch.tensor([router.macs(cost, n, planner.asked) for n in real.tolist()])
    return (cost.masked(mask, real) + own) / cost.dense(real)
