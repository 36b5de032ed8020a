"""Predictions of a pruned model over a split, by the compacted run that is also timed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dsgp_lab.anatomy import Inputs
from dsgp_lab.batching import Encoded, collate, encode
from dsgp_lab.cascade import Cascade, margin
from dsgp_lab.cost import CostModel
from dsgp_lab.errors import LabError
from dsgp_lab.mask import Mask
from dsgp_lab.plan import check_keep, plan_mask
from dsgp_lab.router import Router
from dsgp_lab.router_planner import BatchPlanner, Planner
from dsgp_lab.sensitivity import Constant, Scorer, lengths
from dsgp_lab.settled import Settled
from dsgp_lab.subnetwork import SubNetwork
from dsgp_lab.tasks import Examples
from dsgp_lab.together import run_together

BATCH = 32


@dataclass(frozen=True, eq=False)
class PrunedPredictions:
    """What a pruned model gave for every example of a split, in its order.

    logits [examples, labels]; shares [examples], the part of the dense encoder's MACs that ran, the own cost
    of a scorer on the product path included; masks of all examples (in a cascade, the last that ran);
    lengths [examples] in tokens.
    """

    logits: Tensor
    shares: Tensor
    masks: Mask
    lengths: Tensor


def predict_pruned(
    subnetwork: SubNetwork,
    tokenizer: object,
    examples: Examples,
    method: Scorer | Router | Settled,
    keep: float,
    max_length: int = 128,
) -> PrunedPredictions:
    """Run every example under `method` within `keep` of the encoder's MACs, or what it was settled for.

    Batches hold examples of like length. A router decides for each of them as the model runs, its static twin
    once for all; scorers score a batch before it runs. Scores that need labels get none.

    Raises:
        LabError: an empty split, or a budget that is no share.
    """
    check_keep(keep)
    encoded = _encoded(tokenizer, examples, max_length)
    cost = CostModel.of(subnetwork.anatomy)
    if isinstance(method, Router) and not method.sees_input:
        return predict_masked(subnetwork, tokenizer, examples, Planner(method, keep).mask, max_length)

    def batch(inputs: Inputs) -> tuple[Tensor, Mask, Tensor]:
        real = lengths(inputs)
        if isinstance(method, Router | Settled):
            planner = BatchPlanner(method, keep) if isinstance(method, Router) else method.batch_planner()
            logits, mask = run_together(subnetwork, inputs, planner), planner.mask
            own = torch.tensor([method.macs(cost, n) for n in real.tolist()])
        else:
            sensitivity = method(subnetwork.anatomy, inputs)
            mask = plan_mask(sensitivity, cost, real, keep)
            logits = subnetwork(inputs, mask).logits
            own = torch.zeros_like(real) if sensitivity.oracle else sensitivity.macs
        return logits, mask, (cost.masked(mask, real) + own) / cost.dense(real)

    # a static mask differs only with the length, through what is left of the budget
    exact = isinstance(method, Constant)
    return _in_batches(encoded, tokenizer, BATCH, batch, same_length=exact)


def predict_masked(
    subnetwork: SubNetwork, tokenizer: object, examples: Examples, masks: Mask, max_length: int = 128
) -> PrunedPredictions:
    """Run every example under a mask given for it (or one for all)."""
    encoded = _encoded(tokenizer, examples, max_length)
    masks.check_fits(subnetwork.anatomy, len(encoded))
    every = masks if len(masks) == len(encoded) else Mask.stack([masks] * len(encoded))
    cost = CostModel.of(subnetwork.anatomy)
    ranked = iter(_by_length(encoded))

    def batch(inputs: Inputs) -> tuple[Tensor, Mask, Tensor]:
        mask = every[[next(ranked) for _ in range(len(inputs["input_ids"]))]]
        real = lengths(inputs)
        return subnetwork(inputs, mask).logits, mask, cost.masked(mask, real) / cost.dense(real)

    return _in_batches(encoded, tokenizer, BATCH, batch)


def predict_cascade(
    cascade: Cascade, tokenizer: object, examples: Examples, max_length: int = 128
) -> PrunedPredictions:
    """Run every example through a cascade; the MACs of both runs count where an example ran twice."""

    def batch(inputs: Inputs) -> tuple[Tensor, Mask, Tensor]:
        output = cascade(inputs)
        masks = [cascade.large if again else cascade.small for again in output.again.tolist()]
        return output.logits, Mask.stack(masks), cascade.shares(inputs, output.again)

    return _in_batches(_encoded(tokenizer, examples, max_length), tokenizer, BATCH, batch)


def predict_by_lot(
    cascade: Cascade, tokenizer: object, examples: Examples, seed: int = 0, max_length: int = 128
) -> PrunedPredictions:
    """A cascade in which chance decides who runs again: as many inputs as the margin would take, drawn."""
    first = predict_masked(cascade.subnetwork, tokenizer, examples, cascade.small, max_length)
    number = int((margin(first.logits) < cascade.threshold).sum())
    if not number:
        return first
    drawn = sorted(random.Random(seed).sample(range(len(examples)), number))
    again = predict_masked(cascade.subnetwork, tokenizer, examples.take(drawn), cascade.large, max_length)
    rows, masks = torch.tensor(drawn), [first.masks[[i]] for i in range(len(examples))]
    for row in drawn:
        masks[row] = cascade.large
    return PrunedPredictions(
        first.logits.index_copy(0, rows, again.logits),
        first.shares.index_add(0, rows, again.shares),
        Mask.stack(masks),
        first.lengths,
    )


def mismatched(masks: Mask, seed: int = 0) -> Mask:
    """Every example gets another one's mask: positions shuffled, then each takes its neighbour's.

    >>> masks = Mask(torch.eye(3, dtype=torch.bool)[:, None], torch.ones(3, 1, 1, dtype=torch.bool))
    >>> bool((mismatched(masks).heads == masks.heads).all(-1).any())
    False
    """
    order = list(range(len(masks)))
    random.Random(seed).shuffle(order)
    source = [0] * len(order)
    for place, position in enumerate(order):
        source[position] = order[place - 1]
    return masks[source]


def _encoded(tokenizer: object, examples: Examples, max_length: int) -> list[Encoded]:
    if not len(examples):
        raise LabError(got="no examples", allowed="at least one", hint="choose another split or file")
    return encode(tokenizer, examples.texts, max_length)


def _by_length(encoded: list[Encoded]) -> list[int]:
    return sorted(range(len(encoded)), key=lambda i: len(encoded[i].ids))


def _in_batches(
    encoded: list[Encoded],
    tokenizer: object,
    size: int,
    run: Callable[[Inputs], tuple[Tensor, Mask, Tensor]],
    same_length: bool = False,
) -> PrunedPredictions:
    """Run batches in the order of length and put the results back into the order of the examples."""
    order = _by_length(encoded)
    parts = []
    start = 0
    while start < len(order):
        stop = min(start + size, len(order))
        if same_length:
            length = len(encoded[order[start]].ids)
            stop = next((i for i in range(start, stop) if len(encoded[order[i]].ids) != length), stop)
        chosen = [encoded[i] for i in order[start:stop]]
        inputs = collate(chosen, getattr(tokenizer, "pad_token_id", 0))
        parts.append((*run(inputs), lengths(inputs)))
        start = stop
    logits, masks, shares, real = zip(*parts, strict=True)
    back = torch.tensor(order).argsort()
    return PrunedPredictions(
        torch.cat(logits)[back], torch.cat(shares)[back], Mask.stack(masks)[back], torch.cat(real)[back]
    )
