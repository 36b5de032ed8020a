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
from dsgp_lab.generation import generate, read_prompt
from dsgp_lab.language import LanguageLab
from dsgp_lab.language_data import load_passages
from dsgp_lab.plan import check_keep
from dsgp_lab.report import Report
from dsgp_lab.sensitivity import Griffin, lengths

LEAN, CUT, TRANSFORMERS = "lean dense", "cut", "transformers dense"
AFTER = "cut after a dense prefill"


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
    keep: float
    units: tuple[float, float]
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
            f" {self.keep:g} of the layers' MACs: {self.units[0]:.2f} of the KV groups and"
            f" {self.units[1]:.2f} of the neurons run."
            f" Answer: score ({self.scorer}), plan, cut, prefill and decode; after a dense prefill,"
            " the score (griffin) is its by-product."
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
            "units": self.units,
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


def bench_language(
    lab: LanguageLab,
    keep: float = 0.6,
    scorer: str = "griffin",
    prompt_tokens: int = 64,
    new_tokens: int = 32,
    rounds: int = 10,
    num_threads: int = 1,
    transformers: bool = True,
) -> SpeedTable:
    """Time dense and cut runs of one prompt in paired rounds, within `keep` of the MACs.

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
    made = lab.scorer(scorer)
    mask = lab.plan(made(lab.anatomy, inputs), lengths(inputs), keep)
    cut = sub.select(mask)

    def answer() -> None:
        own = lab.plan(made(lab.anatomy, inputs), lengths(inputs), keep)
        generate(sub, inputs, sub.select(own, reuse=True), new_tokens)

    def whole() -> None:
        with torch.inference_mode():
            lab.model.generate(
                **inputs,
                max_new_tokens=new_tokens,
                min_new_tokens=new_tokens,
                do_sample=False,
                pad_token_id=0,
            )

    def after_reading() -> None:
        active: list[torch.Tensor] = []
        read = read_prompt(sub, inputs, sub.whole, new_tokens, active)
        own = lab.plan(Griffin.of_prefill(lab.anatomy, active), lengths(inputs), keep)
        generate(sub, inputs, sub.select(own, reuse=True), new_tokens, prompt=read)

    answers: dict[str, Callable[[], object]] = {
        LEAN: lambda: generate(sub, inputs, None, new_tokens),
        CUT: answer,
        AFTER: after_reading,
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
    return SpeedTable(
        prefill=measured["prefill"],
        decode=measured["decode"],
        answer=measured["answer"],
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        keep=keep,
        units=(float(mask.heads.float().mean()), float(mask.blocks.float().mean())),
        scorer=scorer,
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
