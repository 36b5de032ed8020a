"""Language models under masks: perplexity and agreement on passages, right answers, with controls.

Protocol: the first half of a passage is the prompt, which is scored; one mask is planned and serves both
halves; loss and agreement with the whole model's next token are taken on the second half only. Beside the
own mask run its static twin (the mean of the same scorer over all other passages, same budget) and a
mismatched mask (another passage's, of another kind).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dsgp_lab.errors import LabError
from dsgp_lab.language import LANGUAGE_SCORERS, LanguageLab, mean_scores
from dsgp_lab.language_data import Passage, Prompt, load_passages, load_prompts
from dsgp_lab.mask import Mask
from dsgp_lab.plan import Scope, check_keep
from dsgp_lab.report import Report
from dsgp_lab.sensitivity import Flap, Scorer, Sensitivity

RESAMPLES = 2000
DYNAMIC = tuple(name for name in LANGUAGE_SCORERS if name != "constant")
"""Scorers that look at the prompt (and random); the constant one is their static twin."""


@dataclass(frozen=True)
class Quality:
    """One kind of mask on all passages: mean loss of the second halves in nats, and agreement.

    agreement: share of tokens at which the whole model's choice is kept; losses: the mean of each passage.
    """

    loss: float
    agreement: float
    losses: tuple[float, ...] = field(repr=False)

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(self.loss)


@dataclass(frozen=True)
class LanguageRow:
    """One scorer at one budget. `macs` is the share of the layers' MACs that ran, the scorer's left out.

    gain: loss of the static twin minus that of the own mask, in nats, with its 95 % interval (bootstrap over
    passages): above 0, looking at the prompt helped. right: share of right answers, None if not asked for.
    """

    scorer: str
    keep: float
    macs: float
    own: Quality
    static: Quality | None
    mismatched: Quality
    gain: tuple[float, float, float] | None
    right: float | None = None


@dataclass(frozen=True)
class LanguageTable:
    """All rows of one evaluation, and the whole model's values."""

    model: str
    scope: str
    dense: Quality
    dense_right: float | None
    rows: tuple[LanguageRow, ...]
    passages: int
    prompts: int

    def report(self) -> Report:
        """Rows for print and notebook."""

        def values(quality: Quality | None) -> tuple[str, str]:
            return ("", "") if quality is None else (f"{quality.perplexity:.2f}", f"{quality.agreement:.2f}")

        def line(row: LanguageRow) -> tuple[str, ...]:
            parts = (row.own, row.static, row.mismatched)
            both = [values(part) for part in parts]
            gain = "" if row.gain is None else "{:+.3f} ({:+.3f} to {:+.3f})".format(*row.gain)
            right = "" if row.right is None else f"{row.right:.2f}"
            return (
                row.scorer,
                f"{row.macs:.2f}",
                *(ppl for ppl, _ in both),
                gain,
                *(agreement for _, agreement in both),
                right,
            )

        dense = ("dense", "1.00", f"{self.dense.perplexity:.2f}", "", "", "", "1.00", "", "")
        answers = "" if self.dense_right is None else f"{self.dense_right:.2f}"
        header: tuple[str, ...] = ("scorer", "MACs", "perplexity", "static", "mismatched", "gain in nats")
        header += ("agreement", "static", "mismatched", "right answers")
        notes: tuple[str, ...] = (
            f"{self.model}; second halves of {self.passages} passages; plan: scope {self.scope}."
            " MACs are those of the layers, the scorer's left out. Gain: loss of the"
            " static twin minus loss of the own mask, 95 % interval over passages.",
        )
        if self.prompts:
            notes += (f"Right answers: share of {self.prompts} prompts, 24 tokens, greedy.",)
        return Report("Pruned per prompt", ((*dense, answers), *map(line, self.rows)), header, notes)

    def record(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """A text table."""
        return self.report().text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.report().html()


@dataclass(frozen=True)
class _Half:
    """A passage as tokens: the prompt is ids[:start]."""

    ids: list[int]
    start: int


def evaluate_language(
    lab: LanguageLab,
    scorers: Sequence[str] = DYNAMIC,
    keeps: Sequence[float] = (0.8, 0.7, 0.6),
    scope: Scope = "layer",
    cut_attention: bool = False,
    passages: Sequence[Passage] | None = None,
    prompts: Sequence[Prompt] = (),
    say: Callable[[str], None] = lambda line: None,
) -> LanguageTable:
    """Evaluate scorers at budgets, each beside its static twin and mismatched masks.

    `prompts` are answered too, with the own mask of each. Raises LabError for unknown names or budgets, and
    for fewer than three passages.
    """
    unknown = [name for name in scorers if name not in DYNAMIC]
    if unknown or not scorers:
        raise LabError(
            got=f"scorers {', '.join(unknown) or '(none)'}",
            allowed=", ".join(DYNAMIC),
            hint="use these names; their static twins run beside them",
        )
    for keep in keeps:
        check_keep(keep)
    halves = _halves(lab, load_passages() if passages is None else passages)
    whole = [lab.losses(half.ids, half.start) for half in halves]
    plan = partial(lab.plan, scope=scope, cut_attention=cut_attention)
    rows = []
    for name in scorers:
        made = _scorer(lab, name, halves)
        scores = [made(lab.anatomy, lab.as_inputs(half.ids[: half.start])) for half in halves]
        for keep in keeps:
            right = answers(lab, prompts, made, keep, scope, cut_attention) if prompts else None
            rows.append(_row(lab, name, keep, plan, halves, whole, scores, right))
            say(f"{name} at {keep:g}: perplexity {rows[-1].own.perplexity:.2f}")
    return LanguageTable(
        model=lab.name,
        scope=f"{scope}, attention {'cut too' if cut_attention else 'whole'}",
        dense=_quality(whole, whole),
        dense_right=answers(lab, prompts) if prompts else None,
        rows=tuple(rows),
        passages=len(halves),
        prompts=len(prompts),
    )


def neuron_overlap(a: Mask, b: Mask) -> float:
    """Neurons (blocks) that two masks of one input both keep, over those that either keeps.

    >>> heads = torch.ones(1, 1, 1, dtype=torch.bool)
    >>> masks = (Mask(heads, torch.tensor([[row]])) for row in ([True, True, False], [True, False, True]))
    >>> round(neuron_overlap(*masks), 3)
    0.333
    """
    both, either = (a.blocks & b.blocks).sum(), (a.blocks | b.blocks).sum()
    return float(both / either.clamp(min=1))


def answers(
    lab: LanguageLab,
    prompts: Sequence[Prompt] | None = None,
    scorer: str | Scorer | None = None,
    keep: float = 1.0,
    scope: Scope = "layer",
    cut_attention: bool = False,
) -> float:
    """Share of prompts answered rightly, each under its own mask (no scorer: by the whole model)."""
    prompts = load_prompts() if prompts is None else prompts
    made = None if scorer is None else lab.scorer(scorer)
    right = 0
    for prompt in prompts:
        mask = None if made is None else lab.mask(prompt.text, keep, made, scope, cut_attention)
        right += prompt.is_right(lab.generate(prompt.text, mask, max_new_tokens=24).text)
    return right / len(prompts)


def _row(
    lab: LanguageLab,
    name: str,
    keep: float,
    plan: Callable[..., Mask],
    halves: Sequence[_Half],
    whole: Sequence[tuple[Tensor, Tensor]],
    scores: Sequence[Sensitivity],
    right: float | None,
) -> LanguageRow:
    starts = [torch.tensor([half.start], device=lab.anatomy.device) for half in halves]
    masks = [plan(s, n, keep) for s, n in zip(scores, starts, strict=True)]
    macs = [
        float(lab.cost.masked(mask, n)[0] / lab.cost.dense(n)[0])
        for mask, n in zip(masks, starts, strict=True)
    ]

    def quality(chosen: Sequence[Mask]) -> Quality:
        runs = [lab.losses(h.ids, h.start, m) for h, m in zip(halves, chosen, strict=True)]
        return _quality(runs, whole)

    own, static, gain = quality(masks), None, None
    if name != "random":
        twins = [mean_scores([*scores[:i], *scores[i + 1 :]]) for i in range(len(halves))]
        same = [
            plan(twin(lab.anatomy, lab.as_inputs(h.ids[: h.start])), n, keep)
            for twin, h, n in zip(twins, halves, starts, strict=True)
        ]
        static = quality(same)
        gain = _interval(np.array(static.losses) - np.array(own.losses))
    return LanguageRow(
        scorer=name,
        keep=keep,
        macs=float(np.mean(macs)),
        own=own,
        static=static,
        mismatched=quality([*masks[1:], masks[0]]),
        gain=gain,
        right=right,
    )


def _scorer(lab: LanguageLab, name: str, halves: Sequence[_Half]) -> Scorer:
    """FLAP's channel means come from the prompts, never from what is to be predicted."""
    if name == "flap":
        return Flap.fit(lab.anatomy, [lab.as_inputs(half.ids[: half.start]) for half in halves])
    return lab.scorer(name)


def _halves(lab: LanguageLab, passages: Sequence[Passage]) -> list[_Half]:
    encoded = [list(lab.tokenizer(passage.text)["input_ids"]) for passage in passages]
    short = [i for i, ids in enumerate(encoded) if len(ids) < 4]
    if len(encoded) < 3 or short:
        raise LabError(
            got=f"{len(encoded)} passages, {len(short)} of them under 4 tokens",
            allowed="at least 3 passages of at least 4 tokens",
            hint="leave passages out for the project's own",
        )
    return [_Half(ids, len(ids) // 2) for ids in encoded]


def _quality(runs: Sequence[tuple[Tensor, Tensor]], whole: Sequence[tuple[Tensor, Tensor]]) -> Quality:
    losses = tuple(float(loss.mean()) for loss, _ in runs)
    same = [float((a == b).float().mean()) for (_, a), (_, b) in zip(runs, whole, strict=True)]
    return Quality(float(np.mean(losses)), float(np.mean(same)), losses)


def _interval(differences: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % bootstrap interval.

    >>> _interval(np.array([0.5, 0.5, 0.5]))
    (0.5, 0.5, 0.5)
    """
    draws = np.random.default_rng(0).choice(differences, size=(RESAMPLES, len(differences))).mean(1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(differences.mean()), float(low), float(high)
