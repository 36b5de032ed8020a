"""The explorer without a browser: every control, what it shows, what it saves."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import save_toy

from dsgp_lab import Lab, LabError, Mask, gated, plan_mask
from dsgp_lab.edits import Unit, edit_mask
from dsgp_lab.exploration import Exploration
from dsgp_lab.exploration_results import Choice
from dsgp_lab.panels import Explorer
from dsgp_lab.sensitivity import lengths
from dsgp_lab.sensitivity.targets import margin
from dsgp_lab.snapshot import Snapshot

TEXT = "a warm funny film is not bad"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab.from_pretrained(save_toy(tmp_path_factory.mktemp("toy"), num_labels=3), block_size=8)


@pytest.fixture
def panel(lab: Lab) -> Iterator[Explorer]:
    made = lab.explore(TEXT, keep=0.6)
    assert made.wait()
    yield made
    made.close()


def same(a: Mask, b: Mask) -> bool:
    return torch.equal(a.heads, b.heads) and torch.equal(a.blocks, b.blocks)


def test_shows_what_prune_gives(lab: Lab, panel: Explorer) -> None:
    run = lab.prune(TEXT, keep=0.6)
    assert same(panel.mask, run.mask)
    assert panel.outcome is not None
    # a mask that comes again runs on a copy of its weights: the last digits differ
    assert panel.outcome.prediction.logits == pytest.approx(run.prediction.logits, abs=1e-5)
    assert panel.outcome.difference < 1e-4
    assert panel.planned is not None
    assert panel.planned.macs == run.macs
    assert run.prediction.label in panel.face.html["prediction"].value
    assert panel.latency is not None
    assert "paired rounds" in panel.face.html["time"].value
    assert "(A/A)" in panel.face.html["time"].value
    assert "Masked = compacted" in panel.face.html["check"].value


def test_dragging_redraws_the_cheap_parts_before_anything_is_run(lab: Lab, panel: Explorer) -> None:
    old = panel.face.html["prediction"].value
    panel.face.keep.value = 0.3
    scores = lab.sensitivity(TEXT)
    planned = plan_mask(scores, lab.cost, lengths(lab.encode([TEXT])), 0.3)
    assert same(panel.mask, planned)
    assert f"{100 * panel.planned.macs.share:.1f} %" in panel.face.html["macs"].value
    crosses = [int((~planned.heads).sum()), int((~planned.blocks).sum())]
    assert panel.face.map.quick.value.count(":nth-child") == sum(crosses)
    assert "Measuring" in panel.face.html["time"].value
    assert panel.outcome is None
    assert panel.wait()
    assert [sum(panel.face.map.figure.data[number].marker.opacity) for number in (1, 3)] == crosses
    assert panel.outcome is not None
    assert panel.face.html["prediction"].value != old


def test_layer_sliders_follow_the_plan_until_they_are_moved(panel: Explorer) -> None:
    sliders = panel.face.layers.sliders
    assert [s.value for s in sliders["head"]] == panel.mask.heads[0].sum(1).tolist()
    sliders["head"][1].value = 1
    assert panel.mask.heads[0, 1].sum() == 1
    assert panel.mask.heads[0, 1].int().argmax() == panel.sensitivity.heads[0, 1].argmax()
    assert panel.wait()
    assert "fixed" in sliders["head"][1].description
    panel.face.keep.value = 1.0
    assert panel.wait()
    assert [s.value for s in sliders["head"]] == [4, 1, 4]
    assert panel.mask.heads[0].sum(1).tolist() == [4, 1, 4]
    assert "Changed by hand" in panel.face.html["macs"].value
    panel.face.reset.click()
    assert bool(panel.mask.heads.all())
    assert panel.choice.heads == ()


def test_a_toggled_unit_shows_the_truth_beside_the_estimate(lab: Lab, panel: Explorer) -> None:
    unit, before = Unit("head", 2, 1), panel.mask
    panel.toggle(unit)
    assert panel.mask.heads[0, 2, 1] != before.heads[0, 2, 1]
    assert panel.wait()
    assert panel.outcome is not None
    effect = panel.outcome.toggled
    assert effect is not None
    inputs = lab.encode([TEXT])
    without = Mask.full(lab.anatomy)
    without.heads[0, 2, 1] = False
    with torch.no_grad():
        whole = lab.model(**inputs).logits
        with gated(lab.anatomy, without):
            cut = lab.model(**inputs).logits
    chosen = whole.argmax(1)
    assert effect.alone == pytest.approx(float(margin(whole, chosen) - margin(cut, chosen)), abs=1e-4)
    truth = lab.sensitivity(TEXT, "leave_one_out").heads[0, 2, 1]
    assert effect.alone == pytest.approx(float(truth), abs=1e-4)
    assert abs(effect.estimate) == pytest.approx(float(lab.sensitivity(TEXT).heads[0, 2, 1]), abs=1e-4)
    assert "Layer 2, head 1" in panel.face.html["effect"].value
    assert len(panel.face.drill.children) == 2
    panel.toggle(unit)
    assert same(panel.mask, before)


def test_units_are_reached_without_a_pointer(panel: Explorer) -> None:
    panel.face.chooser.kind.value = "block"
    panel.face.chooser.layer.value = 1
    panel.face.chooser.number.value = 5
    assert panel.unit == Unit("block", 1, 5)
    before = bool(panel.mask.blocks[0, 1, 5])
    panel.face.chooser.button.click()
    assert bool(panel.mask.blocks[0, 1, 5]) != before
    assert panel.wait()
    bars = [trace for trace in panel.face.drill.children[0].data if trace.type == "bar"]
    assert sum(len(trace.x) for trace in bars) == 8


def test_bad_input_is_a_sentence_and_the_next_text_clears_it(panel: Explorer) -> None:
    panel.face.text_1.value = "   "
    assert panel.wait()
    assert 'role="alert"' in panel.face.html["status"].value
    assert "empty text" in panel.face.html["status"].value
    panel.face.keep.value = 0.4  # nothing to plan for: no error, no stale picture
    panel.face.text_1.value = "a dull film"
    assert panel.wait()
    assert "alert" not in panel.face.html["status"].value
    assert panel.scored is not None
    assert panel.scored.text == "a dull film"
    assert panel.choice.keep == 0.4


def test_an_unexpected_error_is_folded_and_escaped(panel: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("<script>alert(1)</script>")

    monkeypatch.setattr(panel.exploration, "run", broken)
    panel.face.keep.value = 0.5
    assert panel.wait()
    shown = panel.face.html["status"].value
    assert "<script>" not in shown
    assert "<details>" in shown
    assert "Traceback" in shown


def test_a_users_text_is_escaped_everywhere(lab: Lab, tmp_path: Path) -> None:
    panel = lab.explore("<img src=x onerror=alert(1)> film </script>")
    assert panel.wait()
    path = panel.export(tmp_path / "state.html")
    for shown in (*(card.value for card in panel.face.html.values()), path.read_text("utf-8")):
        assert "<img src=x" not in shown
    assert "film </script>" not in path.read_text("utf-8")
    assert Lab.restore(path).choice.text == "<img src=x onerror=alert(1)> film </script>"
    panel.close()


@pytest.mark.parametrize("ending", [".html", ".json"])
def test_export_restores_to_the_same_mask_and_scores(
    lab: Lab, panel: Explorer, tmp_path: Path, ending: str
) -> None:
    panel.face.layers.sliders["block"][0].value = 2
    panel.toggle(("head", 0, 0))
    assert panel.wait()
    path = panel.export(tmp_path / "state.html")
    snapshot = Lab.restore(path.with_suffix(ending))
    assert same(snapshot.mask, panel.mask)
    assert torch.equal(snapshot.sensitivity.heads, panel.sensitivity.heads)
    assert torch.equal(snapshot.sensitivity.blocks, panel.sensitivity.blocks)
    assert panel.outcome is not None
    assert snapshot.prediction == panel.outcome.prediction
    again = snapshot.explore(lab)
    assert again.wait()
    assert same(again.mask, panel.mask)
    assert torch.equal(again.sensitivity.heads, panel.sensitivity.heads)
    again.close()


def test_a_state_opens_only_the_model_it_was_saved_with(panel: Explorer, tmp_path: Path) -> None:
    """A folder of one's own may have a task's name, and an embedded checkpoint may be another by now."""
    values = json.loads(panel.export(tmp_path / "state.html").with_suffix(".json").read_text("utf-8"))
    named = values | {"choice": values["choice"] | {"task": "sst2"}}
    with pytest.raises(LabError, match=r"a state of the model 'sst2'.*from_pretrained"):
        _ = Snapshot.from_dict(named | {"model": {}}).lab
    with pytest.raises(LabError, match="other weights than 'sst2', frozen, now has"):
        _ = Snapshot.from_dict(named | {"model": {"adapter_model.safetensors": "0" * 64}}).lab
    files = Lab("sst2").card["files"]
    model = {name: entry["sha256"] for name, entry in files.items()}
    assert Snapshot.from_dict(named | {"model": model}).lab.name == "sst2"


def test_exported_page_needs_no_network_and_holds_no_path(panel: Explorer, tmp_path: Path) -> None:
    page = panel.export(tmp_path / "state.html").read_text("utf-8")
    own = page.replace(re.search(r"<script[^>]*>/\*\*.*?</script>", page, re.S).group(), "")
    assert not re.search(r"""(src|href)=["']https?:""", own)
    for text in (own, (tmp_path / "state.json").read_text("utf-8")):
        assert str(tmp_path.parent.parent) not in text
        assert str(Path.home()) not in text
        assert panel.choice.task not in text  # the folder of a model of one's own
    assert json.loads((tmp_path / "state.json").read_text("utf-8"))["format"] == "dsgp-lab explorer 1"


