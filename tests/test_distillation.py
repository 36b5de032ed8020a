"""Learning from a teacher: a larger encoder fine-tuned, its logits of texts with labels and without."""
# ruff: noqa: F401, F811 - fixtures are imported, and named again as arguments

from __future__ import annotations

import gzip
import json
from dataclasses import replace

import pytest
import torch
from test_training import WORDS, config, one_thread, reviews, tokenizer, toy_base, toy_lab
from torch.nn import functional
from transformers import BertConfig, BertModel

from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.dense import predict_logits
from dsgp_lab.pretrained import load_encoder, load_pretrained
from dsgp_lab.tasks import Examples, get_task, load_examples
from dsgp_lab.training import distillation as distilling
from dsgp_lab.training.config import FinetuneConfig
from dsgp_lab.training.distillation import Lesson, distillation, take_lesson
from dsgp_lab.training.finetune import finetune, main
from dsgp_lab.training.loop import _Run, train
from dsgp_lab.training.overlap import squeezed
from dsgp_lab.training.teacher import TEACHER_CARD, made_by, teacher_card
from dsgp_lab.training.train_router import main as train_router
from dsgp_lab.training.unlabelled import texts_of

CPU = torch.device("cpu")


@pytest.fixture
def encoder(toy_lab, tokenizer):
    """The folder of a plain encoder, without a head."""
    torch.manual_seed(3)
    size = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    folder = toy_lab / "encoder"
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=128, **size)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def teacher(encoder, name="teacher", **settings):
    """The folder of a teacher trained on the toy task."""
    out = encoder.parent / name
    given = {"encoder": str(encoder), "update": "full", "epochs": 4} | settings
    finetune(config(**given), out, device="cpu", dev=False)
    return out / "checkpoint"


def test_the_command_makes_a_teacher(encoder, capsys):
    out = encoder.parent / "run"
    words = f"sst2 --encoder {encoder} --update full --epochs 2 --batch-size 8 --held-out 10 --seed 0"
    assert main([*words.split(), "--learning-rate", "0.01", "--out", str(out), "--device", "cpu"]) == 0
    assert "'dev': {'validation': {'accuracy'" in capsys.readouterr().out
    card = json.loads((out / "checkpoint" / TEACHER_CARD).read_text())
    assert card["encoder"] == str(encoder)
    assert card["command"].endswith(f"--held-out 10 --update full --encoder {encoder}")
    assert card["dev"]["validation"]["n"] == 20
    assert not (out / "checkpoint" / "card.json").exists()  # it is no checkpoint of the base
    again = load_pretrained(out / "checkpoint")
    assert again.labels == get_task("sst2").labels
    assert again.model.config.num_hidden_layers == 2
    shown = predict_logits(again.model, again.tokenizer, load_examples("sst2", "validation"))
    right = (shown.argmax(-1) == torch.tensor(load_examples("sst2", "validation").labels)).float().mean()
    assert float(right) == pytest.approx(card["dev"]["validation"]["accuracy"]["value"], abs=1e-5)


def test_every_weight_of_a_teacher_is_trained(encoder):
    before = BertModel.from_pretrained(encoder).state_dict()
    after = load_pretrained(teacher(encoder)).model.bert.state_dict()
    assert not torch.equal(
        before["embeddings.word_embeddings.weight"], after["embeddings.word_embeddings.weight"]
    )
    assert not torch.equal(
        before["encoder.layer.1.output.dense.bias"], after["encoder.layer.1.output.dense.bias"]
    )


def test_a_teacher_goes_on_from_a_teacher_of_another_task(encoder):
    folder = teacher(encoder)
    own = load_encoder(folder, ("a", "b", "c"))
    assert own.model.config.num_labels == 3
    taught = load_pretrained(folder).model
    again = load_encoder(folder, ("no", "yes")).model
    assert again.config.label2id == {"no": 0, "yes": 1}
    assert not torch.allclose(again.classifier.weight, taught.classifier.weight)  # a head of its own
    first = taught.bert.state_dict()
    for name, value in own.model.bert.state_dict().items():
        torch.testing.assert_close(value, first[name])


def test_only_the_head_of_an_encoder_may_be_missing(encoder):
    from safetensors.torch import load_file, save_file

    path = encoder / "model.safetensors"
    weights = load_file(path)
    del weights["encoder.layer.0.output.dense.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(
        LabError, match=r"without the weights bert\.encoder\.layer\.0\.output.*another encoder"
    ):
        load_encoder(encoder, ("a", "b"))
    with pytest.raises(LabError, match="which does not exist"):
        load_encoder("./nowhere", ("a", "b"))


