"""Lab: from a text to results, for good texts and odd ones, on a toy and on the embedded model."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import VOCABULARY, hook_count, save_toy

from dsgp_lab import CostModel, Lab, LabError, Mask, PrunedRun, plan_mask
from dsgp_lab.checkpoints import load_checkpoint
from dsgp_lab.models import load_task_model
from dsgp_lab.results import Comparison, Prediction
from dsgp_lab.sensitivity import SCORERS, Constant, FirstOrder
from dsgp_lab.tasks import Examples, data_folder, get_task, load_teaching

SCRIPT = "<script>alert(1)</script> & <b>bold</b>"

KNOWN = {
    "a warm, funny film": "positive",
    "one of the best films of the year": "positive",
    "I could not stop laughing": "positive",
    "a dull and lifeless film": "negative",
    "a complete waste of time": "negative",
    "not good at all": "negative",
}


def test_from_pretrained(toy_lab: Lab) -> None:
    assert toy_lab.labels == ("class 0", "class 1")
    assert toy_lab.task is None
    assert toy_lab.max_tokens == 40
    assert re.fullmatch(
        r"Lab\('.*'\): BERT, 3 layers x \(4 heads \+ 3 blocks of 16 neurons\), labels: class 0, class 1",
        repr(toy_lab),
    )


def test_tokens_are_what_the_model_sees(toy_lab: Lab) -> None:
    assert toy_lab.tokens("A Warm films") == ("[CLS]", "a", "warm", "film", "##s", "[SEP]")
    assert toy_lab.tokens(("warm", "dull film")) == ("[CLS]", "warm", "[SEP]", "dull", "film", "[SEP]")


def test_encode_pads_and_marks_the_second_text(toy_lab: Lab) -> None:
    inputs = toy_lab.encode(["warm film", "film"])
    warm, film = VOCABULARY.index("warm"), VOCABULARY.index("film")
    assert inputs["input_ids"].tolist() == [[2, warm, film, 3], [2, film, 3, 0]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    pair = toy_lab.encode([("warm", "film")])
    assert pair["token_type_ids"].tolist() == [[0, 0, 0, 1, 1]]


@torch.no_grad()
def own_logits(lab: Lab, text: Any) -> torch.Tensor:
    """Through the Hugging Face objects alone."""
    columns = (text,) if isinstance(text, str) else text
    return lab.model(**lab.tokenizer(*columns, return_tensors="pt")).logits[0]


@pytest.mark.parametrize("text", ["a warm film", ("a warm film", "the dull film is not very good")])
def test_prune_single_and_pair(toy_lab: Lab, text: Any) -> None:
    run = toy_lab.prune(text, keep=0.5)
    assert (run.text, run.keep, run.tokens) == (text, 0.5, toy_lab.tokens(text))
    dense = own_logits(toy_lab, text)
    assert run.dense.logits == pytest.approx(dense.tolist(), abs=1e-5)
    assert run.dense.label == f"class {int(dense.argmax())}"
    assert run.dense.probabilities == pytest.approx(dense.softmax(0).tolist(), abs=1e-5)
    assert run.dense.margin == pytest.approx(float((dense[0] - dense[1]).abs()), abs=1e-5)
    assert toy_lab.predict(text) == run.dense
    inputs = toy_lab.encode([text])
    scores = FirstOrder()(toy_lab.anatomy, inputs)
    mask = plan_mask(scores, CostModel.of(toy_lab.anatomy), torch.tensor([len(run.tokens)]), 0.5)
    assert torch.equal(run.mask.heads, mask.heads)
    assert torch.equal(run.mask.blocks, mask.blocks)
    assert run.prediction.logits == pytest.approx(
        toy_lab.subnetwork(inputs, mask).logits[0].tolist(), abs=1e-5
    )
    assert run.macs.kept <= 0.5 * run.macs.dense == 0.5 * toy_lab.cost.dense(len(run.tokens))
    assert run.agrees == (run.prediction.index == run.dense.index)
    assert run.notices == ()


def test_keeping_everything_is_dense(toy_lab: Lab) -> None:
    run = toy_lab.prune("a warm film", keep=1)
    assert run.prediction.logits == pytest.approx(run.dense.logits, abs=1e-5)
    assert run.agrees
    assert run.macs.share == 1


def test_another_task_has_the_same_units_and_numbers() -> None:
    lab = Lab("sst2", block_size=64, dtype="bfloat16").on("rte")
    assert (lab.name, lab.regime, lab.anatomy.block_size) == ("rte", "frozen", 64)
    assert (lab.model.dtype, lab.anatomy.device.type) == (torch.bfloat16, "cpu")


def test_the_encoder_of_all_tasks_has_no_other_regime() -> None:
    with pytest.raises(LabError, match=r"Lab\('glue', regime='joint'\).*Lab\(\"sst2\", regime='joint'\)"):
        Lab("glue", regime="joint")
    lab = Lab("glue", regime="shared_frozen")
    assert (lab.name, lab.regime) == ("sst2", "shared_frozen")
    run = lab.prune("a warm, funny film", 0.8, "router")
    assert run.macs.share == pytest.approx(0.8, abs=0.15)
    own = Lab(load_checkpoint(data_folder() / "checkpoints" / "glue", "sst2"))
    assert torch.equal(own.scorer("router").w1, lab.scorer("router").w1)  # type: ignore[union-attr]


def test_regression(tmp_path: Path) -> None:
    lab = Lab.from_pretrained(save_toy(tmp_path, num_labels=1), block_size=16)
    assert lab.labels == ()
    run = lab.prune(("a warm film", "a funny film"), keep=0.6)
    value = float(own_logits(lab, ("a warm film", "a funny film"))[0])
    assert run.dense == Prediction(f"{run.dense.logits[0]:.2f}", 0, (), run.dense.logits[0], run.dense.logits)
    assert run.dense.logits[0] == pytest.approx(value, abs=1e-5)
    assert repr(run.dense) == run.dense.label
    assert "labels: none" in repr(lab)
    assert run.prediction.label != run.dense.label
    assert not run.agrees
    assert lab.prune(("a warm film", "a funny film"), keep=1.0).agrees
    assert lab.compare("a warm film", "a dull film").swapped_a.probabilities == ()


@pytest.mark.parametrize("family", ["roberta", "electra", "distilbert"])
def test_every_family_from_a_folder(tmp_path: Path, family: str) -> None:
    lab = Lab.from_pretrained(save_toy(tmp_path, family=family), block_size=16)
    text = ("a warm film", "a dull film")
    run = lab.prune(text, keep=0.6)
    assert run.dense.logits == pytest.approx(own_logits(lab, text).tolist(), abs=1e-5)
    long = lab.prune("warm film " * 50)
    assert len(long.tokens) == lab.max_tokens == (38 if family == "roberta" else 40)


@pytest.mark.parametrize("name", [*sorted(SCORERS)])
def test_every_scorer_by_name(toy_lab: Lab, name: str) -> None:
    if name == "flap":  # calibrated first, for which a foreign model needs examples
        with pytest.raises(
            LabError, match=r"no calibration examples for .*lab\.calibrate\(scorer, examples\)"
        ):
            toy_lab.prune("a warm film", scorer=name)
        return
    run = toy_lab.prune("a warm film", scorer=name)
    assert run.sensitivity.scorer == name
    assert run.macs.charged == (name == "random")


def examples(*texts: str) -> Examples:
    return Examples(get_task("sst2"), "train", "test", tuple((t,) for t in texts), (0,) * len(texts))


def test_calibrate(toy_lab: Lab) -> None:
    texts = ["a warm film", "the film is not very good", "dull"] * 15  # more than one batch
    constant = toy_lab.calibrate("first_order", examples(*texts))
    each = toy_lab.sensitivity(texts)
    torch.testing.assert_close(constant.heads, each.heads.mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(constant.blocks, each.blocks.mean(0), atol=1e-5, rtol=1e-4)
    runs = [toy_lab.prune(text, keep=0.5, scorer=constant) for text in ("a warm film", "a dull film")]
    assert runs[0].mask.overlap(runs[1].mask).tolist() == [1.0]
    assert runs[0].macs.charged
    assert runs[0].macs.scorer == 0
    with pytest.raises(LabError, match="no calibration examples"):
        toy_lab.calibrate("first_order")


def test_sensitivity_of_several_texts(toy_lab: Lab) -> None:
    texts = ["a warm film", "dull", "the film is not very good"]
    together = toy_lab.sensitivity(texts)
    for row, text in enumerate(texts):
        torch.testing.assert_close(
            together[row].flat(), toy_lab.sensitivity(text).flat(), atol=1e-4, rtol=1e-4
        )
    pairs = toy_lab.sensitivity([("warm", "film"), ("dull", "film")])
    assert len(pairs) == 2
    assert len(toy_lab.sensitivity(("warm", "film"))) == 1


def test_compare(toy_lab: Lab) -> None:
    from scipy.stats import spearmanr

    a, b = "a warm funny film", "the film is not very good"
    comparison = toy_lab.compare(a, b, keep=0.5)
    first, second = toy_lab.prune(a, 0.5), toy_lab.prune(b, 0.5)
    assert torch.equal(comparison.a.mask.heads, first.mask.heads)
    assert comparison.overlap == pytest.approx(float(first.mask.overlap(second.mask)[0]))
    assert 0 < comparison.overlap < 1
    scores = [run.sensitivity.flat()[0].numpy() for run in (first, second)]
    assert comparison.rank_correlation == pytest.approx(spearmanr(*scores).statistic)
    for text, mask, swapped in (
        (a, second.mask, comparison.swapped_a),
        (b, first.mask, comparison.swapped_b),
    ):
        logits = toy_lab.subnetwork(toy_lab.encode([text]), mask).logits[0]
        assert swapped.logits == pytest.approx(logits.tolist(), abs=1e-5)
    assert "Overlap of the masks" in str(comparison)
    itself = toy_lab.compare(a, a)
    assert (itself.overlap, itself.rank_correlation) == pytest.approx((1.0, 1.0))


def test_heatmap(toy_lab: Lab) -> None:
    scores = toy_lab.heatmap("a warm film")
    assert scores.alt.startswith("a warm film.")
    assert "kept" not in scores.digest
    run = toy_lab.prune("a warm film", 0.5)
    pruned = toy_lab.heatmap("a warm film", keep=0.5)
    assert f"Heads kept: {int(run.mask.heads.sum())} of 12" in pruned.digest
    assert toy_lab.heatmap(("warm", "film"), scorer="leave_one_out").alt.startswith("warm / film.")
    assert toy_lab.heatmap("a warm film", title="Scores").alt.startswith("Scores.")
    with pytest.raises(LabError, match="Got 3 texts"):
        toy_lab.heatmap(["a", "warm", "film"])  # one map shows one text


def test_lab_leaves_the_model_as_it_was(toy_lab: Lab) -> None:
    before = {name: value.clone() for name, value in toy_lab.model.state_dict().items()}
    toy_lab.compare("a warm film", "a dull film")
    toy_lab.heatmap("a warm film", scorer="leave_one_out")
    with pytest.raises(LabError):
        toy_lab.prune("a warm film", keep=2)
    assert hook_count(toy_lab.model) == 0
    assert all(torch.equal(value, before[name]) for name, value in toy_lab.model.state_dict().items())


# Odd texts: a right result, with a notice where the model could not read all of it.


@pytest.mark.parametrize("lab_name", ["toy_lab", "sst2"])
def test_ten_thousand_words(request: pytest.FixtureRequest, lab_name: str) -> None:
    lab: Lab = request.getfixturevalue(lab_name)
    run = lab.prune("film " * 10_000, scorer="random")
    assert len(run.tokens) == lab.max_tokens
    assert (run.tokens[0], run.tokens[-1]) == ("[CLS]", "[SEP]")
    notice = f"The text has 10002 tokens; the model reads {lab.max_tokens}, the rest was cut off."
    assert run.notices == (notice,)
    assert notice in str(run)
    assert notice in run._repr_html_()


def test_a_long_pair_keeps_both_texts(toy_lab: Lab) -> None:
    run = toy_lab.prune(("dull " * 500, "warm film"))
    assert len(run.tokens) == 40
    assert run.tokens[-4:] == ("[SEP]", "warm", "film", "[SEP]")
    assert run.notices[0].startswith("The text has 505 tokens; the model reads 40")


ODD = {
    "Chinese": "这部电影温暖而有趣",
    "Arabic": "فيلم رائع ومضحك",
    "emoji": "😀 👍🏽 🎬",
    "mixed": "a warm 电影 😀",
    "script": SCRIPT,
    "newlines": "a warm\n\tfilm\r\n",
    "null": "a warm\x00 film",
    "combining": "film" + "\u0301" * 40,
    "one letter": "a",
    "punctuation": "?!...",
    "word": "film" * 300,
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize("lab_name", ["toy_lab", "sst2"])
def test_odd_texts(request: pytest.FixtureRequest, lab_name: str, text: str) -> None:
    lab: Lab = request.getfixturevalue(lab_name)
    run = lab.prune(text, keep=0.6)
    assert run.dense.logits == pytest.approx(own_logits(lab, text).tolist(), abs=2e-5)
    assert 0 < run.macs.share <= 0.6
    unknown = run.tokens.count("[UNK]")
    said = [notice for notice in run.notices if "unknown to the model" in notice]
    assert (
        said
        == [f"{unknown} of {len(run.tokens)} tokens are unknown to the model, which read only the rest."][
            : bool(unknown)
        ]
    )


def test_text_of_no_visible_character(sst2: Lab) -> None:
    run = sst2.prune("\u200b\u200b")
    assert run.tokens == ("[CLS]", "[SEP]")
    assert run.notices == ("The model reads none of these characters.",)


@pytest.mark.parametrize("method", ["prune", "predict", "tokens", "sensitivity", "heatmap"])
@pytest.mark.parametrize("text", ["", "  \n\t", ("a warm film", ""), None, 3, 2.5, b"film", ("a", 3), []])
def test_what_is_no_text(toy_lab: Lab, method: str, text: Any) -> None:
    with pytest.raises(LabError) as caught:
        getattr(toy_lab, method)(text)
    empty = isinstance(text, str | tuple) and "3" not in str(text)
    assert caught.value.got.startswith("an empty text") == empty


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "Got no text"),
        ("a warm film", r"Got str 'a warm film'. Allowed: a list of texts. Next: pass \[text\]"),
        (None, "Got NoneType None. Allowed: a list of texts"),
        (["a warm film", ("a", "b")], "Got single texts and pairs in one batch. Allowed: one kind"),
        ([["a", ["b"]]], r"Got list \['a', \['b'\]\]"),
        ([("a", "b", "c")], "Got 3 texts for"),
        ([()], "Got 0 texts for"),
        (["a", ""], "Got an empty text"),
        (["a", None], "Got NoneType None"),
    ],
)
def test_what_is_no_batch(toy_lab: Lab, texts: Any, message: str) -> None:
    with pytest.raises(LabError, match=message):
        toy_lab.encode(texts)


def test_a_pair_where_a_single_text_is_due(sst2: Lab) -> None:
    for call in (sst2.prune, sst2.sensitivity, sst2.heatmap):
        with pytest.raises(LabError, match=r"a pair for 'sst2'\. Allowed: one text \(sentence\)"):
            call(("a warm film", "a dull film"))
    with pytest.raises(LabError, match="a pair for 'sst2'"):
        sst2.compare("a warm film", ("a", "b"))


def test_a_single_text_where_a_pair_is_due(toy_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy_lab, "task", get_task("mrpc"))
    message = (
        r"1 text for .*Allowed: a pair \(first, second\) \(sentence1, sentence2\).*\(\"first text\", \"second"
    )
    with pytest.raises(LabError, match=message):
        toy_lab.prune("a warm film")
    toy_lab.prune(("a warm film", "a dull film"))
    toy_lab.prune(["a warm film", "a dull film"])


@pytest.mark.parametrize("keep", [0, 1, 1.5, float("nan"), "0.6"])
def test_budgets(toy_lab: Lab, keep: Any) -> None:
    if keep == 1:
        assert toy_lab.prune("a warm film", keep=keep).macs.share == 1
        return
    for call in (toy_lab.prune, lambda text, keep: toy_lab.compare(text, text, keep)):
        with pytest.raises(
            LabError, match=f"^Got keep={re.escape(repr(keep))}.*a number above 0 and at most 1"
        ):
            call("a warm film", keep)


@pytest.mark.parametrize("task", ["imdb", "", "SST2", None, 5, ["sst2"]])
def test_what_is_no_task(task: Any) -> None:
    with pytest.raises(LabError, match=r"Got task .*Allowed: cola, sst2, mrpc"):
        Lab(task)


# HTML: nothing of the text is markup.


def html_of(lab: Lab) -> dict[str, Callable[[], str]]:
    run = lab.prune(SCRIPT)
    label = PrunedRun(
        text=(SCRIPT, SCRIPT),
        tokens=run.tokens,
        keep=run.keep,
        prediction=Prediction(SCRIPT, 0, (1.0,), 0.0, (1.0,)),
        dense=run.dense,
        sensitivity=run.sensitivity,
        mask=run.mask,
        macs=run.macs,
        timings=run.timings,
        notices=(SCRIPT,),
    )
    swapped = Prediction(SCRIPT, 0, (1.0,), 0.0, (1.0,))
    return {
        "run": run._repr_html_,
        "label, notice, pair": label._repr_html_,
        "comparison": Comparison(run, label, 0.5, 0.5, swapped, swapped)._repr_html_,
        "own comparison": lab.compare(SCRIPT, "a film")._repr_html_,
        "macs": run.macs._repr_html_,
        "timings": run.timings._repr_html_,
        "heat map": lab.heatmap(SCRIPT).html,
        "pruned heat map": lab.heatmap(SCRIPT, keep=0.5).html,
    }


def test_markup_is_escaped_everywhere(toy_lab: Lab) -> None:
    for name, html in html_of(toy_lab).items():
        assert "<script>alert" not in html(), name
        assert "<b>bold" not in html(), name
        if name not in ("macs", "timings", "own comparison"):
            assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html(), name
    figure = json.dumps(toy_lab.heatmap(SCRIPT)._repr_mimebundle_()[0]["application/vnd.plotly.v1+json"])
    assert "<b>bold" not in figure
    assert "<script>alert" not in figure


def test_a_run_as_text(toy_lab: Lab) -> None:
    run = toy_lab.prune(("a warm film", "x" * 100), keep=0.5)
    text = str(run)
    assert text == repr(run)
    lines = {re.split(r" {2,}", line)[0]: line for line in text.splitlines()}
    assert lines["text"].endswith("...")
    assert f"{int(run.mask.heads.sum())} of 12" in lines["heads that ran"]
    assert f"{int(run.mask.blocks.sum())} of 9" in lines["neuron blocks that ran"]
    assert "budget 0.5" in lines["encoder MACs that ran"]
    assert "first_order" in lines["scorer"]
    assert "an oracle: its own cost is not charged" in lines["scorer"]
    assert "oracle" not in str(toy_lab.prune("a film", scorer="random"))


# Checkpoints: a missing, damaged or wrong one is named. More of this in test_models.py.


def test_missing_damaged_and_wrong_checkpoints(toy_folder: str, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="which does not exist"):
        Lab.from_pretrained(tmp_path / "nowhere")
    folder = tmp_path / "copy"
    shutil.copytree(toy_folder, folder)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LabError, match=r"cannot be (read|loaded)"):
        Lab.from_pretrained(folder)
    weights.write_bytes(whole)
    tensors = load_file(weights)
    tensors["bert.encoder.layer.1.output.dense.weight"][3, 3] = float("nan")
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(LabError, match=r"NaN or infinite weights in bert\.encoder\.layer\.1\.output"):
        Lab.from_pretrained(folder)
    weights.write_bytes(whole)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))
    with pytest.raises(LabError, match=r"without the weights|cannot be loaded"):
        Lab.from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 64}))
    with pytest.raises(LabError, match=r"without the weights|cannot be loaded"):
        Lab.from_pretrained(folder)


def test_a_family_that_is_not_supported(tmp_path: Path) -> None:
    from toys import toy_tokenizer
    from transformers import AlbertConfig, AlbertForSequenceClassification

    sizes = {"vocab_size": 30, "embedding_size": 8, "hidden_size": 8, "intermediate_size": 8}
    config = AlbertConfig(**sizes, num_hidden_layers=1, num_attention_heads=2)
    AlbertForSequenceClassification(config).save_pretrained(tmp_path)
    toy_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(LabError, match=r"a model of type 'albert'.*BERT \(bert\)"):
        Lab.from_pretrained(tmp_path)


def test_a_block_size_of_ones_own(toy_folder: str) -> None:
    assert Lab.from_pretrained(toy_folder).anatomy.num_blocks == 1
    assert Lab.from_pretrained(toy_folder, block_size=1).anatomy.num_blocks == 48
    with pytest.raises(LabError, match=r"block_size=7 for 48 neurons\. Allowed: a divisor of 48"):
        Lab.from_pretrained(toy_folder, block_size=7)


# The embedded model.


@pytest.mark.parametrize(("text", "label"), KNOWN.items())
def test_known_sentences(sst2: Lab, text: str, label: str) -> None:
    run = sst2.prune(text, keep=0.6)
    assert (run.dense.label, run.prediction.label) == (label, label)
    assert 0.55 < run.macs.share <= 0.6
    assert run.notices == ()
    torch.testing.assert_close(torch.tensor(run.dense.logits), own_logits(sst2, text), atol=1e-5, rtol=0)


def test_embedded_model(sst2: Lab) -> None:
    assert "BERT, 6 layers x (12 heads + 12 blocks of 128 neurons), labels: negative, positive" in repr(sst2)
    assert sst2.max_tokens == 512
    assert sst2.task == get_task("sst2")


def test_calibrated_scorers_of_the_embedded_model(sst2: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsgp_lab.classifier.CALIBRATION", 16)
    sample = load_teaching("sst2").sample(16)
    expected = sst2.sensitivity([text for (text,) in sample.texts])
    constant = sst2.scorer("constant")
    assert isinstance(constant, Constant)
    torch.testing.assert_close(constant.heads, expected.heads.mean(0), atol=1e-4, rtol=1e-3)
    for name in ("constant", "flap"):
        run = sst2.prune("a warm, funny film", scorer=name)
        assert (run.sensitivity.scorer, run.prediction.label) == (name, "positive")


def test_a_mask_from_another_text_is_worse_than_ones_own(sst2: Lab) -> None:
    """Not always, but on the mean over these; the first-order score sees its own text."""
    texts, keep = list(KNOWN), 0.4
    runs = [sst2.prune(text, keep) for text in texts]
    own, others = [], []
    for i, run in enumerate(runs):
        own.append(run.prediction.logits[run.dense.index] - run.prediction.logits[1 - run.dense.index])
        for j, other in enumerate(runs):
            if i != j:
                logits = sst2.subnetwork(sst2.encode([texts[i]]), other.mask).logits[0]
                others.append(float(logits[run.dense.index] - logits[1 - run.dense.index]))
    assert sum(own) / len(own) > sum(others) / len(others)


def test_the_embedded_model_is_ready_soon() -> None:
    """The bar is 6 s on a free machine, imports not counted here; the bound leaves room for a busy one."""
    start = time.perf_counter()
    Lab(load_task_model("sst2"))
    assert time.perf_counter() - start < 20


def test_full_mask_of_the_embedded_model(sst2: Lab) -> None:
    inputs = sst2.encode(["a warm, funny film", "dull"])
    full = Mask.full(sst2.anatomy)
    with torch.no_grad():
        expected = sst2.model(**inputs).logits
    torch.testing.assert_close(sst2.subnetwork(inputs, full).logits, expected, atol=1e-5, rtol=0)
