"""Language models under masks: perplexity and agreement on passages, right answers, with controls.

Protocol: the first half of a passage is the prompt, which is scored; one mask is planned and serves both
halves; loss and agreement with the whole model's next token are taken on the second half only. Beside the
own mask run its static twin (the mean of the same scorer over all other passages, same budget) and a
mismatched mask (another passage's, of another kind).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.language_table import LanguageRow, LanguageTable, Quality, interval
from dsgp_lab.evaluate.latency import machine
from dsgp_lab.language import LanguageLab
from dsgp_lab.language_data import Passage, Prompt, load_passages, load_prompts
from dsgp_lab.language_policy import GRIFFINS_OWN, Policy
from dsgp_lab.language_scorers import DYNAMIC, dynamic_scorers, layer_means, mean_scores, prompt_scorer
from dsgp_lab.mask import Mask
from dsgp_lab.packed_decoder import Means
from dsgp_lab.sensitivity import Scorer, Sensitivity, lengths

USUAL = {"dtype": "float32", "device": "cpu", "block_size": "1"}
"""What tables were measured with that do not say it."""


@dataclass(frozen=True)
class _Half:
    """A passage as tokens: the prompt is ids[:start]."""

    ids: list[int]
    start: int

    @property
    def prompt(self) -> list[int]:
        return self.ids[: self.start]


def evaluate_language(
    lab: LanguageLab,
    scorers: Sequence[str] | None = None,
    keeps: Sequence[float] = (0.8, 0.7, 0.6),
    policy: Policy = GRIFFINS_OWN,
    passages: Sequence[Passage] | None = None,
    prompts: Sequence[Prompt] = (),
    out: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> LanguageTable:
    """Evaluate scorers (all that the model has) at budgets, each beside static twin and mismatched masks.

    `prompts` are answered too, with the own mask of each. With `out`, a JSON file, the table is saved after
    every row, and rows that are there already are not measured again. Raises LabError for unknown names or
    budgets, for fewer than three passages, and for a file that was made from something else.
    """
    scorers = dynamic_scorers(lab.name) if scorers is None else scorers
    unknown = [name for name in scorers if name not in DYNAMIC]
    if unknown or not scorers:
        raise LabError(
            got=f"scorers {', '.join(unknown) or '(none)'}",
            allowed=", ".join(DYNAMIC),
            hint="use these names; their static twins run beside them",
        )
    halves = _halves(lab, load_passages() if passages is None else passages)
    asked = [int(lengths(lab.encode(prompt.text))[0]) for prompt in prompts]
    for keep in keeps:
        policy.check(lab.cost, max([*asked, *(half.start for half in halves)]), keep)
    whole = [lab.losses(half.ids, half.start) for half in halves]
    table = _begun(lab, policy, halves, whole, out)
    if prompts and table.dense_right is None:
        table = replace(table, dense_right=answers(lab, prompts), prompts=len(prompts))
    read = [lab.as_inputs(half.prompt) for half in halves]  # never what is to be predicted
    means = layer_means(lab.anatomy, read) if policy.repair else None
    for name in scorers:
        found = {keep: table.find(name, keep, policy.repair) for keep in keeps}
        missing = [keep for keep, row in found.items() if row is None or (prompts and row.right is None)]
        if not missing:
            continue
        made = prompt_scorer(lab, name, read)
        scores = [made(lab.anatomy, inputs) for inputs in read]
        for keep in missing:
            row = found[keep] or _row(lab, name, keep, policy, halves, whole, scores, means)
            if prompts:
                row = replace(row, right=answers(lab, prompts, made, keep, policy, means))
            table = table.with_row(row)
            if out is not None:
                table.save(out)
            say(f"{row.name} at {keep:g}: perplexity {row.own.perplexity:.2f}")
    return table


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
    policy: Policy = GRIFFINS_OWN,
    means: Sequence[Means] | None = None,
) -> float:
    """Share of prompts answered rightly, each under its own mask (no scorer: by the whole model)."""
    prompts = load_prompts() if prompts is None else prompts
    made = None if scorer is None else lab.scorer(scorer)
    right = 0
    for prompt in prompts:
        mask = None if made is None else lab.mask(prompt.text, keep, made, policy)
        right += prompt.is_right(lab.generate(prompt.text, mask, max_new_tokens=24, means=means).text)
    return right / len(prompts)


def _row(
    lab: LanguageLab,
    name: str,
    keep: float,
    policy: Policy,
    halves: Sequence[_Half],
    whole: Sequence[tuple[Tensor, Tensor]],
    scores: Sequence[Sensitivity],
    means: Sequence[Means] | None,
) -> LanguageRow:
    sizes = [torch.tensor([half.start], device=lab.anatomy.device) for half in halves]

    def plan(each: Sequence[Sensitivity]) -> list[Mask]:
        return [policy.plan(s, lab.cost, n, keep) for s, n in zip(each, sizes, strict=True)]

    def quality(masks: Sequence[Mask]) -> Quality:
        runs = [lab.losses(h.ids, h.start, m, means) for h, m in zip(halves, masks, strict=True)]
        return _quality(runs, whole)

    def gain(rival: Quality) -> tuple[float, float, float]:
        return interval(np.array(rival.losses) - np.array(own.losses))

    masks = plan(scores)
    dense = [float(lab.cost.dense(n)[0]) for n in sizes]
    shares = [float(lab.cost.masked(m, n)[0]) / d for m, n, d in zip(masks, sizes, dense, strict=True)]
    price = [float(s.macs[0]) / d for s, d in zip(scores, dense, strict=True)]
    own, mismatched, static = quality(masks), quality([*masks[1:], masks[0]]), None
    if name != "random":
        twins = [mean_scores([*scores[:i], *scores[i + 1 :]]) for i in range(len(halves))]
        prompts = [lab.as_inputs(half.prompt) for half in halves]
        static = quality(plan([twin(lab.anatomy, x) for twin, x in zip(twins, prompts, strict=True)]))
    return LanguageRow(
        scorer=name,
        keep=keep,
        repair=policy.repair,
        macs=float(np.mean(shares)),
        price=float(np.mean(price)),
        own=own,
        static=static,
        mismatched=mismatched,
        gain=None if static is None else gain(static),
        gain_mismatched=gain(mismatched),
    )


def _begun(
    lab: LanguageLab,
    policy: Policy,
    halves: Sequence[_Half],
    whole: Sequence[tuple[Tensor, Tensor]],
    out: Path | None,
) -> LanguageTable:
    """The table without rows, or with those that the file has already."""
    texts = hashlib.sha256(str([(half.ids, half.start) for half in halves]).encode()).hexdigest()
    plan, about = (
        Policy(policy.scope, policy.cut_attention),
        {"machine": machine(), "texts": texts, **_kind(lab)},
    )
    if out is not None and out.is_file():
        found = LanguageTable.load(out)
        kind = {name: found.about.get(name, usual) for name, usual in USUAL.items()}
        got = (found.model, found.scope, found.about.get("texts"), *kind.values())
        wanted = (lab.name, str(plan), texts, *_kind(lab).values())
        if got != wanted:
            raise LabError(
                got=f"{out}, made from {got}",
                allowed=f"a file made from {wanted}",
                hint="give another name to --out",
            )
        return found
    dense = _quality(whole, whole)
    return LanguageTable(lab.name, str(plan), len(halves), 0, dense, None, (), about)


def _kind(lab: LanguageLab) -> dict[str, str]:
    """What a lab computes in; the names are those of `USUAL`."""
    numbers, device = str(lab.model.dtype).removeprefix("torch."), lab.anatomy.device.type
    return {"dtype": numbers, "device": device, "block_size": str(lab.anatomy.block_size)}


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