def test_an_encoder_of_another_shape_than_it_says_is_refused(encoder):
    settings = json.loads((encoder / "config.json").read_text())
    (encoder / "config.json").write_text(json.dumps(settings | {"intermediate_size": 48}))
    with pytest.raises(LabError, match=r"without the weights bert\.encoder\.layer\.0\.intermediate"):
        load_encoder(encoder, ("a", "b"))


def test_a_lesson_is_the_mean_of_the_teachers(encoder, tmp_path, monkeypatch):
    folders = [teacher(encoder), teacher(encoder, "other", epochs=1)]
    examples, held_out = reviews(24).split_off(8, seed=0)
    settings = config(teacher=",".join(map(str, folders)))
    lesson = take_lesson(settings, examples, held_out, tmp_path / "cache", CPU)
    assert lesson.more == ()
    models = [load_pretrained(folder) for folder in folders]
    each = [predict_logits(own.model, own.tokenizer, examples) for own in models]
    torch.testing.assert_close(lesson.targets, (each[0] + each[1]) / 2)
    assert not torch.allclose(each[0], each[1])

    def never(*_, **__):
        raise AssertionError("asked again")

    monkeypatch.setattr(distilling, "predict_logits", never)
    again = take_lesson(settings, examples, held_out, tmp_path / "cache", CPU)
    torch.testing.assert_close(again.targets, lesson.targets)
    with pytest.raises(AssertionError, match="asked again"):  # another text, another answer
        take_lesson(settings, examples.take(range(5)), held_out, tmp_path / "cache", CPU)


def write_pairs(folder, task, pairs, label=0):
    """A GLUE split of one task on disk, the same for training and validation."""
    columns = get_task(task).columns
    for split, rows in pairs.items():
        lines = (json.dumps(dict(zip(columns, row, strict=True)) | {"label": label}) + "\n" for row in rows)
        path = folder / "glue" / task / f"{split}.jsonl.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress("".join(lines).encode()))


def test_added_texts_stand_neither_in_dev_sets_nor_in_the_held_out_part(toy_lab):
    dev = load_examples("sst2", "validation").texts[0][0]
    pairs = [("a good plot", dev.upper()), ("a held out film", "the plot"), ("a bad film", "the film")]
    write_pairs(toy_lab, "rte", {"train": pairs, "validation": pairs})
    task = get_task("sst2")
    assert texts_of(["rte"], task, frozenset({squeezed("A held-out film.")})) == (
        ("a good plot",),
        ("the plot",),
        ("a bad film",),
        ("the film",),
    )
    write_pairs(toy_lab, "mrpc", {"validation": pairs})
    with pytest.raises(LabError, match=r"inputs_of='sst2' for mrpc.*2 texts an example"):
        texts_of(["sst2"], get_task("mrpc"))


def test_pairs_are_added_the_other_way_round(encoder, tmp_path, monkeypatch):
    own = (("a film", "the plot"), ("very good", "very bad"))
    more = [("good", "bad"), ("the film", "is good")]
    write_pairs(encoder.parent, "mrpc", {"train": more, "validation": [("plot plot", "film film")]})
    write_pairs(encoder.parent, "rte", {"train": own, "validation": [("a a", "the the")]})
    folder = teacher(encoder)
    examples = Examples(get_task("rte"), "train", "test", own, (0, 1))
    settings = replace(config(teacher=str(folder)), task="rte", inputs_of="mrpc", swap_pairs=True)
    lesson = take_lesson(settings, examples, examples.take([]), tmp_path / "cache", CPU)
    swaps = [(second, first) for first, second in (*own, *more)]
    assert lesson.more == (*more, *swaps)
    assert lesson.targets.shape == (8, 2)


def test_a_teacher_that_does_not_fit_is_refused_at_once(encoder, capsys):
    folder = teacher(encoder)

    def refused(settings):
        with pytest.raises(LabError) as caught:
            finetune(settings, encoder.parent / "student", device="cpu")
        assert not (encoder.parent / "student").exists()
        return str(caught.value)

    other = replace(config(teacher=str(folder)), task="wnli")  # as many outputs, in another order
    assert "a model of sst2. Allowed: a model of wnli" in refused(other)
    assert "held_out=8, seed=0. Allowed: held_out=8, seed=1" in refused(config(teacher=str(folder), seed=1))
    assert "held_out=9" in refused(config(teacher=str(folder), held_out=9))
    assert "without teacher.json" in refused(config(teacher=str(encoder)))
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes() + b" ")
    assert "other weights than teacher.json names" in refused(config(teacher=str(folder)))
    for text, reason in (("{}", "without command"), ("[]", "cannot be read"), ("{", "cannot be read")):
        (folder / TEACHER_CARD).write_text(text)
        assert reason in refused(config(teacher=str(folder)))


