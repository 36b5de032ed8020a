"""What an evaluation of language models found: loss and agreement of each kind of mask, and the table."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from dsgp_lab.errors import LabError, cannot_read
from dsgp_lab.report import Report, ReportedInParts
from dsgp_lab.tasks import data_folder
from dsgp_lab.whole_files import make_folder, write_text

RESAMPLES = 2000
Interval = tuple[float, float, float]
"""Mean, low and high end of the 95 % interval."""


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
    """One scorer at one budget. `macs` is the share of the layers' MACs that ran at every token.

    price: MACs of the scorer, once a prompt, over those of the whole model's reading it.
    repair: whether cut units were replaced by their means.
    gain: loss of the static twin minus that of the own mask, in nats (bootstrap over passages): above 0,
    looking at the prompt helped. gain_mismatched: likewise against masks of other passages.
    right: share of right answers, None if not asked for.
    """

    scorer: str
    keep: float
    repair: bool
    macs: float
    price: float
    own: Quality
    static: Quality | None
    mismatched: Quality
    gain: Interval | None
    gain_mismatched: Interval
    right: float | None = None

    @property
    def name(self) -> str:
        """The scorer, and whether it repairs the bias."""
        return self.scorer + ", repaired" * self.repair


@dataclass(frozen=True, repr=False)
class LanguageTable(ReportedInParts):
    """All rows of one evaluation, and the whole model's values; `about` says what it was made from."""

    model: str
    scope: str
    passages: int
    prompts: int
    dense: Quality
    dense_right: float | None
    rows: tuple[LanguageRow, ...] = ()
    about: dict[str, str] = field(default_factory=dict)

    def row(self, scorer: str, keep: float, repair: bool = False) -> LanguageRow:
        """The row of a scorer at a budget; LabError lists what there is."""
        found = self.find(scorer, keep, repair)
        if found is not None:
            return found
        raise LabError(
            got=f"{scorer!r} at {keep:g}{' with repair' * repair}",
            allowed=", ".join(f"{row.name} at {row.keep:g}" for row in self.rows) or "nothing: no rows",
            hint="measure it with dsgp-lab language --scorers ... --keeps ...",
        )

    def find(self, scorer: str, keep: float, repair: bool = False) -> LanguageRow | None:
        """The row of a scorer at a budget, None where there is none."""
        key = (scorer, keep, repair)
        return next((row for row in self.rows if (row.scorer, row.keep, row.repair) == key), None)

    def report(self) -> Report:
        """Rows for print and notebook."""

        def values(quality: Quality | None) -> tuple[str, str]:
            return ("", "") if quality is None else (f"{quality.perplexity:.2f}", f"{quality.agreement:.2f}")

        def line(row: LanguageRow) -> tuple[str, ...]:
            both = [values(part) for part in (row.own, row.static, row.mismatched)]
            return (
                row.name,
                f"{row.macs:.2f}",
                f"{row.price:.2f}",
                *(perplexity for perplexity, _ in both),
                _text(row.gain),
                _text(row.gain_mismatched),
                *(agreement for _, agreement in both),
                *(() if self.dense_right is None else ("" if row.right is None else f"{row.right:.2f}",)),
            )

        dense: tuple[str, ...] = (
            "dense",
            "1.00",
            "",
            f"{self.dense.perplexity:.2f}",
            "",
            "",
            "",
            "",
            "1.00",
            "",
            "",
        )
        header: tuple[str, ...] = ("scorer", "MACs", "scorer's", "perplexity", "static", "mismatched")
        header += ("gain on static", "gain on mismatched", "agreement", "static", "mismatched")
        notes: tuple[str, ...] = (
            f"{self.model}; second halves of {self.passages} passages; plan: {self.scope}."
            " MACs are those of the layers at every token, the scorer's its own, once a prompt, over those of"
            " reading it. Gain: loss of the static (or the mismatched) mask minus loss of the own one, in"
            " nats, 95 % interval over passages.",
        )
        if self.dense_right is not None:
            dense, header = (*dense, f"{self.dense_right:.2f}"), (*header, "right answers")
            notes += (f"Right answers: share of {self.prompts} prompts, 24 tokens, greedy.",)
        names = list(dict.fromkeys(row.name for row in self.rows))
        rows = sorted(self.rows, key=lambda row: (names.index(row.name), -row.keep))
        return Report("Pruned per prompt", (dense, *map(line, rows)), header, notes)

    def verdict(self) -> Report:
        """At every budget the best own mask and the best static one, and the difference between the two."""
        lines = []
        for keep in sorted({row.keep for row in self.rows}, reverse=True):
            here = [row for row in self.rows if row.keep == keep and row.static is not None]
            if not here:
                continue
            own = min(here, key=lambda row: row.own.loss)
            static, masks = min(((row, row.static) for row in here if row.static), key=lambda x: x[1].loss)
            gain = interval(np.array(masks.losses) - np.array(own.own.losses))
            best = (f"{own.own.perplexity:.2f} ({own.name})", f"{masks.perplexity:.2f} ({static.name})")
            lines.append((f"{keep:g}", *best, _text(gain)))
        header = ("MACs", "best own mask", "best static mask", "gain in nats")
        note = (
            "The best of each kind is chosen on the passages that it is measured on, so both are flattered."
        )
        return Report("Dynamic against static", tuple(lines), header, (note,))

    def with_row(self, row: LanguageRow) -> LanguageTable:
        """The table with a row more, or another in the place of the same one."""
        there = self.find(row.scorer, row.keep, row.repair)
        if there is None:
            return replace(self, rows=(*self.rows, row))
        return replace(self, rows=tuple(row if old is there else old for old in self.rows))

    def record(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return asdict(self)

    def reports(self) -> tuple[Report, ...]:
        """All tables that have rows."""
        return tuple(part for part in (self.report(), self.verdict()) if part.rows)

    def save(self, path: Path) -> None:
        """Write JSON, at once and whole, and beside it the same as tables in markdown."""
        make_folder(path.parent)
        plain = json.loads(json.dumps(self.record()), parse_float=lambda text: round(float(text), 4))
        stored = _table(json.loads(json.dumps(plain)))
        texts = {
            path: json.dumps(plain) + "\n",
            path.with_suffix(".md"): "\n\n".join(
                ["# A language model pruned per prompt", f"Written by `dsgp-lab language --out {path.name}`."]
                + [f"Measured on {self.about['machine']}."] * ("machine" in self.about)
                + [stored.markdown()]
            )
            + "\n",
        }
        for place, text in texts.items():
            write_text(place, text)

    @staticmethod
    def load(path: Path | None = None) -> LanguageTable:
        """Read what `save` wrote, by default the project's own; LabError if it is missing or damaged."""
        path = data_folder() / "results" / "language" / "table.json" if path is None else path
        try:
            return _table(json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            allowed, hint = "a table that dsgp-lab language --out wrote", "restore or measure it anew"
            raise cannot_read(path, error, allowed, hint) from None


def interval(differences: np.ndarray) -> Interval:
    """Mean and 95 % bootstrap interval.

    >>> interval(np.array([0.5, 0.5, 0.5]))
    (0.5, 0.5, 0.5)
    """
    draws = np.random.default_rng(0).choice(differences, size=(RESAMPLES, len(differences))).mean(1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(differences.mean()), float(low), float(high)


def _text(values: Sequence[float] | None) -> str:
    return "" if values is None else "{:+.3f} ({:+.3f} to {:+.3f})".format(*values)


def _table(given: dict[str, Any]) -> LanguageTable:
    parts = {"dense": _quality(given["dense"]), "rows": tuple(_row(row) for row in given["rows"])}
    return LanguageTable(**{**given, **parts})


def _quality(given: dict[str, Any]) -> Quality:
    return Quality(given["loss"], given["agreement"], tuple(given["losses"]))


def _row(given: dict[str, Any]) -> LanguageRow:
    parts = {name: None if given[name] is None else _quality(given[name]) for name in QUALITIES}
    gains = {name: None if given[name] is None else tuple(given[name]) for name in GAINS}
    return LanguageRow(**{**given, **parts, **gains})


QUALITIES, GAINS = ("own", "static", "mismatched"), ("gain", "gain_mismatched")
