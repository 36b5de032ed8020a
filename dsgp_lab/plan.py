"""Plan: from a budget and a sensitivity to a mask.

One rule: units are taken in the order of score per MAC until the budget is spent; what is left
over goes to the best units that still fit. The scorer's own MACs are part of the budget, unless it
is an oracle.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Literal, get_args

import torch
from torch import Tensor

from dsgp_lab.cost import CostModel
from dsgp_lab.errors import LabError
from dsgp_lab.latency_budget import LatencyBudget, plan_latency
from dsgp_lab.mask import Mask
from dsgp_lab.sensitivity.base import Sensitivity

Scope = Literal["global", "layer"]


def check_keep(keep: float) -> float:
    """A kept share above 0 and at most 1, or a LabError.

    >>> check_keep(0.6)
    0.6
    """
    number = isinstance(keep, Real) and not isinstance(keep, bool)
    if not number or not 0 < keep <= 1:
        raise LabError(
            got=f"keep={keep!r}" + (" (a text)" if isinstance(keep, str) else ""),
            allowed="a number above 0 and at most 1: the share of the encoder's MACs that may run",
            hint="write keep=0.6 to keep 60 %",
        )
    return float(keep)


def plan_mask(
    sensitivity: Sensitivity,
    cost: CostModel,
    lengths: Tensor,
    keep: float | LatencyBudget,
    scope: Scope = "global",
    floor: int = 0,
) -> Mask:
    """The mask of each input within `keep` of the dense encoder's MACs at its real length.

    A `LatencyBudget` as `keep` limits the predicted time instead (see `plan_latency`).
    `lengths` [batch] counts real tokens. `scope="global"` ranks all units of the model together;
    `"layer"` gives each layer the same share, for scores that do not compare across layers.
    `floor` units of each kind are kept in every layer whatever their score.
    Raises LabError for a budget that is no share, or that the scorer or the floor alone exceeds.
    """
    if isinstance(keep, LatencyBudget):
        if scope != "global" or floor:
            raise LabError(
                got=f"scope={scope!r} and floor={floor!r} with a latency budget",
                allowed="scope='global' and floor=0",
                hint="leave both out, or give a budget in MACs",
            )
        return plan_latency(sensitivity, keep, lengths)
    check_keep(keep)
    if scope not in get_args(Scope):
        raise LabError(
            got=f"scope={scope!r}", allowed="'global' or 'layer'", hint="leave it out for 'global'"
        )
    most = min(cost.num_heads, cost.num_blocks)
    if not isinstance(floor, int) or isinstance(floor, bool) or not 0 <= floor <= most:
        raise LabError(
            got=f"floor={floor!r}",
            allowed=f"a whole number from 0 to {most} units of each kind",
            hint="floor=1 keeps at least one head and one block in every layer",
        )
    if len(lengths) != len(sensitivity):
        raise LabError(
            got=f"{len(lengths)} lengths for scores of {len(sensitivity)} inputs",
            allowed="the number of real tokens of each input [batch]",
            hint="use lengths(inputs) of the inputs that were scored",
        )
    dense = cost.dense(lengths).double()
    charged = torch.zeros_like(dense) if sensitivity.oracle else sensitivity.macs.to(dense)
    budget = keep * dense - charged
    _check_budget(budget, charged, dense, keep, floor, cost, lengths, sensitivity.scorer)

    scores = torch.cat([sensitivity.heads, sensitivity.blocks], dim=-1).double()
    unit_macs = torch.cat(
        [
            cost.head(lengths)[:, None].expand(-1, cost.num_heads),
            cost.block(lengths)[:, None].expand(-1, cost.num_blocks),
        ],
        dim=-1,
    ).double()[:, None, :]
    unit_macs = unit_macs.expand_as(scores)
    per_mac = scores / unit_macs
    if floor:
        for part in (slice(0, cost.num_heads), slice(cost.num_heads, None)):
            top = scores[..., part].topk(floor, dim=-1).indices
            per_mac[..., part] = per_mac[..., part].scatter(-1, top, math.inf)
    if scope == "global":
        kept = _fill(per_mac.flatten(1), unit_macs.flatten(1), budget)
    else:
        share = (budget / cost.num_layers).repeat_interleave(cost.num_layers)
        kept = _fill(per_mac.flatten(0, 1), unit_macs.flatten(0, 1), share)
    kept = kept.view_as(scores)
    return Mask(kept[..., : cost.num_heads].contiguous(), kept[..., cost.num_heads :].contiguous())


def _fill(per_mac: Tensor, unit_macs: Tensor, budget: Tensor) -> Tensor:
    """Units [rows, units] taken in the order of score per MAC within budget [rows] -> bool [rows, units].

    >>> score, macs = torch.tensor([[5.0, 9.0, 1.0, 4.0]]), torch.tensor([[1.0, 3.0, 1.0, 1.0]])
    >>> _fill(score / macs, macs, torch.tensor([3.0])).tolist()
    [[True, False, True, True]]
    """
    ranked = per_mac.argsort(dim=1, descending=True, stable=True)
    ranked_macs = unit_macs.gather(1, ranked)
    limit = budget[:, None] * (1 + 1e-9)
    taken = ranked_macs.cumsum(1) <= limit
    while True:
        left = limit - (ranked_macs * taken).sum(1, keepdim=True)
        fits = (ranked_macs <= left) & ~taken
        if not fits.any():
            break
        best = fits & (fits.cumsum(1) == 1)
        taken = taken | best
    return torch.zeros_like(taken).scatter(1, ranked, taken)


def _check_budget(
    budget: Tensor,
    charged: Tensor,
    dense: Tensor,
    keep: float,
    floor: int,
    cost: CostModel,
    lengths: Tensor,
    scorer: str,
) -> None:
    least = floor * cost.num_layers * (cost.head(lengths) + cost.block(lengths))
    short = budget < least
    if short.any():
        row = int(short.nonzero()[0, 0])
        scorer_share, floor_share = (float(part[row] / dense[row]) for part in (charged, least))
        raise LabError(
            got=f"keep={keep:g} for input {row}, whose scorer {scorer!r} costs {scorer_share:.3f} of the"
            f" dense MACs and whose floor of {floor} needs {floor_share:.3f}",
            allowed=f"keep of at least {scorer_share + floor_share:.3f} here",
            hint="raise keep, lower the floor, or use a cheaper scorer",
        )
