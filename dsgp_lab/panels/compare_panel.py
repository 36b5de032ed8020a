"""Two texts under one budget, live: both maps on one scale, masks swapped, what only one needs."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, get_args

import ipywidgets as w
import torch

from dsgp_lab.exploration import Exploration
from dsgp_lab.panels.controls import SHORT, button, close_all, stretching, wrapping
from dsgp_lab.panels.face import error_html
from dsgp_lab.panels.live_figure import LiveFigure, live, redraw
from dsgp_lab.panels.worker import Worker
from dsgp_lab.results import Comparison, Masks, Text
from dsgp_lab.views import cards

if TYPE_CHECKING:
    from dsgp_lab.lab import Lab

DEBOUNCE = 0.12
NAMES: dict[str, str] = {"own": "own masks", "swapped": "swapped", "only": "what only one runs"}


@dataclass(frozen=True)
class Question:
    """What is compared."""

    a: Text
    b: Text
    keep: float
    scorer: str


class ComparePanel:
    """The panel of `lab.compare_panel(a, b)`. Display it as the last line of a cell.

    `comparison` is what is shown (None while nothing could be compared yet); `wait()` waits for the worker,
    `close()` ends the panel and its work.
    """

    def __init__(self, lab: Lab, question: Question) -> None:
        self._lab, self.question = lab, question
        self._figure: LiveFigure | None = None
        self.comparison: Comparison | None = lab.compare(
            question.a, question.b, question.keep, question.scorer
        )
        self._worker = Worker("compare")
        self._make_controls()
        self._draw()

    def wait(self, timeout: float = 60.0) -> bool:
        """Wait until everything is computed (in scripts and tests)."""
        return self._worker.wait(timeout)

    def close(self) -> None:
        """Stop all work and remove the panel."""
        self._worker.close()
        close_all(self.widget)

    def __repr__(self) -> str:
        """What is shown, in words."""
        if self.comparison is None:
            return "Comparison of two texts, being computed"
        return f"{self.comparison}\n{self.comparison.view(self.masks.value).digest}"

    def _repr_mimebundle_(self, **_: Any) -> Any:
        """The live panel; where no widget can be drawn, its still picture and its words."""
        bundle = self.widget._repr_mimebundle_()
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        data = dict(data) | {"text/plain": repr(self)}
        if self.comparison is not None:
            still, about = self.comparison.view(self.masks.value)._repr_mimebundle_()
            data["image/png"] = still["image/png"]
            metadata = dict(metadata) | about
        return data, metadata

    def _make_controls(self) -> None:
        question = self.question
        self._pair = not isinstance(question.a, str)
        self.texts = [
            w.Text(value=value, continuous_update=False, description=name, style=SHORT, layout=stretching())
            for name, value in _fields(question, self._pair)
        ]
        names = Exploration(self._lab).scorers(self._lab.name, self._lab.regime)
        self.scorer = w.Dropdown(
            options=[(name.replace("_", " "), name) for name in dict.fromkeys((question.scorer, *names))],
            value=question.scorer,
            description="scorer",
            style=SHORT,
            layout=w.Layout(width="220px"),
        )
        self.keep = w.FloatSlider(
            value=question.keep,
            min=min(0.05, question.keep),
            max=1.0,
            step=0.01,
            readout_format=".0%",
            description="keep",
            style=SHORT,
            layout=stretching(),
        )
        self.masks = w.ToggleButtons(options=[(NAMES[name], name) for name in get_args(Masks)])
        self.masks.style.button_width = "auto"
        close = button("Close", "End the panel and its work", self.close)
        self.status = w.HTML()
        self.cards = [w.HTML(layout=w.Layout(flex="1 1 260px", width="auto")) for _ in range(3)]
        self.map_box = w.Box(layout=w.Layout(overflow="auto"))
        for control in (*self.texts, self.scorer, self.keep):
            control.observe(self._on_change, names="value")
        self.masks.observe(lambda _: self._draw(), names="value")
        self.widget = w.VBox(
            [
                *(
                    w.HBox(self.texts[row : row + 2], layout=wrapping())
                    for row in range(0, len(self.texts), 2)
                ),
                w.HBox([self.scorer, self.keep, self.masks, close], layout=wrapping()),
                self.status,
                w.HBox(
                    [
                        self.map_box,
                        w.Box(self.cards, layout=w.Layout(flex="1 1 280px", flex_flow="row wrap")),
                    ],
                    layout=w.Layout(flex_flow="row wrap", width="100%"),
                ),
            ],
            layout=w.Layout(width="100%"),
        )
        self.widget.add_class("dsgp-compare")

    def _on_change(self, _: Any) -> None:
        values = [control.value for control in self.texts]
        a: Text = (values[0], values[1]) if self._pair else values[0]
        b: Text = (values[2], values[3]) if self._pair else values[1]
        question = Question(a, b, round(self.keep.value, 4), self.scorer.value)
        self.question = question

        def job(_: Any) -> Comparison:
            return self._lab.compare(question.a, question.b, question.keep, question.scorer)

        self._worker.submit(job, self._take, self._fail, DEBOUNCE)

    def _take(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.status.value = ""
        self._draw()

    def _fail(self, error: BaseException) -> None:
        self.status.value = error_html(error)

    def _draw(self) -> None:
        found = self.comparison
        if found is None:
            return
        which: Masks = self.masks.value
        view = found.view(which)
        if self._figure is None:
            self._figure = live(view)
            self.map_box.children = (self._figure,)
        else:
            redraw(self._figure, view)
        runs = ((found.a, found.swapped_a), (found.b, found.swapped_b))
        for card, name, (run, swapped) in zip(self.cards, "ab", runs, strict=False):
            cut = swapped if which == "swapped" else run.prediction
            under = "the other's mask" if which == "swapped" else "its own mask"
            card.value = cards.prediction_card(
                self._lab.labels,
                run.dense.probabilities,
                cut.probabilities,
                margins=(run.dense.margin, run.dense.margin_in(torch.tensor(cut.logits))),
                values=(run.dense.label, cut.label),
                title=f"Text {name} under {under}",
            )
        lines = found.report()
        only = [escape(cell) for cell in lines.rows[-1]]
        body = f"<div>Only a runs {only[1]}.<br>Only b runs {only[2]}.</div>"
        self.cards[2].value = cards.card("The masks", body, " ".join(lines.notes))


def _fields(question: Question, pair: bool) -> list[tuple[str, str]]:
    if not pair:
        return [("text a", str(question.a)), ("text b", str(question.b))]
    return [
        (f"{name}, {place}", column)
        for name, text in (("a", question.a), ("b", question.b))
        for place, column in zip(("first", "second"), text, strict=True)
    ]
