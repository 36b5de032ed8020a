"""An explorer's state as one page that needs no network, and as JSON."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.latency import machine
from dsgp_lab.snapshot import SCRIPT_ID, Snapshot, snapshot_of
from dsgp_lab.views.view import CONFIG
from dsgp_lab.whole_files import write_text

if TYPE_CHECKING:
    from dsgp_lab.panels.explorer import Explorer


def snapshot(panel: Explorer) -> Snapshot:
    """What a panel shows, as a Snapshot; LabError while something is still on its way."""
    if panel.scored is None or panel.planned is None or panel.outcome is None:
        raise LabError(
            got="a panel that is still computing",
            allowed="one with a prediction under its mask",
            hint="wait a moment; in a script call panel.wait() first",
        )
    lab = panel.exploration.lab(panel.choice)
    cut = panel.outcome.prediction
    return snapshot_of(lab, panel.choice, panel.planned, panel.scored.dense, cut)


def export_explorer(panel: Explorer, path: str | Path) -> Path:
    """Write `path` (.html) and the same name with .json; returns the path."""
    path = Path(path)
    if path.suffix.lower() != ".html":
        raise LabError(
            got=f"a file ending in {path.suffix!r}", allowed=".html", hint=f"write {path.stem}.html"
        )
    state = snapshot(panel)
    write_text(path, _page(panel, state))
    plain = json.dumps(state.to_dict(), ensure_ascii=False, indent=1)
    write_text(path.with_suffix(".json"), plain + "\n")
    return path


def _page(panel: Explorer, state: Snapshot) -> str:
    from dsgp_lab.panels.face import CARDS

    view = panel.view()
    assert view is not None
    figure = view.figure.to_html(full_html=False, include_plotlyjs=True, config=CONFIG, div_id="figure")
    side = "\n".join(panel.face.html[name].value for name in CARDS)
    # in a script element the text ends at the first "</": no user's text may hold one
    data = json.dumps(state.to_dict(), ensure_ascii=False).replace("<", "\\u003c")
    text = state.choice.text
    title = escape(text if isinstance(text, str) else " / ".join(text))
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>DSGP Lab: {title}</title>
<style>
body {{ background: white; color: #1a1a1a; font: 16px/1.5 Verdana, Arial, sans-serif; margin: 16px auto;
  max-width: 1240px; padding: 0 16px }}
main {{ display: flex; flex-wrap: wrap; gap: 16px }}
aside {{ flex: 1 1 320px; max-width: 460px }}
table {{ border-collapse: collapse }} td, th {{ padding: 2px 12px 2px 0; vertical-align: top }}
pre {{ white-space: pre-wrap }}
</style></head>
<body>
<h1>{title}</h1>
<main>
<div>
<div role="img" aria-label="{escape(view.alt)}">{figure}</div>
{state.report().html()}
</div>
<aside>
{side}
</aside>
</main>
<details><summary>The heat maps in words</summary><pre>{escape(view.digest)}</pre></details>
<p>Times were measured on: {escape(machine())}.</p>
<script type="application/json" id="{SCRIPT_ID}">{data}</script>
</body>
</html>
"""
