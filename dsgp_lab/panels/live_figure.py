"""Figures as widgets that a slow browser draws whole: nothing of them is on its way in a message alone.

plotly's FigureWidget tells the browser of itself before it has its data, sends these after, and sends every
change as a message of its own. The browser draws a figure once from the widget's state and then changes it by
messages only; those that come while it still loads plotly (megabytes) are lost. So a figure that is drawn
too early stays empty, and one that is drawn late is out of date. Here the widget is told of when it is
complete, and its state is brought up to each change.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import plotly.graph_objects as go

from dsgp_lab.views.view import CONFIG, View


class LiveFigure(go.FigureWidget):  # type: ignore[misc]  # plotly has no types
    """A figure as a widget, without the tool bar's buttons that do not belong here."""

    _config: dict[str, Any]

    def __init__(self, figure: go.Figure) -> None:
        self._is_complete = False
        super().__init__(figure)
        self._config = self._config | CONFIG
        self._is_complete = True
        self.open()

    def open(self) -> None:
        """Tell the browser of the widget, once it is complete."""
        if self._is_complete:
            super().open()

    @contextmanager
    def changing(self) -> Iterator[LiveFigure]:
        """Changes in one message; the state follows, for a browser that has not drawn the figure yet."""
        with self.batch_update():
            yield self
        self._widget_data = deepcopy(self._data)
        self._widget_layout = deepcopy(self._layout_obj._props)


def live(view: View) -> LiveFigure:
    """A view as a widget."""
    return LiveFigure(view.figure)


def redraw(widget: LiveFigure, view: View) -> None:
    """Replace a live figure's numbers and words by those of a view with the same plots."""
    with widget.changing():
        for old, new in zip(widget.data, view.figure.data, strict=False):
            old.update(new.to_plotly_json(), overwrite=False)
        widget.layout.annotations = view.figure.layout.annotations
