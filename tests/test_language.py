"""LanguageLab on a toy model, and, where it is installed, on the embedded one."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import save_toy, save_toy_language_model, toy_model, toy_tokenizer
from typer.testing import CliRunner

from dsgp_lab import Lab, LabError, LanguageLab, Mask, gated
from dsgp_lab.cli import app
from dsgp_lab.devices import check_device
from dsgp_lab.evaluate import language_speed, latency
from dsgp_lab.evaluate.language import answers, evaluate_language
from dsgp_lab.evaluate.language_speed import bench_language
from dsgp_lab.evaluate.language_table import LanguageRow, LanguageTable, Quality
from dsgp_lab.language_data import Passage, Prompt, load_openers, load_passages, load_prompts
from dsgp_lab.language_models import has_language_model
from dsgp_lab.language_policy import Policy
from dsgp_lab.language_scorers import LANGUAGE_SCORERS, dynamic_scorers
from dsgp_lab.sensitivity import FirstOrder, lengths
from dsgp_lab.sensitivity.first_order import gate_gradients
from dsgp_lab.sensitivity.targets import prompt_loss

TEXT = "a warm funny film is not very dull"
PASSAGES = tuple(
    Passage(text, "prose")
    for text in ("a warm film is a funny film", "the dull film is not good", "very bad the film is very dull")
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_toy_language_model(tmp_path_factory.mktemp("toy_lm"), tie_word_embeddings=True)


@pytest.fixture(scope="module")
def lab(folder: str) -> LanguageLab:
    return LanguageLab.from_pretrained(folder)


def test_two_lines(folder: str) -> None:
    lab = LanguageLab.from_pretrained(folder)
    run = lab.prune(TEXT, keep=0.8, max_new_tokens=5)
    assert len(run.pruned.tokens) <= 5
    assert 0.6 < run.macs.kept / run.macs.dense <= 0.8
    assert 0 <= run.agreement <= 1
    assert run.mask.blocks.shape == (1, 3, 48)  # single neurons
    assert "LanguageLab" in repr(lab)
    assert "2 KV groups of 2 query heads + 48 neurons" in repr(lab)
    for part in ("agreement on the dense tokens", "KV groups that ran", "griffin"):
        assert part in str(run)
        assert part in run._repr_html_()


def test_the_pruned_text_is_the_gated_models(lab: LanguageLab) -> None:
    """What is returned comes from the very model that the mask leaves."""
    run = lab.prune(TEXT, keep=0.7, max_new_tokens=6)
    inputs = lab.encode(TEXT)
    settings: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    with torch.no_grad(), gated(lab.anatomy, run.mask):
        expected = lab.model.generate(**inputs, **settings, eos_token_id=list(lab.end_ids))
    got = list(run.pruned.tokens)
    assert expected[0, inputs["input_ids"].shape[1] :].tolist()[: len(got)] == got


def test_scores_as_a_by_product_of_the_prefill(lab: LanguageLab) -> None:
    """The whole model reads, the cut one decodes: against transformers, gated after the prompt."""
    run = lab.prune_after_reading(TEXT, keep=0.8, max_new_tokens=6)
    expected = lab.sensitivity(TEXT, "griffin")
    torch.testing.assert_close(run.sensitivity.blocks, expected.blocks, atol=1e-5, rtol=1e-4)
    assert torch.equal(run.mask.blocks, lab.mask(TEXT, 0.8, "griffin").blocks)
    assert run.macs.scorer == 0
    inputs = lab.encode(TEXT)
    first = lab.generate(TEXT, max_new_tokens=1).tokens
    made = run.pruned.tokens
    if first:
        assert made[:1] == first  # the whole model chose it
    with torch.no_grad():
        out = lab.model(**inputs, use_cache=True)
        name = "cache" if "cache" in out else "past_key_values"  # by the version of transformers
        wanted = list(made[:1])
        with gated(lab.anatomy, run.mask):
            for _ in range(len(made) - 1):
                step = torch.tensor([wanted[-1:]])
                out = lab.model(input_ids=step, use_cache=True, **{name: out[name]})
                wanted.append(int(out.logits[0, -1].argmax()))
    assert list(made) == wanted


def test_the_agreement_after_reading_is_that_of_the_run_it_gives(lab: LanguageLab) -> None:
    """The whole model reads the prompt, then the cut one is given the dense tokens, one by one."""
    shares = []
    for prompt in (TEXT, "the dull film", "very good"):
        run = lab.prune_after_reading(prompt, keep=0.7, max_new_tokens=12)
        chosen = []
        with torch.no_grad():
            out = lab.model(**lab.encode(prompt), use_cache=True)
            for token in run.dense.tokens:
                chosen.append(int(out.logits[0, -1].argmax()))
                cache = "cache" if "cache" in out else "past_key_values"  # by the version of transformers
                with gated(lab.anatomy, run.mask):
                    step = torch.tensor([[token]])
                    out = lab.model(input_ids=step, use_cache=True, **{cache: out[cache]})
        same = [a == b for a, b in zip(chosen, run.dense.tokens, strict=True)]
        assert run.agreement == pytest.approx(sum(same) / len(same))
        shares.append(run.agreement)
    assert min(shares) < 1


def test_an_impossible_budget_is_refused_before_anything_is_measured(
    lab: LanguageLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Budgets of which only the last one is impossible, and only for the longest text."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the model ran")

    monkeypatch.setattr(lab.subnetwork, "prefill", never)
    with pytest.raises(LabError, match=r"keep=0\.3 with whole attention"):
        evaluate_language(lab, ["griffin"], [0.8, 0.3], passages=PASSAGES)
    asked = [Prompt("film " * 400, ("film",), "fact")]
    with pytest.raises(LabError, match=r"keep=0\.8 with whole attention.*for 402 tokens"):
        evaluate_language(lab, ["griffin"], [0.95, 0.8], passages=PASSAGES, prompts=asked)
    with pytest.raises(LabError, match=r"keep=0\.3 with whole attention"):
        lab.prune(TEXT, keep=0.3)


def test_everything_kept_is_the_dense_model(lab: LanguageLab) -> None:
    run = lab.prune(TEXT, keep=1.0, max_new_tokens=6)
    assert run.agreement == 1
    assert run.pruned.tokens == run.dense.tokens
    assert lab.perplexity(TEXT, Mask.full(lab.anatomy)) == pytest.approx(lab.perplexity(TEXT))


def test_perplexity_is_transformers_own(lab: LanguageLab) -> None:
    inputs = lab.as_inputs(lab.tokenizer(TEXT)["input_ids"])
    with torch.no_grad():
        loss = lab.model(**inputs, labels=inputs["input_ids"]).loss
    assert lab.perplexity(TEXT) == pytest.approx(math.exp(float(loss)), rel=1e-4)
    logits = lab.model(**inputs).logits
    assert float(prompt_loss(logits, inputs)[0].detach()) == pytest.approx(float(loss), rel=1e-5)


def test_prompt_loss_leaves_padding_out(lab: LanguageLab) -> None:
    ids = lab.tokenizer(TEXT)["input_ids"]
    alone = lab.as_inputs(ids)
    pad = torch.tensor([[0, 0]])
    for order in ((pad, alone["input_ids"]), (alone["input_ids"], pad)):
        padded = torch.cat(order, 1)
        real = torch.cat(
            [torch.ones_like(part) if part is not pad else torch.zeros_like(pad) for part in order], 1
        )
        both = {"input_ids": padded, "attention_mask": real}
        expected = gate_gradients(lab.anatomy, alone, None, "prompt_loss")
        got = gate_gradients(lab.anatomy, both, None, "prompt_loss")
        for one, other in zip(expected, got, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_prompt_loss_is_no_target_of_classifiers(toy_lab: Lab) -> None:
    with pytest.raises(LabError, match=r"prompt_loss' for a classifier"):
        toy_lab.sensitivity("a film", FirstOrder("prompt_loss"))


@pytest.mark.parametrize("name", sorted(set(LANGUAGE_SCORERS) - {"router"}))
def test_every_scorer_plans_a_mask_within_the_budget(lab: LanguageLab, name: str) -> None:
    mask = lab.mask(TEXT, 0.7, name)
    n = lengths(lab.encode(TEXT))
    assert float(lab.cost.masked(mask, n)[0]) <= 0.7 * float(lab.cost.dense(n)[0]) * (1 + 1e-9)


def test_griffin_scores_shares() -> None:
    """Of each layer's activation, token by token: they add up to the number of tokens."""
    lab = LanguageLab(_source())
    scores = lab.sensitivity(TEXT, "griffin")
    tokens = len(lab.tokens(TEXT))
    for part in (scores.heads, scores.blocks):
        torch.testing.assert_close(part.sum(-1), torch.full((1, 3), float(tokens)))


