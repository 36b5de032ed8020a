"""Original texts for language models: passages to predict, and prompts with checkable answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from dsgp_lab.errors import cannot_read
from dsgp_lab.tasks import data_folder

Row = TypeVar("Row")


@dataclass(frozen=True)
class Passage:
    """A text of one kind: prose, code or arithmetic."""

    text: str
    kind: str


@dataclass(frozen=True)
class Prompt:
    """A question of one kind (fact, arithmetic or code) and what a right answer contains."""

    text: str
    answers: tuple[str, ...]
    kind: str

    def is_right(self, reply: str) -> bool:
        """Whether the reply holds one of the answers: whole words, in either case.

        >>> Prompt("What is 2 + 3?", ("5",), "arithmetic").is_right("It is 5.")
        True
        >>> Prompt("What is 2 + 3?", ("5",), "arithmetic").is_right("It is 15.")
        False
        """
        return any(_holds(reply, answer) for answer in self.answers)


def load_passages() -> tuple[Passage, ...]:
    """The 18 passages, kinds taking turns."""
    return _read("passages", lambda row: Passage(row["text"], *row["tags"]))


def load_openers() -> tuple[Passage, ...]:
    """The 64 beginnings of texts that a model writes on from, kinds taking turns while there are any."""
    return _read("openers", lambda row: Passage(row["text"], *row["tags"]))


def load_prompts() -> tuple[Prompt, ...]:
    """The 30 prompts, kinds taking turns."""
    return _read("prompts", lambda row: Prompt(row["prompt"], tuple(row["answers"]), *row["tags"]))


def _holds(reply: str, answer: str) -> bool:
    start, end = (r"(?<!\w)" if answer[0].isalnum() else ""), (r"(?!\w)" if answer[-1].isalnum() else "")
    return re.search(start + re.escape(answer) + end, reply, re.IGNORECASE) is not None


def _read(name: str, make: Callable[[dict[str, Any]], Row]) -> tuple[Row, ...]:
    path = data_folder() / "teaching" / "language" / f"{name}.jsonl"
    try:
        return tuple(make(json.loads(line)) for line in path.read_text("utf-8").splitlines())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise cannot_read(path, error, allowed="the file as it is in the repository") from None
