"""The live panel and the figures of time: what is drawn, what is said, what happens with a wrong text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dsgp_lab import Lab, LabError
from dsgp_lab.evaluate.latency import LatencyRatio, LatencyTable
from dsgp_lab.panels.live_latency import LiveLatency, bars_html, verdict
from dsgp_lab.views.latency import ratio_bars, ratio_map


def row(name: str, ratio: float, spread: float = 0.02, macs: float | None = None) -> LatencyRatio:
    ends = (ratio - spread, ratio + spread)
    return LatencyRatio(name, ratio, *ends, *ends, 10 * ratio, macs)


def table_of(ratio: float, spread: float = 0.02) -> LatencyTable:
    rows = (row("lean dense", 1.0, 0.0, 1.0), row("<b>dynamic", ratio, spread, 0.6))
    return LatencyTable("lean dense", rows, row("lean dense again", 1.01), 24, 1, "toy")


def test_the_verdict_follows_the_interval() -> None:
    assert verdict(table_of(0.7)).startswith("<b>dynamic takes 0.70 of lean dense's time (faster)")
    assert "itself strays by up to 0.03" in verdict(table_of(0.7))
    assert "(slower)" in verdict(table_of(1.3))
    assert verdict(table_of(0.99, 0.05)) == "<b>dynamic: no measurable difference from lean dense."


def test_bars_of_html_are_escaped_and_have_the_control() -> None:
    page = bars_html(table_of(0.7))
    assert "<b>" not in page
    assert "&lt;b&gt;dynamic" in page
    assert "lean dense again" in page
    assert page.count("<tr>") == 3


def test_ratio_bars() -> None:
    view = ratio_bars(table_of(0.7))
    assert "2 variants and the control" in view.digest
    assert "0.7" not in view.digest
    names = {trace.name for trace in view.figure.data}
    assert {"measured", "A/A control", "MACs predict"} <= names
    assert len(view.png()) > 1000


def test_ratio_map(tmp_path: Path) -> None:
    ratios = np.array([[0.7, 1.2], [0.6, np.nan]])
    view = ratio_map(ratios, ("1", "8"), ("8", "16"), title="Grid", unit="time / dense")
    assert "3 measured" in view.digest
    page = view.save(tmp_path / "grid.html").read_text("utf-8")
    assert "1.20" in page
    assert len(view.png()) > 1000
    for wrong in (ratios[:1], np.full((2, 2), np.nan)):
        with pytest.raises(LabError, match="ratios of shape"):
            ratio_map(wrong, ("1", "8"), ("8", "16"), title="Grid", unit="time / dense")


def test_the_panel_measures_what_its_controls_say(sst2: Lab) -> None:
    panel = LiveLatency(sst2, "a warm, funny film", keep=0.5, rounds=5)
    assert panel.table is not None
    assert [r.variant for r in panel.table.rows] == ["transformers dense", "lean dense", "dynamic 0.5"]
    assert panel.table.setting == "sst2, 7 tokens, batch 1"
    panel.keep.value = 0.35
    assert panel.table.rows[-1].variant == "dynamic 0.35"
    panel.text.value = "a warm, funny film that goes on"
    assert panel.table.setting == "sst2, 10 tokens, batch 1"
    assert "lean dense again" in panel.result.value
    panel.text.value = " "
    assert 'role="alert"' in panel.result.value
    assert "an empty text" in panel.result.value
    data, _ = panel._repr_mimebundle_()
    assert (
        data["text/plain"] == "LiveLatency of sst2: dense, dynamic (with the router's decisions), A/A control"
    )
    assert data["image/png"]
    assert "application/vnd.jupyter.widget-view+json" in data


def test_a_model_without_a_router(toy_folder: str) -> None:
    panel = LiveLatency(Lab.from_pretrained(toy_folder), "a warm film", rounds=5)
    assert "mask planned beforehand" in repr(panel)
    pair: Callable[[], LiveLatency] = lambda: LiveLatency(  # noqa: E731
        Lab.from_pretrained(toy_folder), ("a warm film", "a dull film"), rounds=5
    )
    assert pair().table is not None
