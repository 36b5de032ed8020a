"""Write the README's table of the language model from its results; or check that it is what they say.

python tools/language_table.py            # write
python tools/language_table.py --check    # exit 1 if the table is another
"""

from __future__ import annotations

import sys

from readme_section import ROOT, write_or_check

from dsgp_lab.evaluate.language_table import LanguageTable

HEADINGS = (
    *("MACs", "GRIFFIN's own mask", "its static twin", "another prompt's mask", "gain on the twin, nats"),
    *("best own mask", "best static mask"),
)


def section() -> str:
    """A row for each budget: perplexities, and GRIFFIN's gain with its 95 % interval."""
    table = LanguageTable.load(ROOT / "data" / "results" / "language" / "table.json")
    lines = [HEADINGS, ("---",) * len(HEADINGS)]
    for keep, own, static, _ in table.verdict().rows:
        row = table.find("griffin", float(keep))
        if row is None or row.static is None or row.gain is None:
            continue
        values = (f"{quality.perplexity:.2f}" for quality in (row.own, row.static, row.mismatched))
        lines.append((keep, *values, "{:+.3f} ({:+.3f} to {:+.3f})".format(*row.gain), own, static))
    names = ", ".join(dict.fromkeys(row.name for row in table.rows))
    notes = f"Perplexity of the whole model: {table.dense.perplexity:.2f}. Scorers measured: {names}.\n"
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n" + notes


if __name__ == "__main__":
    raise SystemExit(write_or_check("language", section(), sys.argv[1:]))