@pytest.mark.parametrize("content", ["{}", "[]", "no json", '{"format": "dsgp-lab explorer 1"}'])
def test_restoring_something_else_says_so(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content, "utf-8")
    with pytest.raises(LabError):
        Lab.restore(tmp_path / "x.json")
    with pytest.raises(LabError, match="cannot be read"):
        Lab.restore(tmp_path / "missing.html")


def test_export_refuses_other_endings(panel: Explorer, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"ending in '\.txt'"):
        panel.export(tmp_path / "state.txt")


def test_bad_arguments_are_errors_at_once(lab: Lab) -> None:
    with pytest.raises(LabError, match="empty text"):
        lab.explore(" ")
    with pytest.raises(LabError, match="keep=2"):
        lab.explore(TEXT, keep=2)
    with pytest.raises(LabError, match="scorer='no such'"):
        lab.explore(TEXT, scorer="no such")


def test_a_long_text_is_scored_after_the_panel_appears(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsgp_lab.panels.explorer.AT_ONCE", 3)
    panel = lab.explore(TEXT)
    assert panel.wait()
    assert panel.mask is not None
    panel.close()


def test_text_beyond_the_models_length_gives_a_notice(lab: Lab) -> None:
    panel = lab.explore("film " * 80)
    assert panel.wait()
    assert "the rest was cut off" in panel.face.html["status"].value
    panel.toggle(("head", 0, 1))
    assert panel.wait()
    assert "spans of" in panel.face.drill.children[1].value
    panel.close()


@pytest.mark.slow
def test_a_text_of_512_tokens_leaves_the_panel_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever runs the model runs in the worker; what a head attends to is drawn by spans, with a notice."""
    where: dict[str, set[str]] = {}
    for step in ("score", "run", "latency", "attention"):
        original = getattr(Exploration, step)

        def recorded(self: Exploration, *given: Any, step: str = step, original: Any = original) -> Any:
            where.setdefault(step, set()).add(threading.current_thread().name)
            return original(self, *given)

        monkeypatch.setattr(Exploration, step, recorded)
    monkeypatch.setattr("dsgp_lab.panels.explorer.FIRST_SECONDS", 0.01)
    monkeypatch.setattr("dsgp_lab.panels.explorer.LATER_SECONDS", 0.01)
    panel = Lab("sst2").explore("The film is slow at first, but the ending is wonderful. " * 60, keep=0.6)
    assert panel.wait(300)
    assert panel.scored is not None
    assert len(panel.scored.tokens) == 512
    assert "the model reads 512, the rest was cut off" in panel.face.html["status"].value
    panel.toggle(("head", 5, 1))
    assert panel.wait(300)
    for keep in (0.5, 0.4):
        panel.face.keep.value = keep
        assert panel.planned is not None
        assert panel.planned.macs.share <= keep  # planned at once, without the model
    assert panel.wait(300)
    assert where == {step: {"explorer"} for step in ("score", "run", "latency", "attention")}
    assert "spans of" in panel.face.drill.children[1].value
    assert "512 tokens" in panel.face.html["time"].value
    panel.close()


def test_other_scorers_and_texts_can_be_set_from_code(panel: Explorer) -> None:
    panel.toggle(("head", 0, 0))
    panel.set(scorer="activation_norm", text="a good film")
    assert panel.wait()
    assert panel.sensitivity.scorer == "activation_norm"
    assert panel.choice.flipped == ()
    assert panel.face.scorer.value == "activation_norm"
    assert panel.face.text_1.value == "a good film"
    with pytest.raises(LabError, match="speed"):
        panel.set(speed=1)


def test_closing_stops_work_and_removes_the_widgets(lab: Lab) -> None:
    panel = lab.explore(TEXT)
    panel.close()
    panel.face.keep.value = 0.2
    assert panel.wait(1)
    assert panel.face.widget.comm is None


def test_notebooks_get_the_panel_its_picture_and_its_words(panel: Explorer) -> None:
    data, metadata = panel._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"} <= set(data)
    assert "Heads kept" in data["text/plain"]
    assert metadata["image/png"]["alt"]


def test_edits_are_checked(lab: Lab) -> None:
    scores, full = lab.sensitivity(TEXT), Mask.full(lab.anatomy)
    for wrong in ({"heads": [1]}, {"blocks": [0, 0, 99]}, {"flipped": [Unit("head", 9, 0)]}):
        with pytest.raises(LabError):
            edit_mask(full, scores, **wrong)
    edited = edit_mask(full, scores, heads=[0, None, None])
    assert edited.heads[0].sum(1).tolist() == [0, 4, 4]
    assert bool(full.heads.all())


@pytest.mark.slow
def test_tasks_routers_and_pairs_of_the_embedded_models(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab("sst2")
    panel = lab.explore("The film is not boring.", keep=0.5, scorer="router")
    assert panel.wait()
    run = lab.prune("The film is not boring.", keep=0.5, scorer="router")
    assert same(panel.mask, run.mask)
    assert "decisions of the router are part of it" in panel.face.html["time"].value
    monkeypatch.setattr("dsgp_lab.panels.explorer.INLINE", 3)  # as for a long text: planned by the worker
    panel.face.keep.value = 0.9
    assert same(panel.mask, run.mask)
    assert panel.wait()
    assert panel.mask.keep_share > run.mask.keep_share
    panel.face.model.value = ("stsb", "frozen")
    assert panel.wait()
    assert panel.scored is not None
    assert isinstance(panel.scored.text, tuple)
    assert "Difference" in panel.face.html["prediction"].value
    assert panel.face.text_2.layout.display != "none"
    panel.close()


@pytest.mark.slow
def test_scorers_of_a_model_are_those_that_work() -> None:
    exploration = Exploration(Lab("cola"))
    assert "router" not in exploration.scorers("wnli", "frozen")
    assert exploration.scorers("cola", "adaptive")[:2] == ("router", "twin")
    assert ("cola", "adaptive") in exploration.models()
    for name in exploration.scorers("wnli", "frozen"):
        choice = Choice("The cat sat.", "cola", scorer=name)
        scored = exploration.score(choice)
        assert exploration.plan(choice, scored).macs.share <= 0.6 + 1e-6
