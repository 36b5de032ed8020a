"""Speed of a pruned language model at batch 1: prefill, decode, and whole answers, everything included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from dsgp_lab.language_policy import Policy
from dsgp_lab.plan import check_keep
from dsgp_lab.report import Report
from dsgp_lab.sensitivity import ReadShares, lengths

LEAN, CUT, TRANSFORMERS = "lean dense", "cut", "transformers dense"
AFTER, BEFORE = "cut after reading", "scored before, cut"
STEPS = 16
"""Decode steps that are timed apart."""

Variants = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class SpeedTable:
    """Tokens a second of each variant, from the medians of paired rounds.

    prefill: of the prompt; decode: of single steps; answers: by length in new tokens, over everything, for
    the cut model score, plan, cut, prefill and decode.
    """

    prefill: LatencyTable
    decode: LatencyTable
    answers: dict[int, LatencyTable]
    prompt_tokens: int
    keep: float
    units: tuple[float, float]
    """Share of KV groups and of neurons that run."""

    def beyond_reading(self, new_tokens: int, variant: str) -> float:
        """New tokens a second once the time of the dense model's prefill is taken off the whole answer's.

        What a decode rate is when score, plan and cut are charged to it.
        """
        left = self.answers[new_tokens][variant].median_ms - self.prefill[LEAN].median_ms
        return 1e3 * new_tokens / left

    def report(self) -> Report:
        """Rows for print and notebook."""
        tables = [("prefill", self.prefill, self.prompt_tokens), ("decode", self.decode, STEPS)]
        tables += [(f"answer of {count}", table, count) for count, table in self.answers.items()]
        rows = []
        for name, table, count in tables:
            for row in (*table.rows, table.control):
                beyond = ""
                if name.startswith("answer") and row is not table.control:
                    mine, dense = (self.beyond_reading(count, v) for v in (row.variant, LEAN))
                    beyond = f"{mine / dense:.2f}"
                rate, speed = 1e3 * count / row.median_ms, 1 / row.ratio
                between = f"{1 / row.ci_high:.2f} to {1 / row.ci_low:.2f}"
                rows.append((f"{name}: {row.variant}", f"{rate:.1f}", f"{speed:.2f}", between, beyond))
        header = ("", "tokens / s", f"speed / {LEAN}", "95 % interval", "beyond reading")
        notes = (
            f"Batch 1, prompt of {self.prompt_tokens} tokens; {self.keep:g} of the layers' MACs:"
            f" {self.units[0]:.2f} of the KV groups and {self.units[1]:.2f} of the neurons run, the"
            " language-model head whole in every variant.",
            f"Answers include everything. {AFTER}: the dense model reads the prompt, which gives GRIFFIN's"
            " scores, and the cut one decodes on its cache. Beyond reading: the same speed with the time of"
            " the dense prefill taken off both.",
            self.decode.report().notes[0],
        )
        return Report("Speed of a language model", tuple(rows), header, notes)

    def record(self) -> dict[str, Any]:
        """Median milliseconds and speed over lean dense of every variant, for JSON."""

        def plain(table: LatencyTable) -> dict[str, dict[str, float]]:
            return {
                row.variant: {
                    "median_ms": row.median_ms,
                    "speed": 1 / row.ratio,
                    "low": 1 / row.ci_high,
                    "high": 1 / row.ci_low,
                }
                for row in (*table.rows, table.control)
            }

        return {
            "prompt_tokens": self.prompt_tokens,
            "keep": self.keep,
            "units": self.units,
            "prefill": plain(self.prefill),
            "decode": plain(self.decode),
            "answers": {str(count): plain(table) for count, table in self.answers.items()},
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
    scorer: str | None = None,
    prompt_tokens: int = 64,
    new_tokens: Sequence[int] = (32,),
    rounds: int = 10,
    num_threads: int = 1,
    transformers: bool = False,
) -> SpeedTable:
    """Time dense and cut runs of one prompt in paired rounds, within `keep` of the MACs.

    With a `scorer`, also answers that it scores first, in a run of its own, and the cut model reads and
    decodes; with `transformers`, also those of transformers' own dense model.
    Raises LabError for a budget or a length that cannot be.
    """
    check_keep(keep)
    ids = [i for passage in load_passages() for i in lab.tokenizer(passage.text)["input_ids"]]
    longest = int(lab.model.config.max_position_embeddings) - prompt_tokens
    if not 1 <= prompt_tokens <= len(ids) or not all(2 <= n <= longest for n in new_tokens or (0,)):
        raise LabError(
            got=f"prompt_tokens={prompt_tokens}, new_tokens={new_tokens}",
            allowed=f"1 to {len(ids)} tokens, and lengths from 2 to {longest}",
            hint="64 and (32,) are a good start",
        )
    inputs, sub = lab.as_inputs(ids[:prompt_tokens]), lab.subnetwork
    mask = Policy().plan(lab.scorer("griffin")(lab.anatomy, inputs), lab.cost, lengths(inputs), keep)
    cut = sub.select(mask)
    settings: dict[str, Variants] = {
        "prefill": {LEAN: _prefill(lab, inputs, sub.whole), CUT: _prefill(lab, inputs, cut)},
        "decode": {LEAN: _decode(lab, inputs, sub.whole), CUT: _decode(lab, inputs, cut)},
    }
    for count in new_tokens:
        settings[str(count)] = _answers(lab, inputs, keep, scorer, count, transformers)
    place = lab.anatomy.device.type
    with threads(num_threads):
        measured = {
            name: measure_latency(
                variants, LEAN, rounds=rounds, warmup=1, setting=f"{name}, {lab.name}", device=place
            )
            for name, variants in settings.items()
        }
    return SpeedTable(
        prefill=measured["prefill"],
        decode=measured["decode"],
        answers={count: measured[str(count)] for count in new_tokens},
        prompt_tokens=prompt_tokens,
        keep=keep,
        units=(float(mask.heads.float().mean()), float(mask.blocks.float().mean())),
    )


def _answers(
    lab: LanguageLab, inputs: Inputs, keep: float, scorer: str | None, count: int, transformers: bool
) -> Variants:
    """Whole answers of `count` new tokens, from the prompt's ids on."""
    sub, policy, size = lab.subnetwork, Policy(), lengths(inputs)

    def after_reading() -> None:
        shares = ReadShares()
        read = read_prompt(sub, inputs, sub.whole, count, shares)
        own = policy.plan(shares.scores(lab.anatomy), lab.cost, size, keep)
        generate(sub, inputs, sub.select(own, reuse=True), count, prompt=read)

    variants: Variants = {LEAN: lambda: generate(sub, inputs, None, count), AFTER: after_reading}
    if scorer is not None:
        made = lab.scorer(scorer)

        def before() -> None:
            own = policy.plan(made(lab.anatomy, inputs), lab.cost, size, keep)
            generate(sub, inputs, sub.select(own, reuse=True), count)

        variants[BEFORE] = before
    if transformers:
        length = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False, "pad_token_id": 0}

        def whole() -> None:
            with torch.inference_mode():
                lab.model.generate(**inputs, **length)

        variants[TRANSFORMERS] = whole
    return variants


def _prefill(lab: LanguageLab, inputs: Inputs, cut: Cut) -> Callable[[], object]:
    tokens = inputs["input_ids"].shape[1]

    def run() -> object:
        cache = lab.subnetwork.new_cache(cut, 1, tokens)
        with torch.inference_mode():
            return lab.subnetwork.head(lab.subnetwork.prefill(inputs, cut, cache)[:, -1])

    return run


def _decode(lab: LanguageLab, inputs: Inputs, cut: Cut) -> Callable[[], object]:
    """Steps after a prompt that is in the cache already."""
    tokens = inputs["input_ids"].shape[1]
    cache = lab.subnetwork.new_cache(cut, 1, tokens + STEPS)
    lab.subnetwork.prefill(inputs, cut, cache)
    positions = cache.positions.clone()

    def run() -> object:
        cache.length, cache.positions = tokens, positions.clone()
        chosen = inputs["input_ids"][:, -1]
        for _ in range(STEPS):
            chosen = lab.subnetwork.step(chosen, cut, cache).argmax(-1)
        return chosen

    return run
