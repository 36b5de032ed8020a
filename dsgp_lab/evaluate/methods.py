"""The methods that are compared, by name: from a model, its router and calibration texts to predictions.

All run through the same compacted model within the same budget, so that they differ in the masks alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from dsgp_lab.anatomy import Anatomy, Inputs
from dsgp_lab.cascade import Cascade
from dsgp_lab.cost import CostModel
from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.pruned import (
    PrunedPredictions,
    mismatched,
    predict_by_lot,
    predict_cascade,
    predict_masked,
    predict_pruned,
)
from dsgp_lab.mask import Mask
from dsgp_lab.models import CARD
from dsgp_lab.regimes import FROZEN, SHARING, Regime, trained_folder, weights_folder
from dsgp_lab.router import Router
from dsgp_lab.sensitivity import Constant, FirstOrder, Fisher, Flap, Random, Scorer, WandaSp
from dsgp_lab.settled import HEAD_PRICE, Settled
from dsgp_lab.subnetwork import SubNetwork
from dsgp_lab.tasks import Examples, shared_outputs

Batches = Sequence[tuple[Inputs, Tensor]]
"""Calibration data: batches of inputs with their labels [batch]."""

DENSE, ROUTER_METHOD, TWIN = "dense", "router", "twin"
MISMATCHED, OTHER_TASK = "mismatched", "other_task"
SETTLED, PRICED = "settled", "settled_priced"
CASCADE, BY_LOT = "cascade", "cascade_by_lot"

METHODS: dict[str, str] = {
    DENSE: "every unit runs",
    "random": "random scores, fresh for every input",
    "static_first_order": "mean absolute gate gradients over calibration texts",
    "static_fisher": "mean squared gate gradients of the loss over calibration texts",
    "static_wanda_sp": "mean of weight size times input norm over calibration texts",
    "static_flap": "mean fluctuation around the channel means of calibration texts",
    TWIN: "the router's training with its input switched off: a learned static plan",
    ROUTER_METHOD: "the router: decides for every input as the model runs",
    MISMATCHED: "every input under the mask that the router made for another one",
    OTHER_TASK: "every input under a mask that the router made for an input of another task",
    SETTLED: "the router settled on calibration texts: budget met there, asked only where decisions vary",
    PRICED: "the same with a price on heads, which take more time an operation than blocks",
    CASCADE: "the twin's small mask first; unsure inputs run again in a larger one (no classes: the twin)",
    BY_LOT: "the cascade, but which inputs run again is drawn by lot",
    "oracle_first_order": "the input's own absolute gate gradients: looks at the whole model's run",
    "oracle_signed": "the input's own signed gate gradients: looks at the whole model's run",
}
"""Every method's name and what it is."""

STATIC: dict[str, Callable[[], Scorer]] = {
    "static_first_order": FirstOrder,
    "static_fisher": Fisher,
    "static_wanda_sp": WandaSp,
    "static_flap": Flap,
}
ORACLES: dict[str, Callable[[], Scorer]] = {
    "oracle_first_order": FirstOrder,
    "oracle_signed": partial(FirstOrder, signed=True),
}
BY_CHANCE = ("random", MISMATCHED, OTHER_TASK, BY_LOT)
"""Methods whose result depends on the seed of a run, not only on that of training."""

OF_TWIN = (TWIN, CASCADE, BY_LOT)
"""Methods that need a trained static twin."""

ROUTED = (*OF_TWIN, ROUTER_METHOD, MISMATCHED, OTHER_TASK, SETTLED, PRICED)
"""Methods that need a trained router or twin."""

ON_UNSEEN = (CASCADE, BY_LOT, SETTLED, PRICED)
"""Methods that are fitted on texts that no training has seen."""

CALIBRATED = (*STATIC, *ON_UNSEEN)
"""Methods that are fitted on texts first."""


def check_method(name: str) -> str:
    """A method's name, or a LabError that lists them.

    >>> check_method("router")
    'router'
    """
    if name not in METHODS:
        raise LabError(got=f"method {name!r}", allowed=", ".join(METHODS), hint="use one of these names")
    return name


def available_methods(task: str, regime: Regime, root: Path | None = None) -> tuple[str, ...]:
    """The methods that a task's checkpoints allow in a regime; `root` as in `load_trained`.

    Raises:
        LabError: an unknown task or regime.
    """
    if regime in SHARING and task not in shared_outputs():
        return ()  # WNLI is no part of the shared encoder
    routed, twin = ((trained_folder(task, regime, twin, root) / CARD).is_file() for twin in (False, True))
    weights = (weights_folder(task, regime, False, root) / CARD).is_file()
    needs = {TWIN: twin and (weights or regime not in FROZEN), ROUTER_METHOD: routed and weights}
    needs[CASCADE] = needs[BY_LOT] = needs[TWIN]
    needs[MISMATCHED] = needs[SETTLED] = needs[PRICED] = needs[ROUTER_METHOD]
    needs[OTHER_TASK] = needs[ROUTER_METHOD] and regime in SHARING
    return tuple(name for name in METHODS if needs.get(name, weights))


