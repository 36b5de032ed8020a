"""What the benchmark runs on: real sentences, at their own length or at a given one."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from statistics import median

import torch

from dsgp_lab.anatomy import Inputs
from dsgp_lab.errors import LabError
from dsgp_lab.lab import Lab
from dsgp_lab.results import Text
from dsgp_lab.tasks import GLUE_FOLDER_VARIABLE, Examples, load_examples, load_teaching
from dsgp_lab.training.router_data import held_out_part


@dataclass(frozen=True, eq=False)
class BenchInputs:
    """Batches of model inputs and where their texts come from."""

    batches: tuple[Inputs, ...]
    source: str

    @property
    def batch(self) -> int:
        """Inputs in a batch."""
        return len(self.batches[0]["input_ids"])

    @property
    def tokens(self) -> float:
        """Median of the inputs' real tokens."""
        return float(median(n for b in self.batches for n in b["attention_mask"].sum(1).tolist()))

    @property
    def padded(self) -> float:
        """Median of the columns that a batch has, padding included."""
        return float(median(b["input_ids"].shape[1] for b in self.batches))


def bench_inputs(
    lab: Lab,
    batch: int = 1,
    count: int = 100,
    tokens: int | None = None,
    seed: int = 0,
    held_out: bool = False,
) -> BenchInputs:
    """Batches of randomly drawn dev inputs of the lab's task, or, without GLUE, of half of its teaching set.

    `held_out` takes training inputs that no training has seen instead, without GLUE the other half. With
    `tokens`, every input is joined from several of them and cut to exactly that length.

    Raises:
        LabError: no such examples, or more tokens than the model reads.
    """
    check_tokens(lab, 1 if tokens is None else tokens)
    examples, source = _examples(lab, held_out)
    chance = random.Random(seed)
    texts: list[Text] = [text[0] if len(text) == 1 else (text[0], text[1]) for text in examples.texts]
    if tokens is None:
        chosen = [[chance.choice(texts) for _ in range(batch)] for _ in range(count)]
        return BenchInputs(tuple(lab.encode(each) for each in chosen), source)
    return BenchInputs(tuple(_joined(lab, texts, tokens, batch, chance) for _ in range(count)), source)


def check_tokens(lab: Lab, tokens: int) -> None:
    """Raise LabError for a length that the model cannot read."""
    if not 1 <= tokens <= lab.max_tokens:
        raise LabError(
            got=f"texts of {tokens} tokens",
            allowed=f"1 to {lab.max_tokens}, which is all that {lab.name} reads",
            hint="choose a length within",
        )


def _examples(lab: Lab, held_out: bool) -> tuple[Examples, str]:
    task = lab.task.name if lab.task is not None else "sst2"
    if os.environ.get(GLUE_FOLDER_VARIABLE):
        if held_out:
            return held_out_part(task), f"GLUE {task} train, held out"
        split = lab.task.dev_splits[0] if lab.task is not None else "validation"
        return load_examples(task, split), f"GLUE {task} {split}"
    timed, held = (examples := load_teaching(task)).split_off(len(examples) // 2)
    return held if held_out else timed, f"teaching set {task}"


def _joined(lab: Lab, texts: list[Text], tokens: int, batch: int, chance: random.Random) -> Inputs:
    """Inputs of exactly `tokens` tokens: drawn texts one after the other, cut, closed as the model's own."""
    rows = []
    for _ in range(batch):
        parts: list[Text] = []
        while True:
            parts += chance.sample(texts, min(len(texts), 1 + tokens // 16))
            joined = _join(parts)
            encoded = lab.encode([joined])
            if encoded["input_ids"].shape[1] >= tokens:
                break
        rows.append({k: torch.cat([v[:, : tokens - 1], v[:, -1:]], dim=1) for k, v in encoded.items()})
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def _join(parts: list[Text]) -> Text:
    single = [part for part in parts if isinstance(part, str)]
    pairs = [part for part in parts if not isinstance(part, str)]
    if single:
        return " ".join(single)
    return " ".join(first for first, _ in pairs), " ".join(second for _, second in pairs)
