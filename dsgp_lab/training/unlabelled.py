"""Training texts without their labels, for which a model says what the outputs should be."""

from __future__ import annotations

from collections.abc import Sequence

from dsgp_lab.errors import LabError
from dsgp_lab.tasks import Task, load_examples
from dsgp_lab.training.overlap import dev_texts, is_unseen

Texts = tuple[tuple[str, ...], ...]


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
