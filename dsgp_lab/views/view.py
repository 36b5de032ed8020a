"""View: one figure in two forms, with its text alternative; how it is shown in a notebook and saved.

JupyterLab shows the still PNG at once and swaps in the interactive figure when the pointer enters it; GitHub
and nbconvert show the PNG; nbval compares the digest only, so a digest holds rounded facts that are the same
on every machine.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from dsgp_lab.errors import LabError
from dsgp_lab.views.chart import Chart
from dsgp_lab.views.interactive import draw_interactive
from dsgp_lab.views.still import draw_still, image
from dsgp_lab.whole_files import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLOTLY_MIME = "application/vnd.plotly.v1+json"
# Plotly's tool bar has a button that sends the chart to a server of its makers: not from here.
CONFIG = {
    "displaylogo": False,
    "modeBarButtonsToRemove": ["sendChartToCloud", "select2d", "lasso2d"],
}


@dataclass(frozen=True, eq=False)
class View:
    """A figure.

    figure: the interactive plotly figure. static: draws the still matplotlib twin when it is needed.
    digest: a few lines of facts, rounded. alt: one sentence for those who cannot see the picture.
    """

    figure: go.Figure
    static: Callable[[], Figure]
    digest: str
    alt: str

    def __repr__(self) -> str:
        """Print as the digest."""
        return self.digest

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what Jupyter shows: all forms at once, so that each reader finds one it can draw."""
        data = {
            PLOTLY_MIME: json.loads(self.figure.to_json()) | {"config": CONFIG},
            "image/png": base64.b64encode(self.png()).decode("ascii"),
            "text/plain": self.digest,
        }
        return data, {"image/png": {"alt": self.alt}}

    def png(self) -> bytes:
        """Return the still twin as PNG."""
        return image(self.static(), "png")

    def svg(self) -> bytes:
        """Return the still twin as SVG."""
        return image(self.static(), "svg", self.alt)

    def html(self) -> str:
        """Return a page that needs no network: the interactive figure, and the digest under it as text."""
        body = self.figure.to_html(full_html=False, include_plotlyjs=True, config=CONFIG, div_id="figure")
        alt, digest = html.escape(self.alt), html.escape(self.digest)
        return (
            f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{alt}</title></head>\n'
            f'<body style="background: white">\n<div role="img" aria-label="{alt}">{body}</div>\n'
            f"<pre>{digest}</pre>\n</body>\n</html>\n"
        )

    def save(self, path: str | Path) -> Path:
        """Write the view to `path`, as .png, .svg or .html by its ending, and return the path."""
        path = Path(path)
        writers: dict[str, Callable[[], bytes]] = {
            ".png": self.png,
            ".svg": self.svg,
            ".html": lambda: self.html().encode(),
        }
        if path.suffix.lower() not in writers:
            raise LabError(
                got=f"a file ending in {path.suffix!r}",
                allowed=", ".join(writers),
                hint=f"save it as {path.stem}.png or {path.stem}.html",
            )
        content = writers[path.suffix.lower()]()
        with whole_file(path) as scratch:
            scratch.write_bytes(content)
        return path


def show(view: View) -> None:
    """Show a view in a notebook: one output with the interactive figure, the still twin and the digest."""
    from IPython.display import display

    data, metadata = view._repr_mimebundle_()
    display(data, metadata=metadata, raw=True)


def make_view(chart: Chart, alt: str, facts: list[str]) -> View:
    """Draw a chart as a View whose digest is the alternative text and the facts, a line each."""
    digest = "\n".join([alt, *facts])
    return View(draw_interactive(chart), lambda: draw_still(chart), digest, alt)
