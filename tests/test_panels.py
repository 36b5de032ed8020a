"""The comparison's and the sweep's panels, without a browser."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cells import data_of_cards, fake_run
from toys import save_toy

from dsgp_lab import Lab, LabError
from dsgp_lab.evaluate.cell import Cell, CellResult
from dsgp_lab.evaluate.cell_files import cell_path, claimed
from dsgp_lab.evaluate.sweep_plan import plan_cells
from dsgp_lab.panels import sweep_panel
from dsgp_lab.panels.compare_panel import ComparePanel
from dsgp_lab.panels.sweep_panel import SweepPanel

A, B = "a warm funny film", "the film is not good"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab.from_pretrained(save_toy(tmp_path_factory.mktemp("toy"), num_labels=3), block_size=8)


@pytest.fixture
def compared(lab: Lab) -> Iterator[ComparePanel]:
    panel = lab.compare_panel(A, B, keep=0.5)
    yield panel
    panel.close()


def test_comparison_follows_texts_budget_and_masks(lab: Lab, compared: ComparePanel) -> None:
    compared.keep.value = 0.4
    compared.texts[1].value = "very dull"
    assert compared.wait()
    want = lab.compare(A, "very dull", keep=0.4)
    assert compared.comparison is not None
    assert compared.comparison.swapped_b.logits == pytest.approx(want.swapped_b.logits, abs=1e-5)
    compared.masks.value = "swapped"
    assert "the other&#x27;s mask" in compared.cards[1].value
    assert f"{100 * want.swapped_b.probabilities[0]:.1f} %" in compared.cards[1].value
    crosses = [len(trace.x) for trace in compared._figure.data if trace.type == "scatter"]
    assert crosses[0] == int((~want.b.mask.heads).sum())
    assert "Only a runs" in compared.cards[2].value


def test_comparison_shows_errors_and_recovers(compared: ComparePanel) -> None:
    compared.texts[0].value = " "
    assert compared.wait()
    assert 'role="alert"' in compared.status.value
    compared.texts[0].value = "<i>film</i>"
    assert compared.wait()
    assert compared.status.value == ""
    assert "<i>" not in "".join(card.value for card in compared.cards)
    data, _ = compared._repr_mimebundle_()
    assert {"image/png", "text/plain", "application/vnd.jupyter.widget-view+json"} <= set(data)


class Stub:
    """As much of a Lab as a sweep panel asks for."""

    class task:
        name = "sst2"

    name, regime = "sst2", "frozen"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    data_of_cards(tmp_path, monkeypatch)
    return tmp_path


def test_a_sweep_fills_the_curve_and_goes_on_where_it_stopped(home: Path) -> None:
    seen: list[Cell] = []

    def run(cell: Cell) -> CellResult:
        seen.append(cell)
        return fake_run(cell)

    panel = SweepPanel(Stub(), home / "sweep", run)  # type: ignore[arg-type]
    panel.methods.value = ["random"]
    panel.budgets.value = [0.4, 0.6]
    panel.start()
    assert panel.wait()
    assert len(panel.outcomes) == 3 == len(seen)
    assert panel.rows is not None
    assert set(panel.rows["keep"]) == {0.4, 0.6, 1.0}
    assert len(panel.figure_box.children) == 2
    assert panel.bar.value == panel.bar.max == 3
    assert not panel.start_button.disabled
    panel.budgets.value = [0.4, 0.5, 0.6]
    panel.start()
    assert panel.wait()
    assert len(seen) == 4
    panel.close()
    assert (home / "sweep").exists()


def test_cells_of_another_sweep_are_waited_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = threading.Event()
    monkeypatch.setattr(SweepPanel, "_wait_for", lambda self, number: waiting.set())
    monkeypatch.setattr(sweep_panel, "POLL_SECONDS", 0.05)
    cells = plan_cells(["sst2"], ["frozen"], ["random"], [0.4], limit=64, split="teaching", say=print)
    panel = SweepPanel(Stub(), home / "sweep", fake_run)  # type: ignore[arg-type]
    panel.methods.value, panel.budgets.value = ["random"], [0.4]
    panel.folder.mkdir()
    with claimed(cell_path(panel.folder, cells[-1])) as mine:
        assert mine
        panel.start()
        assert waiting.wait(30)
        assert len(panel.outcomes) == len(cells) - 1
    assert panel.wait()
    assert {outcome.cell for outcome in panel.outcomes} == set(cells)
    assert panel.rows is not None
    assert panel.status.value == "Done."
    panel.close()


def test_a_budget_below_the_sliders_is_shown_as_it_is(lab: Lab) -> None:
    compared, explored = lab.compare_panel(A, B, keep=0.03), lab.explore(A, keep=0.03)
    assert compared.keep.value == explored.face.keep.value == 0.03
    assert explored.wait()
    compared.close()
    explored.close()


def test_cancelling_keeps_what_is_done(home: Path) -> None:
    running, go_on = threading.Event(), threading.Event()

    def run(cell: Cell) -> CellResult:
        if cell.method == "random":
            running.set()
            go_on.wait(5)
        return fake_run(cell)

    panel = SweepPanel(Stub(), None, run)  # type: ignore[arg-type]
    panel.methods.value = ["random"]
    panel.start()
    assert running.wait(10)
    assert panel.start_button.disabled
    panel.cancel()
    go_on.set()
    assert panel.wait()
    assert "Cancelled" in panel.status.value
    assert len(panel.outcomes) == 1
    folder = panel.folder
    panel.close()
    assert not folder.exists()


def test_an_error_in_a_sweep_is_shown(home: Path) -> None:
    def run(cell: Cell) -> CellResult:
        raise RuntimeError("<no>")

    panel = SweepPanel(Stub(), None, run)  # type: ignore[arg-type]
    panel.start()
    assert panel.wait()
    assert "RuntimeError: &lt;no&gt;" in panel.status.value
    assert "<details>" in panel.status.value
    panel.close()


def test_a_model_of_ones_own_has_no_sweep(lab: Lab) -> None:
    with pytest.raises(LabError, match="no embedded task"):
        lab.sweep_panel()
