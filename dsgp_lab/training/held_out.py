"""A held-out part of the training split that training has really not seen."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from dsgp_lab.errors import LabError
from dsgp_lab.tasks import Examples

HELD_OUT = {
    "cola": 500,
    "sst2": 600,
    "mrpc": 300,
    "qqp": 600,
    "stsb": 400,
    "mnli": 600,
    "qnli": 500,
    "rte": 250,
    "wnli": 40,
}
"""Training examples of each task that are held out by default: enough for a choice, few enough to spare."""


def hold_out(examples: Examples, size: int, seed: int) -> tuple[Examples, Examples]:
    """Part training examples into (rest, held out) so that the held-out part is unseen.

    Single texts: SST-2 trains on phrases of the same sentences, so the held-out ones are drawn from the
    texts that are no part of another one, and every text that is part of a held-out one leaves the rest.
    Pairs: every pair that shares a text with a held-out pair leaves the rest.

    Raises:
        LabError: there are not enough examples to hold out, or none would be left.
    """
    if examples.task.is_pair:
        held = _draw(range(len(examples)), size, seed)
        seen = {_words(text) for i in held for text in examples.texts[i]}
        rest = (
            i
            for i, pair in enumerate(examples.texts)
            if i not in held and not any(_words(text) in seen for text in pair)
        )
    else:
        texts = [_words(text) for (text,) in examples.texts]
        held = _draw(_whole_texts(texts), size, seed)
        seen = {part for i in held for part in _parts(texts[i])}
        rest = (i for i, text in enumerate(texts) if text not in seen)
    kept = examples.take(rest)
    if not len(kept):
        raise _too_many(size, len(examples))
    return kept, examples.take(sorted(held))


def _draw(candidates: Sequence[int], size: int, seed: int) -> set[int]:
    if size >= len(candidates):
        raise _too_many(size, len(candidates))
    return set(random.Random(seed).sample(candidates, size))


def _too_many(size: int, available: int) -> LabError:
    return LabError(
        got=f"held_out={size} of {available} examples that can be held out",
        allowed="so few that examples unlike them are left to train on",
        hint="lower held_out",
    )


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _parts(words: tuple[str, ...]) -> Iterable[tuple[str, ...]]:
    """All contiguous parts of a text, itself included.

    >>> list(_parts(("a", "b")))
    [('a',), ('a', 'b'), ('b',)]
    """
    return (words[i:j] for i in range(len(words)) for j in range(i + 1, len(words) + 1))


def _whole_texts(texts: Sequence[tuple[str, ...]]) -> list[int]:
    """Positions of the texts that are no part of a longer one, each text once, longest first."""
    covered: set[tuple[str, ...]] = set()
    whole = []
    for i in sorted(range(len(texts)), key=lambda i: -len(texts[i])):
        if texts[i] not in covered:
            whole.append(i)
            covered.update(_parts(texts[i]))
    return whole
