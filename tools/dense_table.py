"""Write the README's table of dense checkpoints from their cards; or check that it is what they say.

python tools/dense_table.py            # write
python tools/dense_table.py --check    # exit 1 if the table is another
"""

from __future__ import annotations

import json
import sys
from typing import Any

from readme_section import ROOT, write_or_check

from dsgp_lab.models import CARD
from dsgp_lab.tasks import TASKS

HEADINGS = (
    "task",
    "metric",
    "development set",
    "its size",
    "training examples at hand",
    "own teaching set",
    "held-out part: its teacher, itself",
)


def table() -> str:
    """The table: a row for each development set, in points of 100."""
    lines = [HEADINGS, ("---",) * len(HEADINGS)]
    for task in TASKS:
        path = ROOT / "data" / "checkpoints" / task / CARD
        if path.is_file():
            lines += _rows(json.loads(path.read_text("utf-8")))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _rows(card: dict[str, Any]) -> list[tuple[str, ...]]:
    data, teaching = card["data"], card.get("teaching")
    part = f"{data['available']:,}"
    if data["available"] < data["official"]:
        part += f" of {data['official']:,}"
    metric = TASKS[card["task"]].metrics[0]
    taught = [each["held_out"][metric] for each in (*card.get("teachers", ()), card)]
    pair = ", ".join(f"{100 * value:.1f}" for value in taught) if len(taught) > 1 else ""
    rows = []
    for split, found in card["dev"].items():
        name = card["task"] + (", mismatched" if split == "validation_mismatched" else "")
        value, low, high = (f"{100 * found[metric][key]:.1f}" for key in ("value", "low", "high"))
        own = f"{100 * teaching[metric]['value']:.1f}" if teaching else ""
        rows.append((name, metric, f"{value} ({low} to {high})", f"{found['n']:,}", part, own, pair))
    return rows


if __name__ == "__main__":
    raise SystemExit(write_or_check("dense", table(), sys.argv[1:]))
