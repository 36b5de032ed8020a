"""Fine-tuning: batches, held-out part, resumption, checkpoint and card, on a toy encoder."""

from __future__ import annotations

import gzip
import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from dsgp_lab.batching import bucketed_batches, collate, encode
from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.dense import predict_logits, to_predictions
from dsgp_lab.tasks import Examples, get_task, load_examples
from dsgp_lab.training import finetune as finetuning
from dsgp_lab.training import low_rank
from dsgp_lab.training.config import FinetuneConfig, learning_rate_at
from dsgp_lab.training.finetune import finetune, main
from dsgp_lab.training.held_out import hold_out
from dsgp_lab.training.loop import LOG, SNAPSHOT, task_loss, train
from dsgp_lab.training.overlap import dev_texts, without

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "plot", "a", "the", "is", "and", "very"]


@pytest.fixture(autouse=True)
def one_thread():
    """Toys are too small to share among threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ends
    )
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    inputs = ["input_ids", "attention_mask", "token_type_ids"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=inputs, **names)


def toy_base(num_labels=2, dropout=0.1):
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        num_labels=num_labels,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    torch.manual_seed(1)
    return BertForSequenceClassification(config)


def reviews(n=96):
    """Sentences that hold one of two words that decide the label."""
    fillers = ["a film", "the plot is and", "very", "the film is a very"]
    texts = tuple((f"{fillers[i % 4]} {'good' if i % 3 else 'bad'} {'film ' * (i % 5)}",) for i in range(n))
    return Examples(get_task("sst2"), "train", "test", texts, tuple(int(i % 3 > 0) for i in range(n)))


def config(**settings):
    small = {"epochs": 2, "batch_size": 8, "learning_rate": 0.01, "held_out": 8, "precision": "fp32"}
    return FinetuneConfig("sst2", **(small | settings))


def trained(tokenizer, out, settings, **options):
    rest, held_out = reviews().split_off(24, seed=0)
    model = toy_base()
    return train(settings, model, tokenizer, rest, held_out, out, **options), model


def test_training_learns_and_keeps_the_best(tokenizer, tmp_path):
    kept, model = trained(tokenizer, tmp_path, config(epochs=8))
    assert kept["metrics"]["accuracy"] == 1.0
    rows = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    judged = [row for row in rows if row["event"] == "held-out"]
    assert len(judged) == 16  # two an epoch
    best = max(judged, key=lambda row: row["accuracy"])
    assert (kept["step"], kept["epoch"]) == (best["step"], best["epoch"])
    held_out = reviews().split_off(24, seed=0)[1]
    predictions = to_predictions(held_out.task, predict_logits(model, tokenizer, held_out))
    assert tuple(predictions) == held_out.labels
    assert not model.training


@pytest.mark.parametrize(("stops", "average"), [([1], 0.0), ([7], 0.9), ([9, 10, 17], 0.5)])
def test_resumed_equals_uninterrupted(tokenizer, tmp_path, stops, average):
    settings = config(average=average)
    whole, expected = trained(tokenizer, tmp_path / "whole", settings)
    for stop in stops:
        torch.manual_seed(stop)  # another process starts with another random state
        kept, _ = trained(tokenizer, tmp_path / "parts", settings, stop_at=stop)
        assert kept is None
    kept, model = trained(tokenizer, tmp_path / "parts", settings)
    assert kept == whole
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, atol=1e-6, rtol=1e-6)


def test_finished_run_is_not_trained_again(tokenizer, tmp_path):
    first, _ = trained(tokenizer, tmp_path, config())
    lines = len((tmp_path / LOG).read_text().splitlines())
    again, _ = trained(tokenizer, tmp_path, config())
    assert again == first
    assert len((tmp_path / LOG).read_text().splitlines()) == lines + 1  # "resumed"


def test_run_with_other_settings_is_refused(tokenizer, tmp_path):
    trained(tokenizer, tmp_path, config(), stop_at=2)
    with pytest.raises(LabError, match=r"a run with another learning_rate, seed\..*--out"):
        trained(tokenizer, tmp_path, config(learning_rate=0.02, seed=1))


def test_damaged_snapshot_is_refused(tokenizer, tmp_path):
    trained(tokenizer, tmp_path, config(), stop_at=2)
    path = tmp_path / SNAPSHOT
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(LabError, match=r"an unreadable snapshot.*delete it"):
        trained(tokenizer, tmp_path, config())


def test_without_held_out_the_last_state_is_kept(tokenizer, tmp_path):
    model = toy_base()
    empty = reviews().take([])
    kept = train(config(), model, tokenizer, reviews(32), empty, tmp_path)
    assert kept == {"step": 8, "epoch": 2.0, "metrics": {}}


def test_the_average_of_the_weights_is_kept(tokenizer, tmp_path):
    path, model = [], toy_base(dropout=0.0)
    hook = model.register_forward_pre_hook(lambda *_: path.append(model.classifier.bias.detach().clone()))
    empty = reviews().take([])
    train(config(average=0.5), model, tokenizer, reviews(32), empty, tmp_path)
    hook.remove()
    last = torch.load(tmp_path / SNAPSHOT, weights_only=True)["weights"]["classifier.bias"]
    expected = path[0]
    for step, weights in enumerate([*path[1:], last], start=1):
        decay = min(0.5, step / (step + 10))
        expected = decay * expected + (1 - decay) * weights
    torch.testing.assert_close(model.classifier.bias.detach(), expected)


def test_bf16_trains_in_float32_weights(tokenizer, tmp_path):
    kept, model = trained(tokenizer, tmp_path, config(precision="bf16", epochs=8))
    assert kept["metrics"]["accuracy"] > 0.9
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_regression_loss_is_the_squared_error():
    loss = task_loss(get_task("stsb"), torch.tensor([[1.0], [4.0]]), [2.0, 2.0], config())
    assert float(loss) == pytest.approx(2.5)


def test_learning_rate_rises_and_falls():
    settings = config(warmup=0.1, learning_rate=1.0 / 2)
    rates = [learning_rate_at(step, 100, settings) for step in range(100)]
    assert max(rates) == rates[9] == 0.5
    assert rates[:9] == sorted(rates[:9])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.01
    assert learning_rate_at(0, 10, config(warmup=0.0, learning_rate=0.5)) == 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"learning_rate": 0.0}, r"learning_rate=0\.0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"dropout": 1.0}, r"dropout=1\.0"),
        ({"warmup": -0.1}, "warmup"),
        ({"held_out": -1}, "held_out=-1"),
        ({"max_length": 1024}, "max_length=1024.*8 to 512"),
        ({"precision": "fp8"}, "precision='fp8'.*auto, bf16, fp32"),
        ({"batch_size": "64"}, "batch_size='64'"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(LabError, match=message):
        config(**settings)


def test_unknown_task_in_settings():
    with pytest.raises(LabError, match="Got task 'imdb'"):
        FinetuneConfig("imdb")


def test_batches_cover_every_example_once():
    lengths = [i % 17 for i in range(500)]
    batches = bucketed_batches(lengths, 8, seed=3, epoch=1)
    assert sorted(i for batch in batches for i in batch) == list(range(500))
    assert batches == bucketed_batches(lengths, 8, seed=3, epoch=1)
    assert batches != bucketed_batches(lengths, 8, seed=3, epoch=2)
    spread = [max(lengths[i] for i in batch) - min(lengths[i] for i in batch) for batch in batches]
    assert sum(spread) / len(spread) < 2


def test_encode_and_collate_pairs(tokenizer):
    encoded = encode(tokenizer, [("good film", "bad"), ("good", "a very bad film")], 7)
    batch = collate(encoded, tokenizer.pad_token_id)
    assert batch["input_ids"].tolist() == [[2, 4, 6, 3, 5, 3, 0], [2, 4, 3, 8, 12, 5, 3]]
    assert batch["attention_mask"].tolist() == [[1] * 6 + [0], [1] * 7]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1, 1]]
    assert encode(tokenizer, [], 7) == []


def test_predictions_do_not_depend_on_the_batch(tokenizer):
    model, examples = toy_base(), reviews(20)
    model.train()
    one = predict_logits(model, tokenizer, examples, batch_size=1)
    torch.testing.assert_close(
        predict_logits(model, tokenizer, examples, batch_size=7), one, atol=1e-5, rtol=0
    )
    assert model.training


def test_held_out_sentences_are_unseen():
    sentences = [f"w{i} x{i} y{i} z{i}" for i in range(20)]
    phrases = [part for i in range(20) for part in (f"w{i} x{i}", f"y{i}", f" x{i} y{i} z{i} ")]
    texts = tuple((text,) for text in sentences + phrases)
    examples = Examples(get_task("sst2"), "train", "test", texts, (0,) * len(texts))
    rest, held_out = hold_out(examples, 5, seed=0)
    assert len(held_out) == 5
    assert {text for (text,) in held_out.texts} <= set(sentences)
    numbers = {text[1:].split()[0] for (text,) in held_out.texts}
    assert len(rest) == 15 * 4
    assert not any(word[1:] in numbers for (text,) in rest.texts for word in text.split())


def test_held_out_pairs_share_no_text():
    texts = tuple((f"premise {i // 3}", f"hypothesis {i}") for i in range(30))
    examples = Examples(get_task("mnli"), "train", "test", texts, (0,) * 30)
    rest, held_out = hold_out(examples, 4, seed=0)
    assert len(held_out) == 4
    assert not {pair[0] for pair in rest.texts} & {pair[0] for pair in held_out.texts}


def test_too_large_a_held_out_part():
    examples = Examples(get_task("rte"), "train", "test", (("same", "a"), ("same", "b")), (0, 1))
    for size in (1, 2, 3):
        with pytest.raises(LabError, match=f"held_out={size} of 2 examples"):
            hold_out(examples, size, seed=0)


@pytest.fixture
def toy_lab(tokenizer, tmp_path, monkeypatch):
    """The whole command on a toy: GLUE folder, teaching set, and toy models for base and checkpoint."""
    monkeypatch.setenv("DSGP_GLUE_DIR", str(tmp_path / "glue"))
    monkeypatch.setenv("DSGP_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "data" / "teaching").mkdir(parents=True)
    folder = tmp_path / "glue" / "sst2"
    folder.mkdir(parents=True)
    examples = reviews(60)
    rows = [
        json.dumps({"sentence": text[0] + f" w{i}", "label": label}) + "\n"
        for i, (text, label) in enumerate(zip(examples.texts, examples.labels, strict=True))
    ]
    for split, part in (("train", rows), ("validation", rows[:20])):
        (folder / f"{split}.jsonl.gz").write_bytes(gzip.compress("".join(part).encode()))
    (tmp_path / "data" / "teaching" / "sst2.jsonl").write_text("".join(rows[:10]))

    def load_base(num_labels, **settings):
        return toy_base(num_labels, settings.get("hidden_dropout_prob", 0.0))

    from dsgp_lab import checkpoints

    for module in (low_rank, checkpoints):
        monkeypatch.setattr(module, "load_base", load_base)
    for module in (finetuning, checkpoints):
        monkeypatch.setattr(module, "load_tokenizer", lambda: tokenizer)
    return tmp_path


def test_the_command_writes_a_checkpoint_with_a_card(toy_lab, capsys):
    arguments = "sst2 --epochs 3 --batch-size 8 --learning-rate 0.01 --rank 4 --held-out 10 --precision fp32"
    out = toy_lab / "run"
    assert main([*arguments.split(), "--out", str(out), "--device", "cpu"]) == 0
    assert "'dev': {'validation': {'accuracy': {'value'" in capsys.readouterr().out
    card = json.loads((out / "checkpoint" / "card.json").read_text())
    assert card["command"] == (
        "dsgp-lab train sst2 --epochs 3 --batch-size 8 --learning-rate 0.01 --rank 4 --seed 0"
        " --held-out 10 --precision fp32"
    )
    assert card["data"]["held_out"] == 10
    assert card["data"]["train"] + card["data"]["held_out"] + card["data"]["left_out"] == 60
    assert card["data"]["official"] == 67_349
    assert card["data"]["source"] == "nyu-mll/glue (a part)"
    assert card["dev"]["validation"]["n"] == 20
    assert card["teaching"]["n"] == 10
    assert set(card["held_out"]) == {"accuracy"}
    assert str(toy_lab) not in json.dumps(card)


def test_another_task_can_start_from_the_adapter(toy_lab):
    settings = config(rank=2, epochs=1)
    finetune(settings, toy_lab / "first", device="cpu")
    first = toy_lab / "first" / "checkpoint"
    model = low_rank.adapted_model(config(rank=2, start_from=str(first)), reviews())
    assert any(".lora_B" in name and bool(p.any()) for name, p in model.named_parameters())
    with pytest.raises(LabError, match="use the same rank"):
        low_rank.adapted_model(config(rank=4, start_from=str(first)), reviews())
    with pytest.raises(LabError, match=r"without adapter_model\.safetensors"):
        low_rank.adapted_model(config(start_from=str(toy_lab)), reviews())
    with pytest.raises(LabError, match=r"without adapter_config\.json"):
        low_rank.whole_model(config(start_from=str(toy_lab), update="full"), reviews())


def test_texts_of_dev_sets_are_left_out_on_request(toy_lab):
    """The first twenty training rows are the dev set."""
    plain = finetune(config(rank=2, epochs=1), toy_lab / "plain", device="cpu")
    clean = finetune(config(rank=2, epochs=1, without_texts_of="sst2"), toy_lab / "clean", device="cpu")
    assert "--without-texts-of sst2" in clean["command"]
    assert clean["data"]["held_out"] == plain["data"]["held_out"]
    assert plain["data"]["train"] > clean["data"]["train"] > 0
    examples = load_examples("sst2", "train")
    judged = dev_texts(["sst2"])
    kept = without(examples, judged)
    assert len(examples) - len(kept) == 20
    assert kept.texts == examples.texts[20:]
    with pytest.raises(LabError, match="sst3"):
        config(without_texts_of="rte,sst3")


def test_whole_matrices_end_as_adapters_of_their_change(toy_lab):
    """At full rank nothing is lost; a lower rank keeps the largest part of the change."""
    settings = config(rank=16, alpha=8, update="full")
    whole = low_rank.whole_model(settings, reviews())
    trained = {name for name, p in whole.named_parameters() if p.requires_grad}
    assert "bert.encoder.layer.0.attention.self.query.weight" in trained
    assert not any("embeddings" in name or "LayerNorm" in name for name in trained)
    assert {name for name in trained if name.endswith("bias")} == {"classifier.bias"}
    with torch.no_grad():
        for name, parameter in whole.named_parameters():
            if name in trained:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    inputs = {"input_ids": torch.tensor([[2, 4, 6, 3]])}
    whole.eval()
    same = low_rank.to_low_rank(whole, settings.rank, settings.alpha).eval()
    torch.testing.assert_close(same(**inputs).logits, whole(**inputs).logits, atol=1e-4, rtol=1e-4)
    gaps = []
    for rank in (1, 4, 8):
        near = low_rank.to_low_rank(whole, rank, settings.alpha).merge_and_unload()
        weights = (m.bert.encoder.layer[0].intermediate.dense.weight for m in (near, whole))
        gaps.append(torch.linalg.norm(next(weights) - next(weights)).item())
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > gaps[-1]


@pytest.mark.slow
def test_adapters_in_one_product_equal_pefts():
    inputs = {"input_ids": torch.tensor([[101, 2023, 2143, 102]]), "attention_mask": torch.ones(1, 4).long()}
    runs = {}
    for name in ("peft", "one product"):
        torch.manual_seed(0)
        model = low_rank.low_rank_adapter(low_rank.load_base(2), 4, 8).eval()
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=0.02)
        if name == "peft":
            for module in model.modules():
                module.__dict__.pop("forward", None)
        logits = model(**inputs).logits
        logits[0, 0].backward()
        gradients = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
        runs[name] = logits, gradients
    (expected, wanted), (found, got) = runs.values()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert wanted.keys() == got.keys()
    assert sum("lora" in key for key in got) == 2 * 37  # and the pooler
    for key, gradient in wanted.items():
        torch.testing.assert_close(got[key], gradient, atol=1e-4, rtol=1e-3)


def test_a_full_update_is_trained_saved_and_started_from(toy_lab):
    card = finetune(config(rank=4, epochs=2, update="full"), toy_lab / "full", device="cpu")
    assert "--update full" in card["command"]
    assert set(card["held_out"]) == {"accuracy"}
    first = toy_lab / "full" / "checkpoint"
    again = low_rank.whole_model(config(rank=2, update="full", start_from=str(first)), reviews())
    base = low_rank.whole_model(config(rank=4, update="full"), reviews())
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    assert not torch.equal(again.state_dict()[name], base.state_dict()[name])


def test_choices_leave_the_dev_split_alone(toy_lab, capsys):
    out = toy_lab / "run"
    assert main(["sst2", "--epochs", "1", "--held-out", "8", "--no-dev", "--out", str(out)]) == 0
    card = json.loads((out / "checkpoint" / "card.json").read_text())
    assert "dev" not in card
    assert card["held_out"]


def test_finetune_stops_and_goes_on(toy_lab):
    settings = config(rank=2, epochs=2)
    assert finetune(settings, toy_lab / "run", device="cpu", stop_at=3) is None
    assert not (toy_lab / "run" / "checkpoint").exists()
    assert finetune(settings, toy_lab / "run", device="cpu")["dev"]["validation"]["n"] == 20


def test_errors_of_the_command(toy_lab, capsys):
    assert main(["sst2", "--held-out", "60", "--out", str(toy_lab / "run")]) == 2
    assert "held_out=60 of 60 examples that can be held out" in capsys.readouterr().err
    assert main(["sst3"]) == 2
    assert "Got task 'sst3'" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert main(["sst2", "--held-out", "8", "--device", "cuda", "--out", str(toy_lab / "run")]) == 2
        assert "Allowed: cpu (no GPU here)" in capsys.readouterr().err
    assert main(["sst2", "--device", "gpu", "--out", str(toy_lab / "run")]) == 2
    assert "device='gpu'" in capsys.readouterr().err
