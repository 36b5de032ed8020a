"""Own fine-tuned encoders in two lines: classification, multi-label, regression; device and numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import save_toy, toy_model

from dsgp_lab import Lab, LabError, gated
from dsgp_lab.evaluate.switches import word_switches
from dsgp_lab.results import Prediction
from dsgp_lab.router import Router, RouterShape
from dsgp_lab.sensitivity import FirstOrder, Fisher, LeaveOneOut
from dsgp_lab.sensitivity.targets import label_margin

TEXT = "a warm funny film"
FAMILIES = ("bert", "roberta", "electra", "distilbert")


def saved(folder: Path, family: str, problem: str, num_labels: int) -> str:
    """A toy checkpoint whose configuration names the problem, as the Trainer leaves it."""
    place = save_toy(folder, num_labels, family)
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text("utf-8")) | {"problem_type": problem}), "utf-8")
    return place


@pytest.mark.parametrize("family", FAMILIES)
def test_multi_label_models(tmp_path: Path, family: str) -> None:
    lab = Lab.from_pretrained(saved(tmp_path, family, "multi_label_classification", 4), block_size=8)
    logits = lab.model(**lab.encode([TEXT])).logits[0].detach()
    found = lab.predict(TEXT)
    assert found.chosen == tuple(i for i in range(4) if logits[i] > 0)
    assert found.probabilities == pytest.approx(torch.sigmoid(logits).tolist(), abs=1e-5)
    assert found.label == (", ".join(f"class {i}" for i in found.chosen) or "no label")
    run = lab.prune(TEXT, keep=0.6)
    with torch.no_grad(), gated(lab.anatomy, run.mask):
        expected = lab.model(**lab.encode([TEXT])).logits[0]
    assert run.prediction.logits == pytest.approx(expected.tolist(), abs=1e-4)
    assert run.agrees == (run.prediction.chosen == run.dense.chosen)
    assert lab.compare(TEXT, "a dull film").swapped_a.chosen is not None


@pytest.mark.parametrize("family", FAMILIES)
def test_single_label_and_regression(tmp_path: Path, family: str) -> None:
    classes = Lab.from_pretrained(
        saved(tmp_path / "classes", family, "single_label_classification", 3), block_size=8
    )
    assert sum(classes.predict(TEXT).probabilities) == pytest.approx(1)
    assert classes.predict(TEXT).chosen is None
    regression = Lab.from_pretrained(saved(tmp_path / "value", family, "regression", 1), block_size=8)
    assert regression.labels == ()
    value = float(regression.anatomy.logits(regression.encode([TEXT])).detach()[0, 0])
    assert regression.predict(TEXT).logits[0] == pytest.approx(value, abs=1e-5)
    assert regression.prune(TEXT, keep=0.6).prediction.probabilities == ()


def test_one_label_of_its_own(tmp_path: Path) -> None:
    lab = Lab.from_pretrained(saved(tmp_path, "bert", "multi_label_classification", 1))
    assert lab.labels == ("class 0",)
    assert lab.predict(TEXT).chosen in ((), (0,))


def test_a_regression_of_several_values_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"a regression with 3 values.*problem_type"):
        Lab.from_pretrained(saved(tmp_path, "bert", "regression", 3))


def test_multi_label_models_everywhere_as_in_predict(tmp_path: Path) -> None:
    """Explorer, gallery, switches, both panels and a restored state show the same set of labels."""
    lab = Lab.from_pretrained(saved(tmp_path, "bert", "multi_label_classification", 4), block_size=8)
    texts = [TEXT, "a dull film"]
    dense = lab.predict(TEXT)
    assert dense.chosen is not None
    assert len(dense.chosen) != 1  # which one class could not stand for
    assert lab.gallery(texts).labels == tuple(lab.predict(text).label for text in texts)
    router = Router(RouterShape.of(lab.anatomy, "layerwise"))
    assert word_switches(lab, TEXT, 1.0, router).prediction.chosen == dense.chosen
    panel = lab.explore(TEXT, keep=0.6)
    assert panel.wait()
    run = lab.prune(TEXT, keep=0.6)
    snapshot = Lab.restore(panel.export(tmp_path / "state.html"))
    panel.close()
    assert snapshot.dense == dense
    assert snapshot.prediction.chosen == run.prediction.chosen
    card = lab.compare_panel(*texts, 0.6).cards[0].value
    whole = torch.tensor([[label in dense.chosen for label in range(4)]])
    margin = float(label_margin(torch.tensor([run.prediction.logits]), whole)[0])
    assert dense.margin_in(torch.tensor(run.prediction.logits)) == pytest.approx(margin)
    assert f"Margin of {dense.label}: dense {dense.margin:.2f}, pruned {margin:.2f}." in card


def test_multi_label_predictions_read_well() -> None:
    labels = ("joy", "fear", "surprise")
    some = Prediction.of(torch.tensor([2.0, -1.0, 0.5]), labels, multi_label=True)
    none = Prediction.of(torch.tensor([-2.0, -1.0, -0.5]), labels, multi_label=True)
    assert repr(some) == "joy, surprise (0.881, 0.622), margin 3.50"
    assert repr(none) == "no label (at most 0.378), margin 3.50"


def test_multi_label_scores_are_of_all_labels() -> None:
    """The derivative of the summed margins, against finite differences; leave-one-out likewise."""
    model = toy_model("bert", 4)
    model.config.problem_type = "multi_label_classification"
    model = model.double()
    lab_inputs: dict[str, Any] = {
        "input_ids": torch.tensor([[5, 9, 7, 20]]),
        "attention_mask": torch.ones(1, 4).long(),
    }
    from dsgp_lab import Anatomy, Mask
    from dsgp_lab.gates import Gates

    anatomy = Anatomy.of(model, 8)
    scores = FirstOrder(signed=True)(anatomy, lab_inputs)
    with torch.no_grad():
        dense = anatomy.logits(lab_inputs)
    ones = [torch.ones(1, 3, n, dtype=torch.float64) for n in (anatomy.num_heads, anatomy.num_blocks)]

    @torch.no_grad()
    def value(gate: float) -> float:
        heads = ones[0].clone()
        heads[0, 1, 2] = gate
        with gated(anatomy, Gates.of(anatomy, heads, ones[1])):
            return float(label_margin(anatomy.logits(lab_inputs), dense > 0))

    difference = (value(1 + 1e-5) - value(1 - 1e-5)) / 2e-5
    assert float(scores.heads[0, 1, 2]) == pytest.approx(difference, rel=1e-4, abs=1e-6)
    left_out = LeaveOneOut()(anatomy, lab_inputs)
    assert float(left_out.heads[0, 1, 2]) == pytest.approx(value(1.0) - value(0.0), abs=1e-5)
    labels = torch.tensor([[1, 0, 1, 0]])
    for given in (None, labels):
        assert Fisher()(anatomy, lab_inputs, given).heads.shape == Mask.full(anatomy).heads.shape


def test_numbers_of_16_bits(toy_folder: str) -> None:
    lab = Lab.from_pretrained(toy_folder, block_size=16, dtype="bfloat16")
    whole = Lab.from_pretrained(toy_folder, block_size=16)
    run = lab.prune(TEXT, keep=0.6)
    assert lab.model.dtype == torch.bfloat16
    expected = whole.predict(TEXT).logits
    assert run.dense.logits == pytest.approx(expected, abs=0.1 * max(map(abs, expected)))


def test_devices_that_are_not_there(toy_folder: str) -> None:
    with pytest.raises(LabError, match="device='cuda:9'"):
        Lab.from_pretrained(toy_folder, device="cuda:9")
    with pytest.raises(LabError, match="dtype='float16'"):
        Lab.from_pretrained(toy_folder, dtype="float16")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu(toy_folder: str) -> None:
    here, there = (Lab.from_pretrained(toy_folder, block_size=16, device=d) for d in ("cpu", "cuda"))
    for scorer in ("first_order", "activation_norm", "wanda_sp", "random"):
        run = there.prune(TEXT, keep=0.6, scorer=scorer)
        assert run.dense.logits == pytest.approx(here.predict(TEXT).logits, abs=1e-4)
    assert there.prune(TEXT, keep=0.6).prediction.logits == pytest.approx(
        here.prune(TEXT, keep=0.6).prediction.logits, abs=1e-3
    )