def test_a_length_beyond_the_encoders_positions_is_refused(encoder):
    out = encoder.parent / "run"
    with pytest.raises(LabError, match=r"max_length=256.*at most 128 tokens.*--max-length 128"):
        finetune(config(encoder=str(encoder), update="full", max_length=256), out, device="cpu")


def test_a_damaged_cache_is_named(encoder, tmp_path):
    examples, held_out = reviews(24).split_off(8, seed=0)
    settings = config(teacher=str(teacher(encoder)))
    cache = tmp_path / "cache"
    take_lesson(settings, examples, held_out, cache, CPU)
    (path,) = cache.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(LabError, match="delete it: they are computed anew"):
        take_lesson(settings, examples, held_out, cache, CPU)
    torch.save(torch.zeros(3, 2), path)
    with pytest.raises(LabError, match=r"with 3, 2\. Allowed: logits of 16 texts, 2 each"):
        take_lesson(settings, examples, held_out, cache, CPU)


def test_a_lesson_leaves_out_what_is_held_out_or_judged_elsewhere(encoder, tmp_path):
    """Of the added pairs one has a held-out text, one a text of another task's dev set."""
    write_pairs(encoder.parent, "mrpc", {"validation": [("the plot", "is very bad")]})
    more = [("a held-out film!", "is bad"), ("the film", "The plot"), ("good", "bad")]
    write_pairs(encoder.parent, "rte", {"train": more, "validation": [("a a", "the the")]})
    examples, _ = reviews(24).split_off(8, seed=0)
    held_out = Examples(examples.task, "train", "test", (("A held out film",),), (0,))
    settings = config(teacher=str(teacher(encoder)), inputs_of="rte", without_texts_of="mrpc")
    lesson = take_lesson(settings, examples, held_out, tmp_path / "cache", CPU)
    assert lesson.more == (("is bad",), ("the film",), ("good",), ("bad",))
    assert lesson.targets.shape == (20, 2)


def test_the_loss_of_a_batch_with_and_without_labels(tokenizer, tmp_path):
    own = reviews(6)
    torch.manual_seed(0)
    lesson = Lesson((("a film",), ("the plot",)), torch.randn(8, 2))
    settings = config(teacher="t", teacher_weight=0.25, temperature=2.0)
    run = _Run(settings, toy_base(), tokenizer, own, own.take([]), tmp_path, lesson, print)
    logits, chosen = torch.randn(4, 2), [7, 2, 0, 5]
    labels = torch.tensor([own.labels[i] for i in chosen[1:]])
    wanted = 0.25 * distillation(logits, lesson.targets[chosen], 2.0)
    wanted = wanted + 0.75 * functional.cross_entropy(logits[1:], labels) * 3 / 4
    torch.testing.assert_close(run._loss(logits, chosen), wanted)


def test_a_regression_weighs_teacher_and_labels_alike(tokenizer, tmp_path):
    own = Examples(get_task("stsb"), "train", "test", (("a film", "the film"),) * 4, (0.0, 1.0, 4.0, 5.0))
    settings = replace(config(), task="stsb", teacher="t", teacher_weight=0.5)
    said = torch.tensor(own.labels).unsqueeze(1)  # the teacher says what the labels say
    run = _Run(settings, toy_base(1), tokenizer, own, own.take([]), tmp_path, Lesson((), said), print)
    logits = torch.tensor([[1.0], [1.0]])
    torch.testing.assert_close(run._loss(logits, [1, 3]), torch.tensor(8.0))


def test_a_run_does_not_go_on_with_another_teacher(tokenizer, tmp_path):
    rest, held_out = reviews(40).split_off(12, seed=0)
    settings = config(teacher="t")
    said = lesson_for(rest)
    train(settings, toy_base(), tokenizer, rest, held_out, tmp_path, lesson=said, stop_at=2)
    other = Lesson((), -said.targets)
    with pytest.raises(LabError, match="another what the teachers said"):
        train(settings, toy_base(), tokenizer, rest, held_out, tmp_path, lesson=other)


def lesson_for(examples, more=()):
    """What somebody says who holds every film for bad, and is less sure of the added texts."""
    sure = torch.tensor([[2.0, -2.0]]).repeat(len(examples), 1)
    return Lesson(more, torch.cat([sure, torch.tensor([[0.5, -0.5]]).repeat(len(more), 1)]))


