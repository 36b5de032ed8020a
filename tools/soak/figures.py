"""A check's figure, and the table of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """What a check found beside its bar; `met` is None where it could not be run, and `found` says why."""

    check: str
    found: str
    bar: str
    met: bool | None

    def record(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


VERDICTS = {True: "yes", False: "**no**", None: "not run"}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Records of figures, with seconds, command and machine, as a markdown table.

    >>> row = Figure("a check", "0 of 5 | lost", "0", True).record()
    >>> print(table([row | {"seconds": 1.26, "command": "make soak", "machine": "a machine"}]))
    | check | found | bar | met | seconds | command | machine |
    | --- | --- | --- | --- | --- | --- | --- |
    | a check | 0 of 5 \\| lost | 0 | yes | 1.3 | `make soak` | a machine |
    """
    lines = ["| check | found | bar | met | seconds | command | machine |", "| --- " * 7 + "|"]
    for row in rows:
        cells = [row["check"], row["found"], row["bar"], VERDICTS[row["met"]], f"{row['seconds']:.1f}"]
        cells += [f"`{row['command']}`", row["machine"]]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)