def test_a_static_mask_is_the_same_for_every_prompt(lab: LanguageLab) -> None:
    static = lab.static("griffin", ["a warm film", "the film is bad"])
    masks = [lab.mask(text, 0.7, static) for text in ("a warm film is", "very dull the film")]
    assert torch.equal(masks[0].blocks, masks[1].blocks)
    assert lab.scorer("constant") is lab.scorer("constant")  # calibrated once


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda lab: lab.prune("  "), "a text with at least one word"),
        (lambda lab: lab.prune(7), "prompt 7"),
        (lambda lab: lab.prune(TEXT, keep=1.5), "keep=1.5"),
        (lambda lab: lab.prune(TEXT, scorer="twin"), "scorer='twin'.*griffin"),
        (lambda lab: lab.prune(TEXT, scorer="router"), "scorer='router'.*prompt-router"),
        (lambda lab: lab.prune(TEXT, chat=True), "no chat template"),
        (lambda lab: lab.prune(TEXT, policy=Policy("head")), "scope='head'"),
        (lambda lab: lab.generate(TEXT, max_new_tokens=600), "prompt and continuation together"),
        (lambda lab: lab.generate("film " * 600), "602 tokens"),
        (lambda lab: lab.perplexity("film", start=9), "start=9"),
        (lambda lab: lab.static("griffin", []), "no text"),
        (lambda lab: LanguageLab(_source(), device="cuda:7"), "device='cuda:7'"),
        (lambda lab: LanguageLab(_source(), device="moon"), "device='moon'"),
        (lambda lab: LanguageLab(_source(), dtype="int8"), "dtype='int8'"),
        (lambda lab: evaluate_language(lab, ["constant"]), "scorers constant"),
        (lambda lab: evaluate_language(lab, passages=PASSAGES[:2]), "2 passages"),
        (lambda lab: bench_language(lab, new_tokens=(1,)), "new_tokens=\\(1,\\)"),
        (lambda lab: bench_language(lab, new_tokens=(32, 600)), "new_tokens=\\(32, 600\\).*2 to 448"),
        (lambda lab: bench_language(lab, new_tokens=()), "new_tokens=\\(\\)"),
    ],
)
def test_mistakes(lab: LanguageLab, call: Any, message: str) -> None:
    with pytest.raises(LabError, match=message):
        call(lab)


