"""Galleries of masks, prices of inputs, views of comparisons, the curve of committed results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cells import made_cell
from toys import save_toy

from dsgp_lab import Lab, LabError, Mask
from dsgp_lab.evaluate.price import BUDGETS, margins_by_budget, prices, without_layer, word_prices
from dsgp_lab.evaluate.results_curve import results_curve
from dsgp_lab.evaluate.results_rows import table_of
from dsgp_lab.gallery import Gallery, similar_first
from dsgp_lab.views.gallery import gallery_map

TEXTS = ["a warm film", "the dull film is not good", "very funny", "a bad bad film", "is the film good"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab.from_pretrained(save_toy(tmp_path_factory.mktemp("toy"), num_labels=3), block_size=8)


def test_a_gallery_holds_each_texts_own_mask(lab: Lab) -> None:
    gallery = lab.gallery(TEXTS, keep=0.5, tags=["x", "y", "x", "y", "x"])
    for number, text in enumerate(TEXTS):
        run = lab.prune(text, keep=0.5)
        assert torch.equal(gallery.mask[number].heads, run.mask.heads)
        assert gallery.labels[number] == run.dense.label
        assert gallery.lengths[number] == len(run.tokens)
    assert gallery.units.shape == (5, 3 * (4 + 6))
    assert gallery.always + gallery.never + gallery.specific == 30
    assert "Different masks" in str(gallery)


def test_counts_of_a_made_up_gallery() -> None:
    heads = torch.zeros(20, 1, 3, dtype=torch.bool)
    heads[:, 0, 0] = True  # always
    heads[:10, 0, 2] = True  # half of the inputs
    blocks = torch.ones(20, 1, 1, dtype=torch.bool)
    blocks[0] = False  # 19 of 20: nearly always
    gallery = Gallery(("t",) * 20, Mask(heads, blocks), (3,) * 20, ("a",) * 20, 0.5, "made up")
    assert (gallery.always, gallery.never, gallery.specific) == (2, 1, 1)
    rows, columns = gallery.order()
    assert sorted(rows.tolist()) == list(range(20))
    assert columns.tolist() == [0, 3, 2, 1]


def test_similar_masks_stand_together() -> None:
    units = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 0, 1], [0, 1, 1, 1], [1, 1, 0, 0]], dtype=bool)
    order = similar_first(units).tolist()
    assert abs(order.index(0) - order.index(4)) == 1
    assert abs(order.index(1) - order.index(3)) == 1


def test_a_gallery_says_what_it_cannot_do(lab: Lab) -> None:
    gallery = lab.gallery(TEXTS)
    with pytest.raises(LabError, match="tag"):
        gallery.view("tag")
    with pytest.raises(LabError, match="1 texts"):
        lab.gallery(TEXTS[:1])
    with pytest.raises(LabError, match="2 tags"):
        lab.gallery(TEXTS, tags=["a", "b"])


@pytest.mark.parametrize("colour", ["label", "length"])
def test_the_figure_shows_the_masks_in_order(lab: Lab, colour: str) -> None:
    gallery = lab.gallery(TEXTS)
    view = gallery.view(colour)
    rows, columns = gallery.order()
    drawn = np.array(view.figure.data[0].z)
    assert np.array_equal(drawn.astype(bool), gallery.units[rows][:, columns])
    assert "Strip, dark to bright" in view.digest
    assert view.png().startswith(b"\x89PNG")
    assert b"<svg" in view.svg()


def test_a_gallerys_texts_are_escaped() -> None:
    view = gallery_map(np.eye(2, dtype=bool), ["<b>x</b>", "y"], ["u", "v"], ["<i>", "b"])
    assert "<b>" not in view.figure.to_json()
    with pytest.raises(LabError):
        gallery_map(np.eye(2, dtype=bool), ["x"], ["u", "v"], ["a", "b"])
    with pytest.raises(LabError):
        gallery_map(np.eye(2, dtype=bool), ["x", "y"], ["u", "v"], ["a"])


def test_margins_by_budget_are_those_of_the_pruned_runs(lab: Lab) -> None:
    margins = margins_by_budget(lab, TEXTS, (0.5, 1.0))
    for number, text in enumerate(TEXTS):
        run = lab.prune(text, keep=0.5)
        assert margins[number, 1] == pytest.approx(run.dense.margin, abs=1e-4)
        if run.agrees:
            assert margins[number, 0] == pytest.approx(run.prediction.margin, abs=1e-4)
        else:
            assert margins[number, 0] < 0


def test_prices_need_the_dense_model_last() -> None:
    with pytest.raises(LabError, match="last one 1"):
        prices(torch.ones(1, 2), [0.2, 0.5])
    assert prices(torch.ones(1, len(BUDGETS))).item() == pytest.approx(0.05)


def test_word_prices_leave_out_one_word_each(lab: Lab) -> None:
    found = word_prices(lab, "the dull film")
    assert found.words == ("the", "dull", "film")
    alone = prices(margins_by_budget(lab, ["the film"])).item()
    assert found.without[1] == pytest.approx(alone)
    assert len(found.margins) == 3
    with pytest.raises(LabError, match="at least two"):
        word_prices(lab, "film")


def test_a_mask_without_one_layers_part(lab: Lab) -> None:
    mask = without_layer(lab, 1, "heads")
    assert mask.heads[0].sum(1).tolist() == [4, 0, 4]
    assert bool(mask.blocks.all())
    for wrong in ((1, "tails"), (3, "heads")):
        with pytest.raises(LabError):
            without_layer(lab, *wrong)


def test_masks_of_a_comparison(lab: Lab) -> None:
    found = lab.compare(TEXTS[0], TEXTS[1], keep=0.5)
    own, swapped, only = (found.masks(which) for which in ("own", "swapped", "only"))
    assert own == (swapped[1], swapped[0])
    assert not bool((only[0].heads & found.b.mask.heads).any())
    assert bool((only[0].blocks <= found.a.mask.blocks).all())
    with pytest.raises(LabError, match="mine"):
        found.masks("mine")
    view = found.view()
    crosses = [len(trace.x) for trace in view.figure.data if trace.type == "scatter"]
    assert crosses == [
        int((~mask).sum()) for mask in (own[0].heads, own[1].heads, own[0].blocks, own[1].blocks)
    ]


def test_the_curve_of_made_up_results() -> None:
    cells = [made_cell("sst2")] + [
        made_cell("sst2", method, keep, flip=0.3 * (1 - keep))
        for method in ("random", "static_fisher")
        for keep in (0.4, 0.6)
    ]
    rows = table_of(cells, 50)[0]
    view = results_curve(rows, "sst2", "frozen", keep=0.5)
    assert "random" in view.digest
    assert any(shape.x0 == shape.x1 == 0.5 for shape in view.figure.layout.shapes)
    with pytest.raises(LabError, match="sst2 frozen"):
        results_curve(rows, "cola", "frozen")


def test_without_results_the_curve_says_how_to_make_them(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="dsgp-lab sweep"):
        lab.curve(folder=tmp_path)
