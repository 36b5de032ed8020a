"""What a user gets back for a prompt: a continuation, or the pruned one beside the dense one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dsgp_lab.cost import Macs
from dsgp_lab.generation import Generation
from dsgp_lab.mask import Mask
from dsgp_lab.report import Report
from dsgp_lab.sensitivity import Sensitivity


@dataclass(frozen=True)
class Continuation:
    """New text, its tokens, and what it took: prefill_ms (the first token included), decode_ms (the rest)."""

    text: str
    tokens: tuple[int, ...]
    prefill_ms: float
    decode_ms: float
    steps: int
    cache_bytes: int

    @staticmethod
    def of(made: Generation, tokenizer: Any) -> Continuation:
        """The continuation of a single prompt, in words."""
        (tokens,) = made.tokens
        return Continuation(
            text=tokenizer.decode(tokens, skip_special_tokens=True).strip(),
            tokens=tokens,
            prefill_ms=1e3 * made.prefill_seconds,
            decode_ms=1e3 * made.decode_seconds,
            steps=made.steps,
            cache_bytes=made.cache_bytes,
        )

    @property
    def rate(self) -> float:
        """Decoded tokens a second, the first one left out; not a number where there is no second one."""
        return 1e3 * self.steps / self.decode_ms if self.steps else float("nan")

    def __str__(self) -> str:
        """The text."""
        return self.text


@dataclass(frozen=True, eq=False)
class PrunedGeneration:
    """A prompt through the whole line: scored, planned, cut once, continued by the small model.

    sensitivity and mask are batches of 1: heads [1, layers, KV groups], blocks [1, layers, blocks]. macs are
    those of the layers at the prompt's length; cut_ms is the copying of the kept weights. agreement is the
    share of the dense continuation's tokens that the cut model would have chosen too, each after the dense
    tokens before it.
    """

    prompt: str
    prompt_tokens: int
    keep: float
    pruned: Continuation
    dense: Continuation
    agreement: float
    sensitivity: Sensitivity
    mask: Mask
    macs: Macs
    score_ms: float
    plan_ms: float
    cut_ms: float

    @property
    def text(self) -> str:
        """The cut model's continuation."""
        return self.pruned.text

    def report(self) -> Report:
        """Everything in one table."""
        heads, blocks = self.mask.heads, self.mask.blocks
        oracle = ": it reads the prompt with the whole model" if self.sensitivity.oracle else ""
        own = self.macs.scorer / self.macs.dense

        def times(run: Continuation) -> str:
            rate = f"{run.rate:.1f} tokens/s" if run.steps else "one token"
            return f"prefill {run.prefill_ms:.0f} ms, decode {rate}"

        rows = (
            ("prompt", _short(self.prompt)),
            ("prompt tokens", str(self.prompt_tokens)),
            ("dense", _short(self.dense.text)),
            ("pruned", _short(self.pruned.text)),
            ("agreement on the dense tokens", f"{self.agreement:.2f}"),
            ("KV groups that ran", f"{int(heads.sum())} of {heads.numel()}"),
            ("neurons (blocks) that ran", f"{int(blocks.sum())} of {blocks.numel()}"),
            ("layer MACs that ran", f"{self.macs.kept / self.macs.dense:.3f} of dense, budget {self.keep:g}"),
            ("scorer", f"{self.sensitivity.scorer}, {own:.2f} of the prompt's dense MACs, once{oracle}"),
            ("dense run", times(self.dense)),
            ("pruned run", times(self.pruned)),
            ("before it", f"score {self.score_ms:.0f}, plan {self.plan_ms:.0f}, cut {self.cut_ms:.0f} ms"),
            (
                "KV cache",
                f"{self.pruned.cache_bytes / 1e6:.2f} MB, dense {self.dense.cache_bytes / 1e6:.2f} MB",
            ),
        )
        return Report("Pruned generation", rows)

    def __str__(self) -> str:
        """A text table."""
        return self.report().text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.report().html()


def _short(text: str, width: int = 70) -> str:
    """One line, cut to a width.

    >>> _short("a\\nb", 10)
    'a b'
    """
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 3] + "..."
