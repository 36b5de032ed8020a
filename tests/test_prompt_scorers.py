"""Scorers made for prompts, and what stands in for cut units, on toy models."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toys import random_mask, save_toy_language_model, toy_anatomy, toy_inputs, toy_model

from dsgp_lab import Anatomy, CostModel, LabError, LanguageLab, Mask, captured, gated
from dsgp_lab.anatomy import matrix
from dsgp_lab.decoder import DecoderSubNetwork
from dsgp_lab.gates import input_hooks
from dsgp_lab.language_policy import Policy
from dsgp_lab.language_scorers import layer_means, prompt_scorer
from dsgp_lab.sensitivity import Probe, PromptRouter, ReadShares, lengths, make_scorer
from dsgp_lab.sensitivity.prompt_router import mean_embedding
from dsgp_lab.training.prompt_router import (
    fit_router,
    save_router,
    text_shares,
    train_prompt_router,
    write_texts,
)

TEXT = "a warm funny film is not very dull"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> LanguageLab:
    folder = save_toy_language_model(tmp_path_factory.mktemp("toy_lm"))
    return LanguageLab.from_pretrained(folder)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_repaired_units_are_their_means(family: str) -> None:
    """Cutting with means equals a gated run in which every cut channel has its mean instead of 0."""
    model = toy_model(family)
    anatomy, inputs = toy_anatomy(model), toy_inputs(model, [9, 3])
    means = layer_means(anatomy, [toy_inputs(model, [12, 5], seed=4)])
    sub = DecoderSubNetwork(anatomy)
    masks = [random_mask(anatomy, seed=seed, keep=0.5) for seed in (1, 2)]
    nothing = Mask(torch.zeros_like(masks[0].heads), torch.zeros_like(masks[0].blocks))

    def fill(tensor: Tensor, mean: Tensor, kept: Tensor) -> Tensor:
        return torch.where(kept, tensor, mean)

    for mask in (*masks, nothing, Mask.full(anatomy)):
        neurons = anatomy.to_neurons(mask.blocks.float()).bool()[0]
        with torch.no_grad(), input_hooks() as on_input:
            for index, layer in enumerate(anatomy.layers):
                own = means[index].neurons[anatomy.order[index].argsort()]
                contexts = mask.heads[0, index].repeat_interleave(anatomy.context_dim)
                on_input(layer.attention_out, partial(fill, mean=means[index].contexts, kept=contexts))
                on_input(layer.ffn_out, partial(fill, mean=own, kept=neurons[index]))
            expected = anatomy.logits(inputs)
        got = sub.run(inputs, sub.select(mask, means=means))
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)
        again = sub.run(inputs, sub.select(mask, reuse=True, means=means))
        assert torch.equal(again, got)
    with torch.no_grad(), gated(anatomy, masks[0]):
        unrepaired = anatomy.logits(inputs)
    repaired = sub.run(inputs, sub.select(masks[0], means=means))
    assert float((repaired - unrepaired).abs().max()) > 1e-2


def test_means_are_those_of_the_calibration_tokens() -> None:
    model = toy_model("llama")
    anatomy, inputs = toy_anatomy(model), toy_inputs(model, [7])
    with torch.no_grad(), captured(anatomy) as seen:
        anatomy.logits(inputs)
    for index, mean in enumerate(layer_means(anatomy, [inputs])):
        torch.testing.assert_close(mean.contexts, seen.contexts[index][0].flatten(1).mean(0))
        own = seen.activations[index][0].mean(0)
        torch.testing.assert_close(mean.neurons, own[anatomy.order[index]])


def test_a_part_kept_whole_is_not_copied() -> None:
    anatomy = toy_anatomy(toy_model("llama"))
    sub, mask = DecoderSubNetwork(anatomy), Mask.full(anatomy)
    mask.blocks[:, 1, ::2] = False
    cut = sub.select(mask)
    assert cut[0] is sub.whole[0]
    assert cut[1].qkv.data_ptr() == sub.whole[1].qkv.data_ptr()
    assert len(cut[1].ffn_out) == len(sub.whole[1].ffn_out) // 2


def test_the_lab_repairs(lab: LanguageLab) -> None:
    plain, repaired = (lab.prune(TEXT, 0.7, policy=Policy(repair=on), max_new_tokens=3) for on in (0, 1))
    assert torch.equal(plain.mask.blocks, repaired.mask.blocks)
    ids, start = lab.tokenizer(TEXT)["input_ids"], 4
    losses = [lab.losses(ids, start, plain.mask, means)[0] for means in (None, lab.means())]
    assert float((losses[0] - losses[1]).abs().max()) > 1e-3
    full = lab.losses(ids, start, Mask.full(lab.anatomy), lab.means())[0]
    torch.testing.assert_close(full, lab.losses(ids, start)[0])


def test_the_probe_is_the_formula() -> None:
    """Against a loop over layers and neurons, for inputs of several lengths, padded."""
    model = toy_model("llama")
    anatomy, inputs = toy_anatomy(model), toy_inputs(model, [20, 3, 12])
    probe = Probe.fit(anatomy, [toy_inputs(model, [8], seed=1), toy_inputs(model, [5], seed=2)], share=0.5)
    scores = probe(anatomy, inputs)
    assert not scores.oracle
    counts = [10, 3, 6]  # never fewer than 4 tokens, or all there are
    assert lengths(probe.tokens(inputs)).tolist() == counts
    assert scores.macs.tolist() == [CostModel.of(anatomy).dense(n) for n in counts]
    for row, count in enumerate(counts):
        alone = {name: values[row : row + 1, :count] for name, values in inputs.items()}
        with torch.no_grad(), captured(anatomy) as seen:
            anatomy.logits(alone)
        for index, layer in enumerate(anatomy.layers):
            p, h = seen.activations[index][0].square().mean(0), probe.history[1][index]
            expected = (p**2 + h**2) / (p + h) * matrix(layer.ffn_out).detach().pow(4).sum(0).sqrt()
            assert scores.neurons is not None
            torch.testing.assert_close(scores.neurons[row, index], expected, rtol=1e-4, atol=1e-6)
            p = seen.contexts[index][0].flatten(1).square().mean(0)
            h = probe.history[0][index]
            expected = (p**2 + h**2) / (p + h) * matrix(layer.attention_out).detach().pow(4).sum(0).sqrt()
            sums = expected.view(anatomy.num_heads, -1).sum(-1)
            torch.testing.assert_close(scores.heads[row, index], sums, rtol=1e-4, atol=1e-6)


def test_shares_read_on_the_way_are_griffins(lab: LanguageLab) -> None:
    inputs, watch = lab.encode(TEXT), ReadShares()
    lab.subnetwork.prefill(inputs, lab.subnetwork.whole, watch=watch)
    got, expected = watch.scores(lab.anatomy), make_scorer("griffin")(lab.anatomy, inputs)
    torch.testing.assert_close(got.blocks, expected.blocks, atol=1e-5, rtol=1e-4)
    assert int(got.macs[0]) == 0
    ids = inputs["input_ids"][0].tolist()
    assert expected.neurons is not None
    torch.testing.assert_close(
        text_shares(lab, ids), expected.neurons[0].flatten() / len(ids), atol=1e-6, rtol=1e-4
    )


def test_a_router_finds_a_linear_map() -> None:
    """Roots that are a rank-2 map of the features are recovered; noise is not taken for a map."""
    chance = torch.Generator().manual_seed(0)
    features = torch.randn(60, 12, generator=chance)
    plane = torch.randn(12, 2, generator=chance) @ torch.randn(2, 30, generator=chance)
    fit = fit_router(features, 5 + features @ plane, rank=2)
    assert fit.explained[fit.penalty] > 0.9
    assert fit.penalty == min(fit.explained)
    noise = fit_router(features, torch.randn(60, 30, generator=chance), rank=2)
    assert noise.explained[noise.penalty] < 0.1
    assert noise.penalty > fit.penalty


def test_a_prompt_router_end_to_end(lab: LanguageLab, tmp_path: Path) -> None:
    said: list[str] = []
    fit, card = train_prompt_router(lab, 12, new_tokens=6, rank=3, say=said.append)
    assert "wrote 12 of 12 texts" in said
    assert (card["texts"], card["rank"]) == (12, 3)
    save_router(fit, card, tmp_path)
    router = PromptRouter.load(tmp_path / "router.safetensors")
    scores = lab.sensitivity(TEXT, router)
    torch.testing.assert_close(scores.blocks, lab.sensitivity(TEXT, fit.router).blocks, rtol=0.02, atol=1e-4)
    inputs = lab.encode(TEXT)
    feature = mean_embedding(lab.anatomy, inputs)
    base = lab.model.base_model
    torch.testing.assert_close(feature[0], base.embed_tokens(inputs["input_ids"])[0].mean(0))
    roots = router.mean + (feature - router.centre) @ router.down @ router.up
    assert scores.neurons is not None
    torch.testing.assert_close(scores.neurons.flatten(), roots.clamp(min=0).square().flatten())
    assert int(scores.macs[0]) < 0.2 * lab.cost.dense(len(lab.tokens(TEXT)))
    assert lab.prune(TEXT, 0.7, router, max_new_tokens=2).sensitivity.scorer == "router"
    other = Anatomy.of(toy_model("llama", width=64))
    with pytest.raises(LabError, match=r"a router for hidden size 32.*one for hidden size 64"):
        router(other, toy_inputs(other.model, [4]))


def test_written_texts_begin_with_their_openers(lab: LanguageLab) -> None:
    from dsgp_lab.language_data import load_openers

    written = write_texts(lab, 5, 4, seed=0)
    for ids, opener in zip(written, load_openers(), strict=False):
        given = list(lab.tokenizer(opener.text)["input_ids"])
        assert ids[: len(given)] == given
        assert len(given) <= len(ids) <= len(given) + 4
    assert written == write_texts(lab, 5, 4, seed=0) != write_texts(lab, 5, 4, seed=1)


def test_mistakes(lab: LanguageLab, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"texts=3, rank=16"):
        train_prompt_router(lab, 3)
    with pytest.raises(LabError, match=r"scorer='router' for .*prompt-router"):
        prompt_scorer(lab, "router")
    (tmp_path / "router.safetensors").write_bytes(b"no")
    with pytest.raises(LabError, match="cannot be read"):
        PromptRouter.load(tmp_path / "router.safetensors")


def test_equal_budgets_whatever_the_scorer_costs(lab: LanguageLab) -> None:
    """The scorer's cost is paid once a prompt, and masks of all scorers are equally large."""
    sizes = {
        int(lab.mask(TEXT, 0.7, scorer).blocks.sum())
        for scorer in ("griffin", Probe.fit(lab.anatomy, lab.calibration(["a film"]), share=1.0), "random")
    }
    assert len(sizes) == 1
