"""A part of the README that a script makes: written between its marks, or checked."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def write_or_check(name: str, made: str, arguments: list[str]) -> int:
    """Put `made` between the marks of a name; with "--check" only compare. Returns the exit code."""
    readme = ROOT / "README.md"
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, rest = readme.read_text("utf-8").split(start)
    written, after = rest.split(end)
    if arguments != ["--check"]:
        readme.write_text(before + start + made + end + after, "utf-8")
    elif written != made:
        print(f"{readme.name}: the part {name!r} is not what its source says", file=sys.stderr)
        return 1
    return 0