def test_a_chat_template_is_used_where_there_is_one(folder: str) -> None:
    lab = LanguageLab.from_pretrained(folder)
    lab.tokenizer.chat_template = "{% for m in messages %}the {{ m['content'] }} is{% endfor %}"
    assert lab.is_chat
    assert "".join(lab.tokens("film")) == "thefilmis"
    assert "".join(lab.tokens("film", chat=False)) == "[CLS]film[SEP]"


def test_a_classifier_is_no_language_model(tmp_path: Path, folder: str) -> None:
    with pytest.raises(LabError, match=r"LanguageLab\.from_pretrained"):
        Lab.from_pretrained(folder)
    with pytest.raises(LabError, match=r"Lab\.from_pretrained"):
        LanguageLab.from_pretrained(save_toy(tmp_path))


def test_pickles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", "utf-8")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(LabError, match="pickle"):
        LanguageLab.from_pretrained(tmp_path)


def test_bfloat16(folder: str) -> None:
    """Every scorer, with and without repair, and scores near those of float32."""
    lab, exact = (LanguageLab.from_pretrained(folder, dtype=each) for each in (torch.bfloat16, torch.float32))
    for name in dynamic_scorers(lab.name):
        run = lab.prune(TEXT, 0.8, name, Policy(repair=name == "flap"), max_new_tokens=4)
        assert run.sensitivity.heads.shape == (1, 3, 2)
        if name in ("griffin", "wanda_sp", "activation_norm", "probe"):
            near = exact.sensitivity(TEXT, name).blocks.flatten()
            got = run.sensitivity.blocks.float().flatten()
            assert float(torch.corrcoef(torch.stack([got, near]))[0, 1]) > 0.98, name
    assert lab.prune_after_reading(TEXT, 0.8, max_new_tokens=4).pruned.steps <= 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu(folder: str) -> None:
    lab = LanguageLab.from_pretrained(folder, device="cuda", dtype=torch.bfloat16)
    for scorer in dynamic_scorers(lab.name):
        assert lab.prune(TEXT, keep=0.8, scorer=scorer, max_new_tokens=4).pruned.steps <= 3
    assert evaluate_language(lab, ["griffin"], [0.8], passages=PASSAGES).rows


