"""The explorer's live heat maps: crosses by style at once, in the figure at rest; rings; slow browsers."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
import torch

from dsgp_lab import Mask
from dsgp_lab.edits import Unit
from dsgp_lab.panels.live_figure import live
from dsgp_lab.panels.unit_map import UnitMap
from dsgp_lab.views import sensitivity_heatmap
from dsgp_lab.views.view import View


def made_up_view(seed: int = 0) -> View:
    chance = torch.Generator().manual_seed(seed)
    scores = [torch.rand(3, units, generator=chance) for units in (4, 6)]
    masks = [torch.rand(3, units, generator=chance) > 0.5 for units in (4, 6)]
    return sensitivity_heatmap(*scores, mask_heads=masks[0], mask_blocks=masks[1], title=f"text {seed}")


class Browser:
    """Keeps what a browser's model of the widget would hold: the state it was opened with, then updates."""

    def __init__(self, data: dict[str, Any], **_: Any) -> None:
        self.comm_id = uuid4().hex
        self.opened, self.state = dict(data["state"]), dict(data["state"])

    def send(self, data: dict[str, Any], **_: Any) -> None:
        if data.get("method") == "update":
            self.state |= {key: value for key, value in data["state"].items() if key.startswith("_widget")}

    def on_msg(self, receiver: Any) -> None:
        """Nothing is sent back."""

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> list[Browser]:
    made: list[Browser] = []

    def create(**options: Any) -> Browser:
        made.append(Browser(**options))
        return made[-1]

    monkeypatch.setattr("ipywidgets.comm.create_comm", create)
    return made


def test_a_browser_hears_of_a_figure_when_it_is_complete(browser: list[Browser]) -> None:
    view = made_up_view()
    live(view)
    (seen,) = browser
    assert [trace["type"] for trace in seen.opened["_widget_data"]] == [t.type for t in view.figure.data]
    assert seen.opened["_widget_layout"]["width"] == view.figure.layout.width
    assert not seen.opened["_config"]["displaylogo"]


def test_a_figure_drawn_late_is_up_to_date(browser: list[Browser]) -> None:
    """Messages of change are lost while the browser loads plotly; the state that it draws from is not."""
    first, second = made_up_view(0), made_up_view(1)
    drawn = UnitMap(first, print)
    seen = next(one for one in browser if "_widget_data" in one.opened)
    drawn.draw(second)
    drawn.set_mask(
        Mask(torch.zeros(1, 3, 4, dtype=torch.bool), torch.ones(1, 3, 6, dtype=torch.bool)),
        (Unit("head", 1, 2),),
    )
    drawn.settle(Mask(torch.zeros(1, 3, 4, dtype=torch.bool), torch.ones(1, 3, 6, dtype=torch.bool)))
    drawn.select(Unit("block", 2, 5))
    data, layout = seen.state["_widget_data"], seen.state["_widget_layout"]
    assert data[0]["z"] == drawn.figure.to_dict()["data"][0]["z"] != seen.opened["_widget_data"][0]["z"]
    assert data[1]["marker"]["opacity"] == [1] * 12
    assert data[4]["x"] == ["head 2"]
    assert layout["shapes"][0]["x0"] == 4.5
    assert any("text 1" in note["text"] for note in layout["annotations"])


def test_crosses_and_rings_follow_the_mask() -> None:
    chance = torch.Generator().manual_seed(0)
    scores = [torch.rand(3, units, generator=chance) for units in (4, 6)]
    heads, blocks = (torch.rand(3, units, generator=chance) > 0.5 for units in (4, 6))
    view = sensitivity_heatmap(*scores, mask_heads=heads, mask_blocks=blocks)
    drawn, mask = UnitMap(view, print), Mask(heads[None], blocks[None])
    flipped = (Unit("head", 1, 2),)
    for _ in range(2):
        assert [len(trace.x) for trace in drawn.figure.data] == [4, 12, 6, 18, 0, 0]
        drawn.set_mask(mask, flipped)
        assert drawn.figure.data[4].x == ("head 2",)
        assert drawn.quick.value.count(":nth-child") == int((~heads).sum() + (~blocks).sum())
        drawn.settle(mask)
        assert sum(drawn.figure.data[1].marker.opacity) == int((~heads).sum())
        drawn.draw(view)  # other scores: the rings are drawn again with the next mask
    assert drawn.fits(view)
    assert len(view.figure.data[1].x) == int((~heads).sum())  # the view itself is left alone