def best_regime(task: str, method: str, root: Path | None = None) -> Regime:
    """The regime whose weights a method is used with unless another is named: trained along, if there."""
    trained: tuple[Regime, ...] = ("adaptive", "joint")
    there = [each for each in trained if method in ROUTED and method in available_methods(task, each, root)]
    return there[0] if there else "frozen"


def make_method(
    name: str,
    anatomy: Anatomy,
    *,
    router: Router | None = None,
    calibration: Callable[[], Batches] | None = None,
    seed: int = 0,
) -> Scorer | Router | None:
    """What decides the masks of a method; None for "dense", where nothing is decided.

    `router` is the trained router (for `OF_TWIN` the constant one), `calibration` gives labelled batches and
    is called only by the static methods. "mismatched" and "other_task" give the router, whose masks are
    swapped afterwards.

    Raises:
        LabError: an unknown name, or a router or calibration data that the method needs and did not get.
    """
    check_method(name)
    if name in ROUTED:
        if router is None:
            raise LabError(
                got=f"method {name!r} without a router",
                allowed="a trained router",
                hint="make one with dsgp-lab train-router, or choose another method",
            )
        return router
    if name in STATIC:
        return _static(STATIC[name](), anatomy, _given(calibration, name)())
    if name == "random":
        return Random(seed)
    return ORACLES[name]() if name in ORACLES else None


def predict(
    name: str,
    made: Scorer | Router | None,
    subnetwork: SubNetwork,
    tokenizer: object,
    examples: Examples,
    keep: float,
    *,
    seed: int = 0,
    routed: PrunedPredictions | None = None,
    donors: Mask | None = None,
    calibration: Callable[[], Batches] | None = None,
) -> PrunedPredictions:
    """Run a method over examples within `keep` of the encoder's MACs; `made` is what `make_method` gave.

    "dense" runs every unit whatever `keep` says. "mismatched" permutes the router's masks by `seed`; they are
    those of `routed`, the router's own predictions, or made first. "other_task" draws each example's mask
    from `donors`, those of other tasks' inputs. The router's own MACs count there too. `ON_UNSEEN` methods
    are fitted on the inputs of `calibration` for this budget.

    Raises:
        LabError: "other_task" without donors, `ON_UNSEEN` methods without calibration data.
    """
    if made is None:
        return predict_masked(subnetwork, tokenizer, examples, Mask.full(subnetwork.anatomy))
    if name == MISMATCHED:
        routed = routed or predict_pruned(subnetwork, tokenizer, examples, made, keep)
        masks = mismatched(routed.masks, seed)
    elif name == OTHER_TASK:
        masks = _drawn(donors, len(examples), seed)
    elif name in (CASCADE, BY_LOT) and examples.task.is_regression:
        return predict_pruned(subnetwork, tokenizer, examples, made, keep)
    elif name in ON_UNSEEN and isinstance(made, Router):
        texts = [inputs for inputs, _ in _given(calibration, name)()]
        if name in (SETTLED, PRICED):
            price = HEAD_PRICE if name == PRICED else 0.0
            settled = Settled.fit(subnetwork, made, texts, keep, head_price=price)
            return predict_pruned(subnetwork, tokenizer, examples, settled, keep)
        cascade = Cascade.fit(subnetwork, made, texts, keep)
        if name == BY_LOT:
            return predict_by_lot(cascade, tokenizer, examples, seed)
        return predict_cascade(cascade, tokenizer, examples)
    else:
        return predict_pruned(subnetwork, tokenizer, examples, made, keep)
    swapped = predict_masked(subnetwork, tokenizer, examples, masks)
    cost = CostModel.of(subnetwork.anatomy)
    own = torch.tensor(
        [made.macs(cost, n) if isinstance(made, Router) else 0 for n in swapped.lengths.tolist()]
    )
    return replace(swapped, shares=swapped.shares + own / cost.dense(swapped.lengths))


def _given(calibration: Callable[[], Batches] | None, name: str) -> Callable[[], Batches]:
    if calibration is None:
        raise LabError(
            got=f"method {name!r} without calibration data",
            allowed="labelled batches of the task",
            hint="pass calibration=lambda: batches",
        )
    return calibration


def _drawn(donors: Mask | None, number: int, seed: int) -> Mask:
    """So many masks, drawn from the donors'."""
    if donors is None:
        raise LabError(
            got=f"method {OTHER_TASK!r} without masks",
            allowed="masks that the router made for inputs of other tasks",
            hint="pass donors=, or choose another method",
        )
    return donors[random.Random(seed).choices(range(len(donors)), k=number)]


def _static(scorer: Scorer, anatomy: Anatomy, batches: Batches) -> Constant:
    if isinstance(scorer, Flap):  # it measures fluctuation around the means of the same texts
        scorer = Flap.fit(anatomy, [inputs for inputs, _ in batches])
    return Constant.fit(anatomy, scorer, batches)
