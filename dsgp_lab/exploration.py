"""Exploration: what the explorer panel computes, step by step, without a widget in sight.

The steps are those of `Lab.prune`, taken apart so that a panel can do the cheap ones at once (plan, count
operations) and the others in its own time (score, run, measure).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dsgp_lab.attention import attention_weights
from dsgp_lab.cost import Macs
from dsgp_lab.edits import Unit, edit_mask
from dsgp_lab.errors import LabError
from dsgp_lab.exploration_results import Cancelled, Choice, Outcome, Planned, Scored, Toggled
from dsgp_lab.gates import gated
from dsgp_lab.mask import Mask
from dsgp_lab.plan import check_keep, plan_mask
from dsgp_lab.regimes import REGIMES, SHARING, Regime, trained_folder
from dsgp_lab.router import Router
from dsgp_lab.router_planner import Planner
from dsgp_lab.sensitivity import FirstOrder, Scorer, Sensitivity, lengths
from dsgp_lab.tasks import TASKS, data_folder, task_folder

if TYPE_CHECKING:
    from dsgp_lab.evaluate.latency import LatencyTable
    from dsgp_lab.lab import Lab

DENSE, CUT = "dense", "cut"
SCORER_NAMES = ("first_order", "activation_norm", "wanda_sp", "fisher", "flap", "leave_one_out", "constant",
                "random")  # fmt: skip
MODELS_HELD = 3
"""Labs of other tasks that an exploration keeps in memory."""


class Exploration:
    """The model side of one explorer: labs by task, scorers by name, each made once.

    Methods may take seconds and are called from one thread at a time.
    """

    def __init__(self, lab: Lab) -> None:
        self.first = lab
        self._labs: dict[tuple[str, Regime], Lab] = {(lab.name, lab.regime): lab}
        self._scorers: dict[tuple[str, Regime, str], Scorer | Router] = {}
        self._attention: tuple[Scored, Tensor] | None = None
        self._signed: tuple[Scored, Sensitivity] | None = None

    def models(self) -> tuple[tuple[str, Regime], ...]:
        """The tasks and regimes that have a checkpoint here; for a model of one's own, it alone."""
        own = (self.first.name, self.first.regime)
        if self.first.task is None:
            return (own,)
        found = [
            (task, regime)
            for task in TASKS
            for regime in REGIMES
            if regime not in SHARING and _has_model(task, regime)
        ]
        return tuple(dict.fromkeys((own, *found)))

    def scorers(self, task: str, regime: Regime) -> tuple[str, ...]:
        """Names of the scorers there are for a model, the trained router first where there is one."""
        if task not in TASKS or self.first.task is None:
            return tuple(name for name in SCORER_NAMES if name not in ("constant", "flap"))
        trained = [
            name
            for name, twin in (("router", False), ("twin", True))
            if (trained_folder(task, regime, twin) / "card.json").is_file()
        ]
        calibrated = (data_folder() / "teaching" / f"{task}.jsonl").is_file()
        others = [name for name in SCORER_NAMES if calibrated or name not in ("constant", "flap")]
        return (*trained, *others)

    def lab(self, choice: Choice) -> Lab:
        """The lab of a choice's task and regime, loaded when first asked for."""
        key = (choice.task, choice.regime)
        if key not in self._labs:
            from dsgp_lab.lab import Lab

            while len(self._labs) >= MODELS_HELD:
                oldest = next(key for key, lab in self._labs.items() if lab is not self.first)
                del self._labs[oldest]
            self._labs[key] = Lab(choice.task, regime=choice.regime)
        return self._labs[key]

    def is_loaded(self, choice: Choice) -> bool:
        """Whether the choice's model is in memory."""
        return (choice.task, choice.regime) in self._labs

    def wants_pair(self, task: str, choice: Choice) -> bool:
        """Whether a task reads two texts; a model of one's own reads what it was given."""
        if task in TASKS and self.first.task is not None:
            return TASKS[task].is_pair
        return not isinstance(choice.text, str)

    def check(self, choice: Choice, now: Choice) -> None:
        """Raise LabError for a choice that no control could be set to; `score` looks into the text."""
        check_keep(choice.keep)
        columns = (choice.text,) if isinstance(choice.text, str) else choice.text
        if not isinstance(columns, tuple) or len(columns) not in (1, 2) or {*map(type, columns)} != {str}:
            raise LabError(
                got=f"{type(choice.text).__name__} {choice.text!r:.60}",
                allowed="a text, or a pair of texts",
                hint="pass text in quotes",
            )
        if (choice.task, choice.regime) not in (known := self.models()):
            raise LabError(
                got=f"task={choice.task!r}, regime={choice.regime!r}",
                allowed="; ".join(f"{shown_name(task)}, {regime}" for task, regime in known),
                hint="choose one of these, or train it first",
            )
        if choice.scorer not in (names := (now.scorer, *self.scorers(choice.task, choice.regime))):
            raise LabError(
                got=f"scorer={choice.scorer!r}", allowed=", ".join(names), hint="choose one of these"
            )

    def score(self, choice: Choice) -> Scored:
        """Read, run densely and score the text of a choice."""
        lab = self.lab(choice)
        inputs = lab.encode([choice.text])
        made = self._scorer(lab, choice)
        scores = None if isinstance(made, Router) else made(lab.anatomy, inputs)
        return Scored(
            text=choice.text,
            inputs=inputs,
            tokens=lab.tokens(choice.text),
            dense=lab.prediction(lab.subnetwork.dense(inputs)[0]),
            scorer=made,
            sensitivity=scores,
            notices=lab.notices(choice.text, inputs),
        )

    def plan(self, choice: Choice, scored: Scored) -> Planned:
        """Mask and operations under the choice's budget and edits.

        Milliseconds, except for a router, which needs a run of the cut model.
        """
        lab, real = self.lab(choice), lengths(scored.inputs)
        if scored.sensitivity is None:
            planner = self._planner(choice, scored)
            lab.subnetwork.run(scored.inputs, planner)
            both = torch.sigmoid(planner.logits)[None]
            assert isinstance(scored.scorer, Router)
            macs = torch.tensor([scored.scorer.macs(lab.cost, int(real[0]))])
            heads, blocks = both[..., : lab.cost.num_heads], both[..., lab.cost.num_heads :]
            scores = Sensitivity(heads, blocks, choice.scorer, macs, planner.seconds, oracle=False)
            planned = planner.mask
        else:
            scores = scored.sensitivity
            planned = plan_mask(scores, lab.cost, real, choice.keep)
        mask = edit_mask(planned, scores, choice.heads, choice.blocks, choice.flipped)
        return Planned(mask, scores, self.macs(choice, scored, mask, scores))

    def macs(self, choice: Choice, scored: Scored, mask: Mask, scores: Sensitivity) -> Macs:
        """Operations under a mask."""
        lab, real = self.lab(choice), lengths(scored.inputs)
        kept, dense = int(lab.cost.masked(mask, real)[0]), int(lab.cost.dense(real)[0])
        return Macs(kept, dense, int(scores.macs[0]), charged=not scores.oracle)

    def run(self, choice: Choice, scored: Scored, mask: Mask, toggled: Unit | None = None) -> Outcome:
        """The cut model's prediction, checked against the gated run; the effect of one unit, if asked for."""
        lab = self.lab(choice)
        logits = lab.subnetwork(scored.inputs, mask).logits
        with torch.inference_mode(), gated(lab.anatomy, mask):
            masked = lab.model(**scored.inputs).logits
        return Outcome(
            prediction=lab.prediction(logits[0]),
            margin=scored.dense.margin_in(logits[0]),
            difference=float((masked - logits).abs().max()),
            toggled=None if toggled is None else self._toggled(lab, scored, mask, toggled),
        )

    def latency(
        self,
        choice: Choice,
        scored: Scored,
        mask: Mask,
        rounds: int,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> LatencyTable:
        """Time of the cut run beside the dense run, in paired rounds, with the dense run against itself.

        A router's run holds its decisions; for the other scorers, scoring and planning are not timed here.
        Raises Cancelled as soon as `cancelled` says so.
        """
        from dsgp_lab.evaluate.latency import measure_latency

        lab = self.lab(choice)
        planner = self._planner(choice, scored) if scored.sensitivity is None and not choice.edited else None

        def cut() -> None:
            lab.subnetwork.run(scored.inputs, planner or lab.subnetwork.select(mask))

        def dense() -> None:
            if cancelled():
                raise Cancelled
            lab.subnetwork.dense(scored.inputs)

        setting = f"{shown_name(lab.name)}, {len(scored.tokens)} tokens, batch 1"
        return measure_latency({DENSE: dense, CUT: cut}, DENSE, rounds=rounds, warmup=1, setting=setting)

    def rounds_in(self, choice: Choice, scored: Scored, seconds: float) -> int:
        """How many rounds of `latency` fit into some seconds, from 5 to 100."""
        start = time.perf_counter()
        self.lab(choice).subnetwork.dense(scored.inputs)
        one = 3 * (time.perf_counter() - start)  # dense, dense again, cut
        return min(100, max(5, int(seconds / one)))

    def neurons(self, choice: Choice, scored: Scored, unit: Unit) -> tuple[Tensor, Tensor]:
        """Signed slopes of a block's neurons [neurons], and their numbers in the model [neurons]."""
        anatomy = self.lab(choice).anatomy
        signed = self._slopes(self.lab(choice), scored)
        assert signed.neurons is not None
        values = anatomy.into_blocks(signed.neurons)[0, unit.layer, unit.number]
        size = anatomy.block_size
        return values, anatomy.order[unit.layer, unit.number * size : (unit.number + 1) * size]

    def attention(self, choice: Choice, scored: Scored, unit: Unit) -> Tensor:
        """What a head attends to in the whole model [query, key]."""
        if self._attention is None or self._attention[0] is not scored:
            self._attention = (scored, attention_weights(self.lab(choice).anatomy, scored.inputs)[0])
        return self._attention[1][unit.layer, unit.number]

    def _scorer(self, lab: Lab, choice: Choice) -> Scorer | Router:
        key = (choice.task, choice.regime, choice.scorer)
        if key not in self._scorers:
            self._scorers[key] = lab.scorer(choice.scorer)
        return self._scorers[key]

    def _planner(self, choice: Choice, scored: Scored) -> Planner:
        assert isinstance(scored.scorer, Router)
        return Planner(scored.scorer, check_keep(choice.keep))

    def _slopes(self, lab: Lab, scored: Scored) -> Sensitivity:
        if self._signed is None or self._signed[0] is not scored:
            self._signed = (scored, FirstOrder(signed=True)(lab.anatomy, scored.inputs))
        return self._signed[1]

    def _toggled(self, lab: Lab, scored: Scored, mask: Mask, unit: Unit) -> Toggled:
        slopes = self._slopes(lab, scored)
        part = slopes.heads if unit.kind == "head" else slopes.blocks

        def drop(around: Mask) -> float:
            margins = [
                scored.dense.margin_in(lab.subnetwork(scored.inputs, with_unit(around, unit, runs)).logits[0])
                for runs in (True, False)
            ]
            return margins[0] - margins[1]

        runs = bool((mask.heads if unit.kind == "head" else mask.blocks)[0, unit.layer, unit.number])
        estimate = float(part[0, unit.layer, unit.number])
        return Toggled(unit, runs, estimate, alone=drop(Mask.full(lab.anatomy)), here=drop(mask))


def with_unit(mask: Mask, unit: Unit, runs: bool) -> Mask:
    """A copy of one input's mask in which the unit runs, or does not."""
    heads, blocks = mask.heads.clone(), mask.blocks.clone()
    (heads if unit.kind == "head" else blocks)[0, unit.layer, unit.number] = runs
    return Mask(heads, blocks)


def shown_name(model: str) -> str:
    """What a model is called on screen and in files: a folder by its last part, not by its path."""
    return Path(model).name if Path(model).is_dir() else model


def _has_model(task: str, regime: Regime) -> bool:
    folder = task_folder(task)
    return ((folder if regime == "frozen" else folder / regime) / "card.json").is_file()
