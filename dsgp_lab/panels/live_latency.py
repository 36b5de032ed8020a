"""LiveLatency: measured bars that follow the text and the budget, with the A/A control always in view."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import ipywidgets as w
import torch

from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.latency import LatencyTable, measure_latency, threads
from dsgp_lab.plan import plan_mask
from dsgp_lab.router import Router
from dsgp_lab.router_planner import Planner
from dsgp_lab.sensitivity import lengths
from dsgp_lab.views.latency import ratio_bars

if TYPE_CHECKING:
    from dsgp_lab.anatomy import Inputs
    from dsgp_lab.lab import Lab

ROUNDS = 24
WIDTH = 320
COLOURS = {"lean dense": "#8a8a8a", "lean dense again": "#bdbdbd"}


class LiveLatency:
    """Text, budget and threads on top, bars below: transformers, lean dense, the cut model, the control.

    With a router for the task, *dynamic* includes its decisions; without, the mask is planned from
    first-order scores beforehand, which are not part of the time. `table` holds the last measurement.
    """

    def __init__(
        self, lab: Lab, text: str | tuple[str, str], keep: float = 0.6, rounds: int = ROUNDS
    ) -> None:
        self.lab, self.rounds = lab, rounds
        self._router = self._find_router()
        self._pair = isinstance(text, tuple)
        first, second = text if isinstance(text, tuple) else (text, "")
        wide = w.Layout(width="95%")
        self.text = w.Text(first, description="text", continuous_update=False, layout=wide)
        self.second = w.Text(second, description="second", continuous_update=False, layout=wide)
        self.keep = w.FloatSlider(
            keep, min=0.1, max=1.0, step=0.05, description="keep", continuous_update=False
        )
        self.threads = w.Dropdown(options=[1, 2, 4], value=1, description="threads")
        self.result = w.HTML()
        controls = [self.text, *([self.second] if self._pair else []), w.HBox([self.keep, self.threads])]
        self.widget = w.VBox([*controls, self.result])
        self.table: LatencyTable | None = None
        for control in (self.text, self.second, self.keep, self.threads):
            control.observe(self._changed, names="value")
        self.measure()

    def measure(self) -> None:
        """Measure what the controls say and draw it; a mistake in them is shown in place of the bars."""
        try:
            self.table = self._measured()
        except LabError as error:
            self.result.value = f'<p role="alert">{escape(str(error))}</p>'
            return
        self.result.value = bars_html(self.table)

    def _changed(self, _: Any) -> None:
        self.result.value = "<p>measuring …</p>"
        self.measure()

    def _measured(self) -> LatencyTable:
        lab, keep = self.lab, float(self.keep.value)
        text = (self.text.value, self.second.value) if self._pair else self.text.value
        inputs = lab.encode([text])
        dynamic = self._dynamic(inputs, keep)
        variants = {
            "transformers dense": torch.inference_mode()(lambda: lab.model(**inputs)),
            "lean dense": lambda: lab.subnetwork.dense(inputs),
            f"dynamic {keep:g}": dynamic,
        }
        tokens = inputs["input_ids"].shape[1]
        with threads(int(self.threads.value)):
            setting = f"{lab.name}, {tokens} tokens, batch 1"
            return measure_latency(variants, "lean dense", rounds=self.rounds, warmup=3, setting=setting)

    def _dynamic(self, inputs: Inputs, keep: float) -> Any:
        lab = self.lab
        if self._router is not None:
            planner = Planner(self._router, keep)
            return lambda: lab.subnetwork.run(inputs, planner)
        scores = lab.sensitivity(
            [str(self.text.value)] if not self._pair else [(self.text.value, self.second.value)]
        )
        mask = plan_mask(scores, lab.cost, lengths(inputs), keep)
        return lambda: lab.subnetwork.run(inputs, lab.subnetwork.select(mask))

    def _find_router(self) -> Router | None:
        try:
            found = self.lab.scorer("router")
        except LabError:
            return None
        return found if isinstance(found, Router) else None

    def __repr__(self) -> str:
        """What is shown, without times."""
        dynamic = "with the router's decisions" if self._router else "mask planned beforehand"
        return f"LiveLatency of {self.lab.name}: dense, dynamic ({dynamic}), A/A control"

    def _repr_mimebundle_(self, **_: Any) -> Any:
        """The widget, and a still picture where no program runs."""
        bundle = dict(self.widget._repr_mimebundle_() or {})
        about: dict[str, Any] = {}
        if self.table is not None:
            still, about = ratio_bars(self.table, title="The panel's last measurement")._repr_mimebundle_()
            bundle["image/png"] = still["image/png"]
        bundle["text/plain"] = repr(self)
        return bundle, about


def bars_html(table: LatencyTable) -> str:
    """The ratios as bars of HTML, intervals as thin lines, and a sentence on what may be said."""
    rows = (*table.rows, table.control)
    longest = max(1.0, *(row.ci_high for row in rows))

    def bar(name: str, value: float, low: float, high: float, milliseconds: float) -> str:
        place = WIDTH / longest
        colour = COLOURS.get(name, "#0072b2")
        whisker = f"position:absolute;left:{low * place:.0f}px;width:{max(2.0, (high - low) * place):.0f}px"
        return (
            f'<tr><td style="padding-right:8px">{escape(name)}</td>'
            f'<td style="position:relative;width:{WIDTH}px">'
            f'<div style="background:{colour};height:14px;width:{value * place:.0f}px"></div>'
            f'<div style="{whisker};top:8px;height:3px;background:#d55e00"></div></td>'
            f'<td style="padding-left:8px">{milliseconds:.2f} ms, {value:.2f} [{low:.2f}, {high:.2f}]</td>'
            "</tr>"
        )

    body = "".join(bar(r.variant, r.ratio, r.ci_low, r.ci_high, r.median_ms) for r in rows)
    return f"<table>{body}</table><p>{escape(verdict(table))}</p>"


def verdict(table: LatencyTable) -> str:
    """What the last variant's interval and the control's allow to say."""
    row, control = table.rows[-1], table.control
    if not row.differs:
        return f"{row.variant}: no measurable difference from {table.baseline}."
    kind = "faster" if row.ratio < 1 else "slower"
    noise = max(control.ci_high, 2 - control.ci_low) - 1
    return (
        f"{row.variant} takes {row.ratio:.2f} of {table.baseline}'s time ({kind}); the baseline against"
        f" itself strays by up to {noise:.2f}."
    )