def test_devices_are_checked() -> None:
    assert check_device("cpu").type == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(LabError, match="no GPU here"):
            check_device("cuda")


def test_the_evaluation_has_its_controls(lab: LanguageLab) -> None:
    table = evaluate_language(lab, ["griffin", "random"], [1.0, 0.8], passages=PASSAGES)
    whole, half, _, chance = table.rows
    assert whole.own.losses == pytest.approx(table.dense.losses, abs=1e-4)
    assert (whole.own.agreement, whole.macs) == (1.0, 1.0)
    assert half.static is not None
    assert half.gain is not None
    mean = sum(half.static.losses) / 3 - sum(half.own.losses) / 3
    assert half.gain[0] == pytest.approx(mean)
    assert half.gain[1] <= half.gain[0] <= half.gain[2]
    assert chance.static is None
    assert half.own.losses != half.mismatched.losses
    assert "griffin" in str(table)
    assert json.dumps(table.record())


def test_an_evaluation_goes_on_from_its_file(lab: LanguageLab, tmp_path: Path) -> None:
    """Rows that are there are not measured again; answers are added to them; another table is refused."""
    out, said = tmp_path / "table.json", []
    settings: dict[str, Any] = {"passages": PASSAGES, "out": out, "say": said.append}
    first = evaluate_language(lab, ["griffin"], [0.8], **settings)
    again = evaluate_language(lab, ["griffin", "flap"], [0.8], **settings)
    assert [line.split(":")[0] for line in said] == ["griffin at 0.8", "flap at 0.8"]
    assert again.row("griffin", 0.8).own.losses == pytest.approx(
        first.row("griffin", 0.8).own.losses, abs=1e-4
    )
    assert again.dense_right is None
    asked = [Prompt("a film", ("film",), "fact")]
    answered = evaluate_language(lab, ["griffin", "flap"], [0.8], prompts=asked, **settings)
    assert [row.right in (0.0, 1.0) for row in answered.rows] == [True, True]
    assert answered.row("flap", 0.8).own.loss == pytest.approx(again.row("flap", 0.8).own.loss, abs=1e-4)
    assert "right answers" in str(answered)
    loaded = LanguageTable.load(out)
    assert [row.name for row in loaded.rows] == ["griffin", "flap"]
    assert loaded.row("flap", 0.8).gain == pytest.approx(answered.row("flap", 0.8).gain, abs=1e-4)
    assert "**Dynamic against static**" in out.with_suffix(".md").read_text("utf-8")
    repaired = evaluate_language(lab, ["flap"], [0.8], Policy(repair=True), **settings)
    assert repaired.rows[-1].name == "flap, repaired"
    assert repaired.rows[-1].own.losses != repaired.row("flap", 0.8).own.losses
    with pytest.raises(LabError, match=r"'griffin' at 0.5\. Allowed: griffin at 0.8, flap at 0.8"):
        loaded.row("griffin", 0.5)
    with pytest.raises(LabError, match=r"made from .*--out"):
        evaluate_language(lab, ["griffin"], [0.8], Policy("global"), **settings)
    for other in ({"dtype": "bfloat16"}, {"device": "cuda"}, {"block_size": "8"}):
        table = LanguageTable.load(out)
        replace(table, about=table.about | other).save(out)
        with pytest.raises(LabError, match=f"{next(iter(other.values()))}.*made from"):
            evaluate_language(lab, ["griffin"], [0.8], **settings)
        table.save(out)
    plain = {name: table.about[name] for name in ("machine", "texts")}  # as tables were written before
    replace(table, about=plain).save(out)
    assert evaluate_language(lab, ["griffin"], [0.8], **settings).rows == table.rows
    out.write_text("{}", "utf-8")
    with pytest.raises(LabError, match="cannot be read"):
        evaluate_language(lab, ["griffin"], [0.8], **settings)


