"""Training texts without their labels, for which a model says what the outputs should be."""

from __future__ import annotations

import random
from collections.abc import Sequence

from dsgp_lab.errors import LabError
from dsgp_lab.tasks import Task, load_examples
from dsgp_lab.training.overlap import dev_texts, is_unseen

Texts = tuple[tuple[str, ...], ...]

LEFT_OUT, EXCHANGED = 0.1, 0.1
"""Shares of the words that `perturbed` leaves out, and that it exchanges for other texts' words."""


def texts_of(names: Sequence[str], task: Task, unseen: frozenset[str] = frozenset()) -> Texts:
    """The training texts of other tasks as inputs of `task`: pairs are cut in two where it has single texts.

    Texts of the dev sets of `task`, and those in `unseen`, squeezed, are left out.

    Raises:
        LabError: a task of single texts where `task` has pairs.
    """
    judged = dev_texts([task.name]) | unseen
    size = len(task.columns)
    texts: list[tuple[str, ...]] = []
    for name in names:
        found = load_examples(name, "train").texts
        if size > len(found[0]):
            raise LabError(
                got=f"inputs_of={name!r} for {task.name}",
                allowed=f"tasks with {size} texts an example",
                hint="name other tasks",
            )
        texts += found if size == len(found[0]) else [(text,) for pair in found for text in pair]
    return tuple(each for each in texts if is_unseen(each, judged))


def swapped(pairs: Texts) -> Texts:
    """Pairs the other way round.

    >>> swapped((("It rains.", "It is wet."),))
    (('It is wet.', 'It rains.'),)
    """
    return tuple((second, first) for first, second in pairs)


def perturbed(texts: Texts, copies: int, seed: int = 0) -> Texts:
    """Copies of texts in which words, drawn at random, are missing, or are words of other texts instead.

    A model is certain of the texts that it was trained on; next to them there is more to learn from it (data
    augmentation of TinyBERT, Jiao et al. 2020, arXiv 1909.10351, here without a language model).

    >>> copies = perturbed((("a quiet and very fine film that stays with you for days",),), copies=2)
    >>> copies[1]
    ('a quiet and very stays film that stays with you for',)
    """
    drawn = random.Random(seed)
    words = [word for each in texts for text in each for word in text.split()]

    def change(text: str) -> str:
        kept = [word for word in text.split() if drawn.random() >= LEFT_OUT]
        return " ".join(drawn.choice(words) if drawn.random() < EXCHANGED else word for word in kept)

    return tuple(tuple(map(change, each)) for _ in range(copies) for each in texts)
