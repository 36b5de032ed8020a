"""Which words switch which units: the router's own decisions, compared variant by variant."""

from __future__ import annotations

import pytest
import torch

from dsgp_lab import Lab, LabError, Mask
from dsgp_lab.evaluate.switches import Switches, WordEffects, text_switches, word_effects, word_switches
from dsgp_lab.router import Router, RouterShape
from dsgp_lab.router_planner import Planner

TEXT = "The film is not very funny"
PAIR = ("a warm film", "the film is not good")


def lively(lab: Lab, kind: str = "layerwise") -> Router:
    """A router whose decisions depend on the input."""
    torch.manual_seed(0)
    router = Router(RouterShape.of(lab.anatomy, kind, width=8))  # type: ignore[arg-type]
    with torch.no_grad():
        router.w2.normal_(std=2.0)
        router.bias.normal_(-4.0, 2.0)
    return router.eval()


def decided(lab: Lab, router: Router, text: object, keep: float = 0.5) -> tuple[Mask, torch.Tensor]:
    planner = Planner(router, keep)
    lab.subnetwork.run(lab.encode([text]), planner)  # type: ignore[list-item]
    return planner.mask, planner.logits.clone()


@pytest.fixture(scope="module")
def router(toy_lab: Lab) -> Router:
    return lively(toy_lab)


def test_a_hidden_word_is_the_unknown_or_mask_token(toy_lab: Lab, router: Router) -> None:
    """The toy tokenizer has no mask token; a word it does not know is its unknown token."""
    found = word_switches(toy_lab, TEXT, 0.5, router)
    assert found.names == ("The", "film", "is", "not", "very", "funny")
    mask, logits = decided(toy_lab, router, TEXT)
    assert torch.equal(found.mask.heads, mask.heads)
    assert torch.equal(found.mask.blocks, mask.blocks)
    without, other = decided(toy_lab, router, "The film is zebra very funny")
    assert torch.equal(found.masks[3].heads, without.heads)
    torch.testing.assert_close(found.change[3], other - logits)


def test_a_removed_word_is_not_there(toy_lab: Lab, router: Router) -> None:
    found = word_switches(toy_lab, TEXT, 0.5, router, how="remove")
    without, _ = decided(toy_lab, router, "The film is very funny")
    assert torch.equal(found.masks[3].blocks, without.blocks)


def test_what_is_switched_adds_up(toy_lab: Lab, router: Router) -> None:
    found = word_switches(toy_lab, TEXT, 0.5, router)
    assert found.counts.tolist() == [
        int((mask.heads ^ found.mask.heads).sum() + (mask.blocks ^ found.mask.blocks).sum())
        for mask in (found.masks[i] for i in range(6))
    ]
    assert found.counts.sum() > 0
    assert not (found.off & found.on).heads.any()
    units = toy_lab.anatomy.num_heads + toy_lab.anatomy.num_blocks
    assert found.change.shape == (6, toy_lab.anatomy.num_layers, units)
    kept = [int(mask.heads.sum() + mask.blocks.sum()) for mask in (found.mask, found.masks[0])]
    assert kept[0] - int(found.off[0].heads.sum() + found.off[0].blocks.sum()) + int(
        found.on[0].heads.sum() + found.on[0].blocks.sum()
    ) == kept[1]  # fmt: skip


def test_words_of_several_tokens_and_of_both_texts(toy_lab: Lab, router: Router) -> None:
    found = word_switches(toy_lab, ("good films", "badly"), 0.5, router)
    assert found.names == ("good", "films", "badly")
    assert len(toy_lab.tokens(("good films", "badly"))) == 8  # films and badly are two tokens each
    assert word_switches(toy_lab, PAIR, 0.5, router).names == (*PAIR[0].split(), *PAIR[1].split())


def test_a_static_router_switches_nothing(toy_lab: Lab) -> None:
    found = word_switches(toy_lab, TEXT, 0.5, lively(toy_lab, "constant"))
    assert found.counts.tolist() == [0] * 6
    assert float(found.change.abs().max()) == 0
    assert set(found.shares) == {found.share}


def test_other_texts(toy_lab: Lab, router: Router) -> None:
    found = text_switches(toy_lab, TEXT, {"same": TEXT, "bad": "The film is bad"}, 0.5, router)
    assert found.names == ("same", "bad")
    assert int(found.counts[0]) == 0
    mask, _ = decided(toy_lab, router, "The film is bad")
    assert torch.equal(found.masks[1].heads, mask.heads)


def test_the_report_has_a_row_a_variant(toy_lab: Lab, router: Router) -> None:
    found = word_switches(toy_lab, TEXT, 0.5, router)
    rows = found.report().rows
    assert [row[0] for row in rows] == ["(the text)", *found.names]
    assert [int(row[1]) + int(row[2]) for row in rows[1:]] == found.counts.tolist()
    assert "Budget 0.5" in str(found)
    assert "<table>" in found._repr_html_()


def test_the_trained_model_reads_whole_words(sst2: Lab) -> None:
    """WordPiece, with the case that the user wrote and a real mask token."""
    found: Switches = word_switches(sst2, "Unputdownable, WARM!", 0.5, lively(sst2))
    assert found.names == ("Unputdownable", ",", "WARM", "!")
    mask, _ = decided(sst2, lively(sst2), "Unputdownable, [MASK]!")
    assert torch.equal(found.masks[2].heads, mask.heads)


def test_mistakes(toy_lab: Lab, router: Router) -> None:
    with pytest.raises(LabError, match=r"scorer='first_order'.*lab\.compare"):
        word_switches(toy_lab, TEXT, 0.5, "first_order")
    with pytest.raises(LabError, match=r"how='drop'.*hide or remove"):
        word_switches(toy_lab, TEXT, 0.5, router, how="drop")  # type: ignore[arg-type]
    with pytest.raises(LabError, match="keep=2"):
        word_switches(toy_lab, TEXT, 2, router)
    with pytest.raises(LabError, match="no other text"):
        text_switches(toy_lab, TEXT, {}, 0.5, router)
    with pytest.raises(LabError, match="a router for"):
        word_switches(toy_lab, TEXT, 0.5, Router(RouterShape("layerwise", 2, 2, 2, 8)))


def test_words_are_gathered_over_texts(toy_lab: Lab, router: Router) -> None:
    found = [word_switches(toy_lab, text, 0.5, router) for text in (TEXT, "the film is good")]
    effects = word_effects(found)
    assert effects.switched["the"] == (int(found[0].counts[0]), int(found[1].counts[0]))
    total = sum(int(each.counts.sum()) for each in found)
    assert effects.mean() == pytest.approx(total / 10)
    assert effects.mean({"not", "good"}) == pytest.approx(
        (int(found[0].counts[3]) + int(found[1].counts[3])) / 2
    )


def test_the_strongest_words_come_first() -> None:
    effects = WordEffects({"a": (0, 2, 1), "not": (5, 7, 9), "once": (40,)})
    assert [row[0] for row in effects.report().rows] == ["not", "a", "(all words)"]  # once is too rare
    assert effects.report().rows[0] == ("not", "3", "7.0")
    assert [row[0] for row in effects.report(least=1, most=1).rows] == ["once", "(all words)"]
    assert effects.mean({"never"}) != effects.mean({"never"})  # NaN: it does not occur
