"""Policy: how scores of a prompt become a mask, and what stands in for the units that are cut."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dsgp_lab.cost import CostModel
from dsgp_lab.errors import LabError
from dsgp_lab.mask import Mask
from dsgp_lab.plan import Scope, check_keep, plan_mask
from dsgp_lab.sensitivity import Sensitivity


@dataclass(frozen=True)
class Policy:
    """How a language model is cut to a prompt; by default as GRIFFIN does it.

    scope: "layer" gives every layer the same share, "global" lets the units of all layers compete.
    cut_attention: KV groups compete with neurons; by default attention stays whole, as scores of groups and
    of neurons, and of different layers, compare badly.
    repair: units that are cut are replaced by their mean over calibration texts, which is added to the bias
    of the output projection (FLAP's bias repair; An et al. 2024, arXiv 2312.11983). Cost: one addition a
    layer and token, and one product of a vector and a matrix a layer as the cut is made.
    """

    scope: Scope = "layer"
    cut_attention: bool = False
    repair: bool = False

    def __str__(self) -> str:
        """In words.

        >>> str(Policy())
        'scope layer, attention whole'
        """
        attention = "attention cut too" if self.cut_attention else "attention whole"
        return f"scope {self.scope}, {attention}{', bias repaired' * self.repair}"

    def plan(self, scores: Sensitivity, cost: CostModel, lengths: Tensor, keep: float) -> Mask:
        """Masks within a share `keep` of the layers' MACs for inputs of so many tokens [batch].

        The scorer's own MACs are not taken off: they are paid once a prompt, the mask's at every token.
        Raises LabError for a budget that whole attention alone exceeds.
        """
        scores = replace(scores, macs=torch.zeros_like(scores.macs))
        self.check(cost, int(lengths.max()), keep)
        return plan_mask(scores, cost, lengths, keep, self.scope, self._floor(cost))

    def check(self, cost: CostModel, tokens: int, keep: float) -> float:
        """Return a budget that masks can be planned within, for so many tokens or fewer.

        Raises:
            LabError: no share, or one that whole attention alone exceeds.
        """
        least = self._floor(cost) * (cost.head(tokens) + cost.block(tokens)) / cost.layer(tokens)
        if check_keep(keep) < least:
            raise LabError(
                got=f"keep={keep:g} with whole attention",
                allowed=f"at least {least:.3f} for {tokens} tokens in this model",
                hint="raise keep, or pass policy=Policy(cut_attention=True)",
            )
        return keep

    def _floor(self, cost: CostModel) -> int:
        """KV groups, and as many blocks, that every layer keeps."""
        return 0 if self.cut_attention else min(cost.num_heads, cost.num_blocks)


GRIFFINS_OWN = Policy()


def check_attention_whole(mask: Mask, block_size: int) -> None:
    """Raise LabError for a mask that cuts attention, as blocks so large that there are few of them force."""
    if not bool(mask.heads.all()):
        raise LabError(
            got=f"blocks of {block_size} neurons, too few to plan with whole attention",
            allowed="smaller blocks",
            hint="make the lab with block_size=1",
        )
