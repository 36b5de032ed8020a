"""Training texts that stand in a dev set: GLUE's tasks share sources.

Over a hundred pairs of STS-B's dev set are in MRPC's training split, and fifty of MRPC's dev set in STS-B's,
spaced and quoted differently. Whoever trains on several tasks has to take such texts out.
"""

from __future__ import annotations

from collections.abc import Iterable

from dsgp_lab.tasks import Examples, get_task, load_examples


def squeezed(text: str) -> str:
    """Letters and digits alone: the same sentence is spaced and quoted differently in different tasks.

    >>> squeezed("It 's 5 , isn't it ?") == squeezed("It's 5, isn't it?")
    True
    """
    return "".join(filter(str.isalnum, text.casefold()))


def dev_texts(tasks: Iterable[str]) -> frozenset[str]:
    """Every text of the dev sets of these tasks, squeezed.

    Raises:
        LabError: an unknown task, or its dev sets are not at hand.
    """
    splits = [load_examples(task, split) for task in tasks for split in get_task(task).dev_splits]
    return frozenset(squeezed(text) for split in splits for texts in split.texts for text in texts)


def is_unseen(texts: Iterable[str], judged: frozenset[str]) -> bool:
    """Whether none of an example's texts is among squeezed ones.

    >>> is_unseen(("A film!", "It is good."), frozenset({"afilm"}))
    False
    """
    return judged.isdisjoint(map(squeezed, texts))


def without(examples: Examples, judged: frozenset[str]) -> Examples:
    """The examples of which no text is among squeezed ones."""
    return examples.take(i for i, texts in enumerate(examples.texts) if is_unseen(texts, judged))


def names_in(listed: str) -> list[str]:
    """Task names in a list with commas.

    >>> names_in("qqp, mrpc")
    ['qqp', 'mrpc']
    """
    return [name.strip() for name in listed.split(",") if name.strip()]
