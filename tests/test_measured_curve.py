"""The smaller dense model beside a static mask: on the embedded model, few rounds."""

from __future__ import annotations

import pytest
import torch
from toys import save_toy

from dsgp_lab import Lab, LabError
from dsgp_lab.evaluate.measured_curve import lower_layers, measured_curve


@pytest.mark.slow
def test_both_methods_at_the_budgets_of_whole_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab("sst2")
    found = measured_curve(lab, rounds=5)
    for curves in (found.points, found.times):
        assert [curve.name for curve in curves] == ["smaller dense", "static mask"]
        assert all(len(curve.x) == lab.anatomy.num_layers - 1 for curve in curves)
    smaller, static = found.points
    assert smaller.x == pytest.approx([kept / 6 for kept in range(1, 6)], abs=1e-6)
    assert (static.x <= smaller.x + 1e-6).all()  # no static mask runs more than its budget
    assert smaller.y[0] < -5  # one layer of six is no classifier
    assert (smaller.low <= smaller.y).all()
    view = found.view(mark=0.5)
    assert "time over dense" in view.digest
    assert len(view.figure.layout.shapes) == 4  # a reference and the mark in each panel


def test_a_layer_without_units_passes_on_what_came(tmp_path: object) -> None:
    lab = Lab.from_pretrained(save_toy(tmp_path, num_labels=2), block_size=8)
    mask = lower_layers(lab, 1)
    assert mask.heads[0].any(1).tolist() == [True, False, False]
    assert torch.equal(mask.heads[0].any(1), mask.blocks[0].any(1))


def test_a_model_of_ones_own_has_no_teaching_set(tmp_path: object) -> None:
    lab = Lab.from_pretrained(save_toy(tmp_path, num_labels=2), block_size=8)
    with pytest.raises(LabError, match="no embedded task"):
        lab.curve(measure=True)