@pytest.mark.parametrize(("share", "agrees"), [(1.0, True), (0.0, False)])
def test_the_student_follows_the_teacher_or_the_labels(tokenizer, tmp_path, share, agrees):
    rest, _ = reviews().split_off(24, seed=0)
    good = rest.take(i for i, label in enumerate(rest.labels) if label == 1)
    settings = config(epochs=12, held_out=0, teacher="t", teacher_weight=share)
    model = toy_base()
    lesson = lesson_for(good, (("the plot is bad",), ("a very bad film",)))
    train(settings, model, tokenizer, good, good.take([]), tmp_path, lesson=lesson)
    logits = predict_logits(model, tokenizer, good)
    assert bool((logits.argmax(-1) == 0).all()) == agrees
    if agrees:
        assert float(distillation(logits, lesson.targets[: len(good)])) < 0.02


def test_a_resumed_lesson_equals_an_uninterrupted_one(tokenizer, tmp_path):
    rest, held_out = reviews(40).split_off(12, seed=0)
    settings = config(teacher="t", teacher_weight=0.5, temperature=2.0)
    lesson = lesson_for(rest, (("a film",), ("the plot",)))

    def go(folder, stop_at=None):
        model = toy_base()
        found = train(settings, model, tokenizer, rest, held_out, folder, lesson=lesson, stop_at=stop_at)
        return found, model.state_dict()

    whole, expected = go(tmp_path / "whole")
    assert go(tmp_path / "parts", stop_at=3)[0] is None
    found, weights = go(tmp_path / "parts")
    assert found == whole
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, atol=1e-6, rtol=1e-6)


def test_the_student_of_a_teacher_says_so_in_its_card(encoder, capsys):
    folder = teacher(encoder)
    out = encoder.parent / "student"
    words = f"sst2 --epochs 2 --batch-size 8 --rank 4 --held-out 8 --teacher {folder} --temperature 2"
    assert main([*words.split(), "--learning-rate", "0.01", "--out", str(out), "--device", "cpu"]) == 0
    card = json.loads((out / "checkpoint" / "card.json").read_text())
    assert card["teachers"] == [made_by(teacher_card(folder))]
    assert card["teachers"][0]["encoder"] == str(encoder)
    assert card["data"]["unlabelled"] == 0
    assert card["command"].endswith(f"--teacher {folder} --temperature 2.0")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inputs_of": "rte"}, "inputs_of='rte'. Allowed: nothing without a teacher"),
        ({"swap_pairs": True}, "swap_pairs=True. Allowed: nothing without a teacher"),
        ({"swap_pairs": True, "teacher": "t"}, "swap_pairs=True. Allowed: pairs"),
        ({"swap_pairs": 1, "teacher": "t"}, "swap_pairs=1. Allowed: a value like False"),
        ({"teacher_weight": 1.5}, "teacher_weight=1.5. Allowed: a number from 0 to 1"),
        ({"temperature": 0.0, "teacher": "t"}, "temperature=0.0. Allowed: a finite number above 0"),
        ({"temperature": float("inf"), "teacher": "t"}, "temperature=inf. Allowed: a finite number above 0"),
        ({"temperature": 2.0}, "temperature=2.0. Allowed: nothing without a teacher"),
        ({"teacher_weight": 0.5}, "teacher_weight=0.5. Allowed: nothing without a teacher"),
        ({"teacher": " , "}, "Allowed: folders, with commas"),
        ({"inputs_of": "sst2", "teacher": "t"}, "inputs_of='sst2'. Allowed: other tasks"),
        ({"label_smoothing": 0.1, "teacher": "t"}, "label_smoothing=0.1. Allowed: 0 where no label is used"),
        ({"encoder": "e", "update": "full", "rank": 8}, "rank=8. Allowed: nothing beside an encoder"),
        ({"encoder": "e"}, "encoder='e'. Allowed: update='full' and no start_from"),
        ({"encoder": "e", "update": "full", "start_from": "s"}, "no start_from"),
        ({"inputs_of": "nli", "teacher": "t"}, "nli"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings, message):
    with pytest.raises(LabError, match=message):
        FinetuneConfig("sst2", **settings)


def test_the_command_line_names_what_a_lesson_adds():
    settings = FinetuneConfig("rte", teacher="t", inputs_of="mrpc,stsb", swap_pairs=True)
    assert settings.command == (
        "dsgp-lab train rte --epochs 3 --seed 0 --teacher t --inputs-of mrpc,stsb --swap-pairs"
    )


def test_a_device_that_is_not_here_is_named(toy_lab, capsys):
    assert main(["sst2", "--device", "tpu", "--out", str(toy_lab / "run")]) == 2
    assert "device='tpu'" in capsys.readouterr().err
    assert train_router(["sst2", "--device", "tpu", "--out", str(toy_lab / "run")]) == 2
    assert "device='tpu'" in capsys.readouterr().err