def test_the_verdict_compares_the_best_of_each_kind() -> None:
    def quality(*losses: float) -> Quality:
        return Quality(sum(losses) / len(losses), 0.5, losses)

    def row(name: str, own: float, static: float) -> LanguageRow:
        masks = quality(own, own + 0.2), quality(static, static), quality(9.0, 9.0)
        return LanguageRow(name, 0.8, False, 0.8, 0.0, *masks, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))

    rows = (row("griffin", 1.0, 3.0), row("flap", 2.0, 1.4))
    table = LanguageTable("toy", "scope layer", 2, 0, quality(0.5, 0.5), None, rows)
    ((keep, own, static, gain),) = table.verdict().rows
    assert (keep, own, static) == ("0.8", "3.00 (griffin)", "4.06 (flap)")
    assert gain.startswith("+0.300 (+0.200 to +0.400)")


def test_the_readmes_table_is_what_the_results_say() -> None:
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, str(root / "tools" / "language_table.py"), "--check"]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


def test_times_are_read_from_the_devices_own_clock(lab: LanguageLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a model on a GPU would be timed: by events, which here are counted."""
    timed = []

    def events(run: Any, given: tuple[Any, ...]) -> float:
        run(*given)
        timed.append(run)
        return 1.0

    monkeypatch.setattr(latency, "_on_gpu", events)
    given: list[str] = []

    def measure(*arguments: Any, device: str, **rest: Any) -> Any:
        given.append(device)
        return latency.measure_latency(*arguments, device="cuda", **rest)

    monkeypatch.setattr(language_speed, "measure_latency", measure)
    bench_language(lab, 0.8, prompt_tokens=8, new_tokens=(4,), rounds=5)
    assert given == [lab.anatomy.device.type] * 3
    assert len(timed) == 3 * 3 * 5  # three tables of two variants and a control


def test_the_speed_table(lab: LanguageLab) -> None:
    table = bench_language(lab, 0.8, "wanda_sp", 8, (4, 6), rounds=5, transformers=True)
    for answers_of in table.answers.values():
        assert {row.variant for row in answers_of.rows} == {
            "lean dense",
            "cut after reading",
            "scored before, cut",
            "transformers dense",
        }
    assert tuple(table.answers) == (4, 6)
    assert (table.keep, table.units[0]) == (0.8, 1.0)
    taken = table.answers[4]["lean dense"].median_ms - table.prefill["lean dense"].median_ms
    assert table.beyond_reading(4, "lean dense") == pytest.approx(4e3 / taken)
    for part in ("decode: cut", "answer of 6: cut after reading"):
        assert part in str(table)
    assert json.dumps(table.record())


def test_attention_stays_whole_unless_it_is_cut(lab: LanguageLab) -> None:
    assert bool(lab.mask(TEXT, 0.7).heads.all())
    assert not bool(lab.mask(TEXT, 0.3, policy=Policy("global", cut_attention=True)).heads.all())
    with pytest.raises(
        LabError, match=r"keep=0\.3 with whole attention.*at least 0\.\d+ for 10 tokens.*cut_attention"
    ):
        lab.mask(TEXT, 0.3)


def test_the_panel_generates_on_click(lab: LanguageLab) -> None:
    panel = lab.explore(TEXT, keep=0.8, max_new_tokens=4)
    text, controls, output = panel.children
    budget, button = controls.children
    assert output.value == ""
    button.click()
    for part in ("dense", "pruned to 0.7", "Agreement"):
        assert part in output.value
    budget.value = 0.3
    button.click()
    assert "whole attention" in output.value
    text.value = "<b>a film</b>"
    budget.value = 0.9
    button.click()
    assert "Agreement" in output.value
    assert not button.disabled
    with pytest.raises(LabError, match="at least one word"):
        lab.explore(" ")


def test_the_texts() -> None:
    passages, prompts = load_passages(), load_prompts()
    assert [p.kind for p in passages[:3]] == ["prose", "code", "arithmetic"]
    assert (len(passages), len(prompts)) == (18, 30)
    assert len({p.text for p in passages}) == 18
    assert len({p.text for p in prompts}) == 30
    openers = load_openers()
    assert len({o.text for o in openers}) == len(openers) == 64
    assert {o.kind for o in openers} == {p.kind for p in passages}
    assert not [o for o in openers if any(p.text.startswith(o.text) for p in passages)]
    for kinds in ([p.kind for p in passages], [p.kind for p in prompts]):
        assert len({kinds.count(kind) for kind in kinds}) == 1
    for passage in passages:
        assert len(passage.text.split()) > 40
    for line in (line for p in passages for line in p.text.split("\n") if p.kind == "arithmetic"):
        parts = line.replace(" x ", " * ").split(" = ")
        if len(parts) == 2 and set(line) <= set("0123456789 +-x="):
            assert eval(parts[0]) == int(parts[1]), line


def test_right_answers(lab: LanguageLab) -> None:
    prompt = Prompt("?", ("H2O", "x ** 2", "print("), "fact")
    assert prompt.is_right("it is h2o.")
    assert prompt.is_right("print('a')")
    assert prompt.is_right("y = x ** 2")
    assert not prompt.is_right("H2O2")
    assert not prompt.is_right("")
    assert answers(lab, [Prompt("a film", ("film",), "fact")], "griffin", 0.7) in (0.0, 1.0)


def test_commands(folder: str) -> None:
    runner = CliRunner()
    made = runner.invoke(app, ["generate", TEXT, "--model", folder, "--tokens", "4"])
    assert made.exit_code == 0, made.output
    assert "agreement on the dense tokens" in made.output
    command = ["language", "--model", folder, "--scorers", "griffin", "--keeps", "0.9", "--json"]
    made = runner.invoke(app, command)
    assert made.exit_code == 0, made.output
    (row,) = json.loads(made.stdout)["rows"]
    assert (row["scorer"], row["keep"]) == ("griffin", 0.9)
    command = ["language", "--model", folder, "--keeps", "0.9", "--json", "--speed", "--rounds", "5"]
    made = runner.invoke(app, [*command, "--scorers", "griffin", "--rivals"])
    assert json.loads(made.stdout)["prompt_tokens"] == 64


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--speed --scorers nonsense", "--scorers with --speed.*--rivals"),
        ("--speed --scope sideways --rivals", "--scope with --speed"),
        ("--speed --cut-attention", "--cut-attention with --speed"),
        ("--speed --repair", "--repair with --speed"),
        ("--speed --answers", "--answers with --speed"),
        ("--speed --rivals --scorers griffin,router", "griffin,router with --rivals"),
        ("--rounds 5", "--rounds without --speed"),
        ("--new-tokens 64", "--new-tokens without --speed"),
        ("--rivals", "--rivals without --speed"),
    ],
)
def test_options_without_an_effect_are_refused(given: str, said: str) -> None:
    with pytest.raises(LabError, match=said):
        CliRunner().invoke(app, ["language", *given.split()], catch_exceptions=False)


def _source() -> Any:
    from dsgp_lab.language_models import LanguageModel

    return LanguageModel(toy_model("llama", max_position_embeddings=512), toy_tokenizer(), "toy")


@pytest.mark.slow
@pytest.mark.skipif(not has_language_model(), reason="no language model: make lab-llm")
def test_the_embedded_model() -> None:
    """It loads without a network, answers, and cut to a prompt equals its gated self."""
    lab = LanguageLab()
    assert (lab.anatomy.num_layers, lab.anatomy.num_heads, lab.anatomy.queries_per_head) == (30, 3, 3)
    assert "Paris" in lab.generate("What is the capital of France?", max_new_tokens=12).text
    run = lab.prune("What is the capital of France?", keep=0.8, max_new_tokens=12)
    inputs = lab.encode(run.prompt)
    with torch.no_grad(), gated(lab.anatomy, run.mask):
        expected = lab.anatomy.logits(inputs)
    got = lab.subnetwork(inputs, run.mask).logits
    assert float((got - expected).abs().max()) <= 1e-4
