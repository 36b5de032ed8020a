"""A check's figure, and the page of all of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

VERDICTS = {True: "yes", False: "**no**", None: "not run"}
HEAD = """# What it stands

Written by `make soak`; a row holds what a check found, its bar, the time it took, and where it ran. Where
something could not be run, the row says why.

| check | found | bar | met | seconds | command | machine |
| --- | --- | --- | --- | --- | --- | --- |
"""


@dataclass(frozen=True)
class Figure:
    """What a check found beside its bar; `met` is None where it could not be run, and `found` says why."""

    check: str
    found: str
    bar: str
    met: bool | None

    def row(self, name: str, seconds: float, machine: str) -> str:
        """A line of the page's table.

        >>> Figure("a check", "0 of 5 | lost", "0", True).row("lost", 1.26, "a machine")
        "| a check | 0 of 5 \\\\| lost | 0 | yes | 1.3 | `make soak SOAK_ARGS='--only lost'` | a machine |"
        """
        command = f"`make soak SOAK_ARGS='--only {name}'`"
        cells = (self.check, self.found, self.bar, VERDICTS[self.met], f"{seconds:.1f}", command, machine)
        return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def rows_of(page: str) -> dict[str, str]:
    """The table's lines by the check's name.

    >>> list(rows_of(Figure("a check", "nothing", "0", None).row("lost", 1.0, "a machine")))
    ['lost']
    """
    found = ((re.search(r"--only ([\w-]+)'` \|", line), line) for line in page.splitlines())
    return {match[1]: line for match, line in found if match}


def with_rows(page: str, rows: dict[str, str], order: Sequence[str]) -> str:
    """The page with these lines in place of their old ones; what stands below the table is kept."""
    known = rows_of(page) | rows
    rest = page[page.index("\n## ") :] if "\n## " in page else ""
    return HEAD + "".join(f"{known[name]}\n" for name in order if name in known) + rest
