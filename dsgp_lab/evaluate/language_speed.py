"""Speed of a pruned language model at batch 1: prefill, decode, and the whole answer, everything included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from dsgp_lab.anatomy import Inputs
from dsgp_lab.decoder import Cut
from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.latency import LatencyTable, measure_latency, threads
from dsgp_lab.generation import generate
from dsgp_lab.language import LanguageLab
from dsgp_lab.language_data import load_passages
from dsgp_lab.mask import Mask
from dsgp_lab.plan import check_keep, plan_mask
from dsgp_lab.report import Report
from dsgp_lab.sensitivity import lengths

LEAN, CUT, TRANSFORMERS = "lean dense", "cut", "transformers dense"


@dataclass(frozen=True)
class SpeedTable:
    """Tokens a second of each variant, from the medians of paired rounds.

    prefill: of the prompt; decode: a step each after it; answer: new tokens a second over all of it, which
    for the cut model is score, plan, cut, prefill and decode.
    """

    prefill: LatencyTable
    decode: LatencyTable
    answer: LatencyTable
    prompt_tokens: int
    new_tokens: int
    keep: tuple[float, float]
    """Share of KV groups and of neurons that run."""
    scorer: str

    def report(self) -> Report:
        """Rows for print and notebook."""
        counts = (("prefill", self.prefill, self.prompt_tokens), ("decode", self.decode, self.new_tokens))
        rows = []
        for name, table, tokens in (*counts, ("answer", self.answer, self.new_tokens)):
            for row in (*table.rows, table.control):
                speed, interval = 1 / row.ratio, f"{1 / row.ci_high:.2f} to {1 / row.ci_low:.2f}"
                rate = f"{1e3 * tokens / row.median_ms:.1f}"
                rows.append((f"{name}: {row.variant}", rate, f"{speed:.2f}", interval))
        header = ("", "tokens / s", f"speed / {LEAN}", "95 % interval")
        notes = (
            f"Batch 1, prompt of {self.prompt_tokens} tokens, {self.new_tokens} new ones;"
            f" {self.keep[0]:.2f} of the KV groups and {self.keep[1]:.2f} of the neurons run."
            f" Answer: score ({self.scorer}), plan, cut, prefill and decode."
            " The language-model head is whole in every variant.",
            self.decode.report().notes[0],
        )
        return Report("Speed of a language model", tuple(rows), header, notes)

    def record(self) -> dict[str, Any]:
        """Median milliseconds and speed over lean dense of every variant, for JSON."""
        tables = {"prefill": self.prefill, "decode": self.decode, "answer": self.answer}
        return {
            "prompt_tokens": self.prompt_tokens,
            "new_tokens": self.new_tokens,
            "keep": self.keep,
            "scorer": self.scorer,
            **{
                name: {
                    row.variant: {"median_ms": row.median_ms, "speed": 1 / row.ratio}
                    for row in (*table.rows, table.control)
                }
                for name, table in tables.items()
            },
        }

    def __str__(self) -> str:
        """A text table."""
        return self.report().text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.report().html()


def share_mask(lab: LanguageLab, scores_of: Inputs, scorer: str, keep: float) -> Mask:
    """The best KV groups and the best neurons of a prompt, a share `keep` of each over the whole model."""
    scores = lab.scorer(scorer)(lab.anatomy, scores_of)

    def best(part: torch.Tensor) -> torch.Tensor:
        flat = part.flatten(1)
        count = max(1, round(keep * flat.shape[1]))
        top = flat.topk(count, dim=1).indices
        return torch.zeros_like(flat, dtype=torch.bool).scatter(1, top, True).view_as(part)

    return Mask(best(scores.heads), best(scores.blocks))


def bench_language(
    lab: LanguageLab,
    keep: float = 0.6,
    scorer: str = "wanda_sp",
    prompt_tokens: int = 64,
    new_tokens: int = 32,
    rounds: int = 10,
    num_threads: int = 1,
    transformers: bool = True,
) -> SpeedTable:
    """Time dense and cut runs of one prompt in paired rounds; `keep` of groups and of neurons run.

    Raises LabError for a budget or a length that cannot be.
    """
    check_keep(keep)
    ids = [i for passage in load_passages() for i in lab.tokenizer(passage.text)["input_ids"]]
    if not 1 <= prompt_tokens <= len(ids) or new_tokens < 2:
        raise LabError(
            got=f"prompt_tokens={prompt_tokens}, new_tokens={new_tokens}",
            allowed=f"1 to {len(ids)}, and at least 2",
            hint="64 and 32 are a good start",
        )
    inputs, sub = lab.as_inputs(ids[:prompt_tokens]), lab.subnetwork
    mask = share_mask(lab, inputs, scorer, keep)
    cut, made = sub.select(mask), lab.scorer(scorer)

    def answer() -> None:
        scores = made(lab.anatomy, inputs)
        plan_mask(scores, lab.cost, lengths(inputs), keep)
        generate(sub, inputs, sub.select(mask, reuse=True), new_tokens)

    def whole() -> None:
        with torch.inference_mode():
            lab.model.generate(
                **inputs,
                max_new_tokens=new_tokens,
                min_new_tokens=new_tokens,
                do_sample=False,
                pad_token_id=0,
            )

    answers: dict[str, Callable[[], object]] = {
        LEAN: lambda: generate(sub, inputs, None, new_tokens),
        CUT: answer,
    }
    if transformers:
        answers[TRANSFORMERS] = whole
    settings: dict[str, dict[str, Callable[[], object]]] = {
        "prefill": {LEAN: _prefill(lab, inputs, sub.whole), CUT: _prefill(lab, inputs, cut)},
        "decode": {
            LEAN: _decode(lab, inputs, sub.whole, new_tokens),
            CUT: _decode(lab, inputs, cut, new_tokens),
        },
        "answer": answers,
    }
    with threads(num_threads):
        measured = {
            name: measure_latency(variants, LEAN, rounds=rounds, warmup=1, setting=f"{name}, {lab.name}")
            for name, variants in settings.items()
        }
    kept = (float(mask.heads.float().mean()), float(mask.blocks.float().mean()))
    return SpeedTable(
        **measured, prompt_tokens=prompt_tokens, new_tokens=new_tokens, keep=kept, scorer=scorer
    )


def _prefill(lab: LanguageLab, inputs: Inputs, cut: Cut) -> Callable[[], object]:
    tokens = inputs["input_ids"].shape[1]

    def run() -> object:
        cache = lab.subnetwork.new_cache(cut, 1, tokens)
        with torch.inference_mode():
            return lab.subnetwork.head(lab.subnetwork.prefill(inputs, cut, cache)[:, -1])

    return run


def _decode(lab: LanguageLab, inputs: Inputs, cut: Cut, steps: int) -> Callable[[], object]:
    """Steps after a prompt that is in the cache already."""
    tokens = inputs["input_ids"].shape[1]
    cache = lab.subnetwork.new_cache(cut, 1, tokens + steps)
    lab.subnetwork.prefill(inputs, cut, cache)
    positions = cache.positions.clone()

    def run() -> object:
        cache.length, cache.positions = tokens, positions.clone()
        chosen = inputs["input_ids"][:, -1]
        for _ in range(steps):
            chosen = lab.subnetwork.step(chosen, cut, cache).argmax(-1)
        return chosen

    return run
