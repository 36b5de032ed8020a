"""Router training as its command runs it: real base, real SST-2 checkpoint, a small GLUE folder made here."""

from __future__ import annotations

import gzip
import json
import shutil
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dsgp_lab import Lab, LabError, SubNetwork
from dsgp_lab.batching import collate, encode
from dsgp_lab.checkpoints import load_checkpoint, update_card
from dsgp_lab.evaluate.cell import Cell
from dsgp_lab.evaluate.methods import METHODS, OF_TWIN, available_methods
from dsgp_lab.evaluate.pruned import predict_pruned
from dsgp_lab.models import load_base, load_tokenizer
from dsgp_lab.regimes import (
    DENSE_FILES,
    ROUTER,
    digests_of,
    load_model,
    load_router,
    load_trained,
    trained_folder,
)
from dsgp_lab.router import Router
from dsgp_lab.tasks import SHARED, TASKS, data_folder, load_examples, load_teaching, shared_outputs
from dsgp_lab.training import held_out as held_out_module
from dsgp_lab.training import router_data, router_start
from dsgp_lab.training.router_config import RouterConfig
from dsgp_lab.training.train_router import main, train_router
from dsgp_lab.training.unlabelled import perturbed

TOY_WORDS = ("a warm film", "a dull film", "the plot is thin", "very good", "not bad at all", "it is funny")


@pytest.fixture(autouse=True)
def one_thread():
    """Small runs are too small to share among threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def glue(tmp_path, monkeypatch):
    """A GLUE folder of a few made-up training rows for every task, of which six are held out."""
    folder = tmp_path / "glue"
    for task in TASKS.values():
        rows = []
        for i in range(40):
            texts = [f"{TOY_WORDS[(i + k) % 6]} number {i}" for k in range(len(task.columns))]
            label = i % 6 if task.is_regression else i % task.num_labels
            rows.append(dict(zip(task.columns, texts, strict=True)) | {"label": label, "idx": i})
        (folder / task.name).mkdir(parents=True)
        judged = [
            row | {column: row[column].upper().replace(" F", " , F") for column in task.columns}
            for row in rows
        ]
        splits = {"train": rows} | dict.fromkeys(task.dev_splits, judged[:1])
        for split, kept in splits.items():
            with gzip.open(folder / task.name / f"{split}.jsonl.gz", "wt", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in kept)
    monkeypatch.setenv("DSGP_GLUE_DIR", str(folder))
    monkeypatch.setattr(router_data, "HELD_OUT", dict.fromkeys(TASKS, 6))
    original = held_out_module.hold_out
    monkeypatch.setattr(router_data, "hold_out", lambda examples, size, seed: original(examples, 6, seed))
    return folder


@pytest.fixture
def quick(monkeypatch):
    """Fewer calibration texts."""
    original = router_data.long_sample
    monkeypatch.setattr(router_start, "long_sample", lambda examples, size=8: original(examples, 8))


SMALL = {"steps": 2, "batch_size": 4}


@pytest.mark.slow
@pytest.mark.parametrize("regime", ["frozen", "joint"])
def test_a_router_is_trained_saved_and_loaded(glue, quick, tmp_path, regime):
    config = RouterConfig("sst2", regime=regime, **SMALL)
    assert train_router(config, tmp_path / "run", stop_at=1) is None
    card = train_router(config, tmp_path / "run")
    assert card["command"].startswith("dsgp-lab train-router sst2")
    assert card["data"] == {"sst2": 8}  # no more than the steps can use
    assert card["unlabelled"] == 0
    root = tmp_path / "root"
    target = trained_folder("sst2", regime, root=root)
    target.parent.mkdir(parents=True)
    (tmp_path / "run" / "checkpoint").rename(target)
    trained = load_trained("sst2", regime, root=root)
    examples = load_teaching("sst2").sample(4)
    found = predict_pruned(trained.subnetwork(), trained.own.tokenizer, examples, trained.router, 0.5)
    assert found.logits.shape == (4, 2)
    assert ((found.shares > 0) & (found.shares <= 1.01)).all()
    (target / "router.safetensors").write_bytes(b"x")
    with pytest.raises(LabError, match="altered or damaged"):
        load_trained("sst2", regime, root=root)


@pytest.mark.slow
def test_a_checkpoint_without_an_order_is_named(glue, quick, tmp_path):
    dense = shutil.copytree(
        data_folder() / "checkpoints" / "sst2",
        tmp_path / "sst2",
        ignore=lambda _, names: {"frozen", "adaptive"},
    )
    said: list[str] = []
    train_router(RouterConfig("sst2", **SMALL), tmp_path / "ordered", dense=dense, say=said.append)
    assert not any("no order" in line for line in said)
    (dense / "neuron_order.safetensors").unlink()
    update_card(dense, {})
    train_router(RouterConfig("sst2", **SMALL), tmp_path / "run", dense=dense, say=said.append)
    assert "dsgp-lab order sst2 --by importance" in " ".join(said)


@pytest.mark.slow
def test_a_router_goes_on_from_a_static_twin(glue, quick, tmp_path):
    config = RouterConfig("sst2", regime="joint", kind="constant", weights_learning_rate=0.01, **SMALL)
    train_router(config, tmp_path / "twin")
    folder = tmp_path / "twin" / "checkpoint"
    onward = replace(config, kind="layerwise", start_from=str(folder), steps=1, weights_learning_rate=1e-9)
    rates = {"learning_rate": 1e-9, "bias_learning_rate": 1e-9}
    card = train_router(replace(onward, **rates), tmp_path / "router")
    assert f"--start-from {folder}" in card["command"]
    assert card["begun_by"] == [config.command]
    twin, router = (Router.load(path / ROUTER) for path in (folder, tmp_path / "router" / "checkpoint"))
    assert router.sees_input
    features, keep = torch.randn(3, 768), torch.rand(3)
    both = [each.logits(2, features, keep) for each in (router, twin)]
    torch.testing.assert_close(*both, atol=1e-2, rtol=0)
    name = "bert.encoder.layer.3.attention.self.query.weight"
    places = (data_folder() / "checkpoints" / "sst2", folder, tmp_path / "router" / "checkpoint")
    dense, first, second = (load_checkpoint(place).model.get_parameter(name) for place in places)
    assert (first - dense).abs().max() > 10 * (second - first).abs().max()
    alone = RouterConfig("sst2", start_from=str(folder), **SMALL)  # on the twin's weights as they are
    card = train_router(alone, tmp_path / "alone", dense=folder)
    assert card["begun_by"] == [config.command] * 2
    assert card["held_out"] == 6


@pytest.mark.slow
def test_a_router_belongs_to_the_weights_it_was_trained_on(glue, quick, tmp_path, monkeypatch):
    run = tmp_path / "run"
    train_router(RouterConfig("sst2", **SMALL), run)
    frozen = trained_folder("sst2", "frozen", root=tmp_path / "root")
    shutil.copytree(run / "checkpoint", frozen)
    load_router("sst2", "frozen", root=tmp_path / "root")
    update_card(frozen, {DENSE_FILES: {"adapter_model.safetensors": "0" * 64}})
    with pytest.raises(LabError, match="trained on other weights"):
        load_router("sst2", "frozen", root=tmp_path / "root")
    own = data_folder() / "checkpoints" / "sst2"
    assert Lab.from_pretrained(own).scorer("router").shape.kind == "layerwise"
    beside = Lab.from_pretrained(own / "adaptive")
    mine, theirs = beside.scorer("router"), load_router("sst2", "adaptive")
    assert torch.equal(mine.w1, theirs.w1)
    with pytest.raises(LabError, match=r"Got a router in .*adaptive\. Allowed: a static twin"):
        beside.scorer("twin")
    other = tmp_path / "other"
    shutil.copytree(own / "adaptive", other)
    (other / ROUTER).unlink()
    update_card(other, {})
    with pytest.raises(LabError, match="weights that none of the project's was trained on"):
        Lab.from_pretrained(other).scorer("router")
    with pytest.raises(LabError, match="another checkpoint to begin with"):
        train_router(RouterConfig("sst2", **SMALL), run, dense=own / "adaptive")


@pytest.mark.slow
def test_a_dense_model_without_a_held_out_part_is_refused_before_training(glue, tmp_path, monkeypatch):
    monkeypatch.setattr(router_data, "hold_out", lambda examples, size, seed: (examples, examples.take([])))
    with pytest.raises(LabError, match="from whose training nothing was held out"):
        train_router(RouterConfig("sst2", **SMALL), tmp_path / "run")


@pytest.mark.slow
def test_whole_matrices_are_trained_and_their_change_is_kept_in_low_rank(glue, quick, tmp_path):
    first = data_folder() / "checkpoints" / "sst2"
    config = RouterConfig("sst2", regime="joint", update="full", rank=4, weights_learning_rate=1e-3, **SMALL)
    card = train_router(config, tmp_path / "run")
    assert "--update full --rank 4" in card["command"]
    before, after = load_checkpoint(first), load_checkpoint(tmp_path / "run" / "checkpoint")
    base = load_base(2)
    name = "bert.encoder.layer.3.attention.self.query.weight"
    start, end, plain = (m.get_parameter(name) for m in (before.model, after.model, base))
    assert not torch.equal(start, end)
    assert torch.linalg.matrix_rank(end - plain) == 4
    assert torch.equal(before.neuron_order, after.neuron_order)


def test_the_shared_encoder_takes_the_adapter_of_a_task_but_not_its_head():
    folder = data_folder() / "checkpoints" / "sst2"
    name = "bert.encoder.layer.3.attention.self.query"
    expected = load_checkpoint(folder).model.get_parameter(f"{name}.weight")
    config = RouterConfig("glue", regime="joint")
    model, adapter = router_start.trainable(config, folder, 16)
    assert adapter.get_base_model() is model
    assert model.classifier.weight.shape[0] == 16
    query = model.get_submodule(name)
    assert torch.allclose(query.weight + query.get_delta_weight("default"), expected, atol=1e-5)
    model, adapter = router_start.trainable(replace(config, update="full"), folder, 16)
    assert adapter is None
    assert torch.allclose(model.get_parameter(f"{name}.weight"), expected, atol=1e-5)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert f"{name}.weight" in trained
    assert "classifier.weight" in trained
    assert not any("embeddings" in name or "LayerNorm" in name for name in trained)


@pytest.mark.slow
def test_one_encoder_for_all_tasks(glue, quick, tmp_path):
    dense = RouterConfig(
        "glue", regime="joint", lowest=1.0, noise=0.0, distillation=0.0, labels=1.0, steps=2, batch_size=4
    )
    card = train_router(dense, tmp_path / "dense")
    # 34 after the held-out ones; row 0 of each task stands in other tasks' dev sets
    assert set(card["data"].values()) == {33}
    root = tmp_path / "root"
    target = trained_folder("rte", "shared", root=root)
    assert target == root / "glue" / "shared"
    target.parent.mkdir(parents=True)
    (tmp_path / "dense" / "checkpoint").rename(target)
    routed = replace(dense, lowest=0.3, rank_by_task=True, steps=1, noise=1.0)
    card = train_router(routed, tmp_path / "routed", dense=target)
    assert "--rank-by-task" in card["command"]
    assert card["begun_by"] == [dense.command]
    assert (
        Router.load(tmp_path / "routed" / "checkpoint" / ROUTER).w2.abs().sum() > 10
    )  # more than one step's
    models = {task: load_model(task, "shared", root=root) for task in ("rte", "stsb", "mnli")}
    assert [m.model.config.num_labels for m in models.values()] == [2, 1, 3]
    inputs = {"input_ids": torch.tensor([[101, 2023, 102]]), "attention_mask": torch.ones(1, 3).long()}
    for task, own in models.items():
        assert own.labels == TASKS[task].labels
        assert SubNetwork(own.model).dense(inputs).shape == (1, TASKS[task].num_labels)
    with pytest.raises(LabError, match="cola, sst2"):
        load_model("wnli", "shared", root=root)


@pytest.mark.slow
def test_a_router_alone_for_the_encoder_of_all_tasks(glue, quick, tmp_path, monkeypatch):
    """Its targets are that encoder's own logits, and it is kept without the weights."""
    config = RouterConfig("glue", steps=1, batch_size=4, lowest=0.3, rank_by_task=True)
    with pytest.raises(LabError, match=r"sst2, no checkpoint of the shared encoder"):
        train_router(config, tmp_path / "no", dense=data_folder() / "checkpoints" / "sst2")
    together = replace(config, regime="joint", lowest=1.0, distillation=0.0, labels=1.0, rank_by_task=False)
    train_router(together, tmp_path / "dense")
    dense = tmp_path / "data" / "checkpoints" / SHARED
    dense.parent.mkdir(parents=True)
    for task in shared_outputs():  # what is held out stands in each task's own card
        (dense.parent / task).symlink_to(data_folder() / "checkpoints" / task)
    (tmp_path / "dense" / "checkpoint").rename(dense)
    monkeypatch.setenv("DSGP_DATA_DIR", str(tmp_path / "data"))
    card = train_router(config, tmp_path / "run")
    assert card[DENSE_FILES] == digests_of(dense)
    assert (
        card["command"]
        == "dsgp-lab train-router glue --steps 1 --batch-size 4 --lowest 0.3 --rank-by-task --seed 0"
    )
    (targets,) = tmp_path.glob("targets/rte-*.pt")
    source = router_data.task_source("rte", dense, config, tmp_path / "again", 999)[0]
    own = load_checkpoint(dense, "rte")
    first = collate([source.encoded[0]], 0)
    torch.testing.assert_close(source.targets[0], own.model(**first).logits[0].detach(), atol=0.1, rtol=0)
    assert targets.stat().st_size > 0
    folder = trained_folder("rte", "shared_frozen")
    assert folder == dense / "shared_frozen"
    (tmp_path / "run" / "checkpoint").rename(folder)
    assert not (folder / "adapter_model.safetensors").exists()
    assert available_methods("rte", "shared_frozen") == tuple(m for m in METHODS if m not in OF_TWIN)
    assert available_methods("wnli", "shared_frozen") == ()
    trained = load_trained("rte", "shared_frozen")
    weight = "bert.encoder.layer.3.attention.self.query.weight"
    assert torch.equal(trained.own.model.get_parameter(weight), own.model.get_parameter(weight))
    cell = Cell("rte", "shared_frozen", "router", 0.5)
    assert set(cell.checkpoints()) == {SHARED, "shared_frozen"}
    assert set(Cell("rte", "shared_frozen", "static_fisher", 0.5).checkpoints()) == {SHARED}
    update_card(folder, {DENSE_FILES: {"adapter_model.safetensors": "0" * 64}})
    with pytest.raises(LabError, match=r"trained on other weights.*train-router glue"):
        load_router("rte", "shared_frozen")


@pytest.mark.slow
def test_texts_of_other_tasks_are_added_without_labels(glue, tmp_path):
    folder = data_folder() / "checkpoints" / "stsb"
    config = RouterConfig("stsb", inputs_of="qnli,rte", steps=20, batch_size=3)
    judged = load_examples("stsb", "validation").texts
    assert judged[0][0].startswith("A WARM , F")  # a text of the others, written differently
    source, own, _ = router_data.task_source("stsb", folder, config, tmp_path, limit=60)
    added = source.encoded[len(own) :]
    assert ("a warm film number 0", "a dull film number 0") in load_examples("rte", "train").texts
    assert encode(load_tokenizer(), [("a warm film number 0", "a dull film number 0")], 128)[0] not in added
    everything = router_data.task_source("stsb", None, config, tmp_path, limit=999)[0]
    # of each task's pairs one is in the dev set, and six are held out
    assert len(everything.encoded) == 34 + 2 * 33
    assert len(own) == len(source.labels) == 34
    assert len(source.encoded) == len(source.targets) == 60
    targets = torch.cat([source.targets[:3], source.targets[-3:]])
    expected = []
    model = load_checkpoint(folder).model
    for item in [*source.encoded[:3], *source.encoded[-3:]]:
        inputs = collate([item], 0)
        with torch.no_grad():
            expected.append(model(**inputs).logits)
    assert torch.allclose(targets, torch.cat(expected), atol=0.1)  # the targets are computed in bf16
    single = RouterConfig("sst2", inputs_of="rte", steps=20, batch_size=3)
    source, own, _ = router_data.task_source("sst2", None, single, tmp_path, limit=60)
    assert len(source.encoded) == 60
    with pytest.raises(LabError, match="tasks with 2 texts"):
        router_data.task_source("stsb", None, replace(config, inputs_of="sst2"), tmp_path, limit=60)
    with pytest.raises(LabError, match='"joint", where update or rank are set'):
        RouterConfig("stsb", update="full")
    assert RouterConfig("stsb", inputs_of="qqp, mrpc").more_tasks == ["qqp", "mrpc"]
    with pytest.raises(LabError, match="inputs_of='rte'"):
        RouterConfig("glue", inputs_of="rte")
    with pytest.raises(LabError, match="rank_by_task=True"):
        RouterConfig("rte", rank_by_task=True)
    with pytest.raises(LabError, match="lowest=1"):
        RouterConfig("rte", lowest=1.0)


@pytest.mark.slow
def test_changed_copies_of_the_own_texts_come_before_other_tasks(glue, tmp_path):
    config = RouterConfig("stsb", perturbed=1, inputs_of="rte", steps=20, batch_size=3)
    source, own, _ = router_data.task_source("stsb", None, config, tmp_path, limit=80)
    tokenizer = load_tokenizer()
    copies = perturbed(own.texts, 1, config.seed)
    assert source.encoded[len(own) : 2 * len(own)] == encode(tokenizer, copies, 128)
    assert len(own) == len(source.labels) == 34
    assert len(source.encoded) == 34 + 34 + 12  # the rest is of other tasks
    assert len(router_data.task_source("stsb", None, config, tmp_path, limit=50)[0].encoded) == 50
    alone = replace(config, inputs_of="")
    assert len(router_data.task_source("stsb", None, alone, tmp_path, limit=80)[0].encoded) == 68
    for wrong in ({"perturbed": -1}, {"perturbed": 1, "labels": 0.5}):
        with pytest.raises(LabError, match="perturbed="):
            RouterConfig("stsb", **wrong)
    with pytest.raises(LabError, match="perturbed=1"):
        RouterConfig("glue", perturbed=1)


def test_changed_copies_miss_some_words_and_have_some_of_others():
    texts = tuple((f"{' '.join(f'{letter}{i}' for i in range(400))}", "same") for letter in "abc")
    copies = perturbed(texts, 2)
    assert len(copies) == 6
    assert copies == perturbed(texts, 2)
    assert copies[:3] != copies[3:]
    assert copies != perturbed(texts, 2, seed=1)
    words = [first.split() for first, _ in copies]
    assert 0.08 < 1 - sum(map(len, words)) / (6 * 400) < 0.12  # left out
    foreign = sum(word[0] != "abc"[i % 3] for i, each in enumerate(words) for word in each)
    assert 0.05 < foreign / sum(map(len, words)) < 0.09  # two thirds of those exchanged
    assert perturbed((), 3) == ()
    assert perturbed((("",),), 1) == (("",),)


SHIPPED = sorted(path.parent for path in (data_folder() / "checkpoints").glob("*/*/router.safetensors"))


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_shipped_routers_run_on_their_models(folder):
    regime, twin = folder.name.removesuffix("_twin"), folder.name.endswith("_twin")
    owner = folder.parent.name
    shares = []
    for task in shared_outputs() if owner == SHARED else [owner]:
        examples = load_teaching("mrpc" if task == "qqp" else task).sample(6)  # QQP has no teaching set
        trained = load_trained(task, regime, twin)
        found = predict_pruned(trained.subnetwork(), trained.own.tokenizer, examples, trained.router, 0.5)
        assert trained.router.sees_input != twin
        assert torch.isfinite(found.logits).all()
        shares.append(float(found.shares.mean()))
    assert statistics.mean(shares) == pytest.approx(0.5, abs=0.08)
    other = trained_folder(task, regime, not twin)
    settings = [json.loads((f / "card.json").read_text("utf-8"))["settings"] for f in (folder, other)]
    differ = {key for key in set.intersection(*map(set, settings)) if settings[0][key] != settings[1][key]}
    assert differ - {"rank_by_task"} == {"kind"}  # a twin has no inputs to rank by


def test_outputs_of_the_shared_encoder_do_not_overlap():
    outputs = shared_outputs()
    used = [i for part in outputs.values() for i in range(part.start, part.stop)]
    assert used == list(range(16))
    assert "wnli" not in outputs


def test_errors_of_the_command(glue, capsys, tmp_path):
    assert main(["mrpc", "--steps", "0"]) == 2
    assert "steps=0" in capsys.readouterr().err
    assert main(["sst2", "--min-tokens", "9999", "--out", str(tmp_path / "x")]) == 2
    assert "lower min_tokens" in capsys.readouterr().err
    with pytest.raises(LabError, match="regime='both'"):
        trained_folder("sst2", "both")
    with pytest.raises(LabError, match="make one with dsgp-lab train-router wnli"):
        load_trained("wnli", "joint")


def test_a_shipped_checkpoint_is_trained_again_under_another_seed(tmp_path, monkeypatch):
    """`tools/train_seeds.py`: the card's own command with another seed, and nothing done twice."""
    monkeypatch.syspath_prepend(str(data_folder().parent / "tools"))
    import train_seeds

    calls = []

    def train(arguments):
        calls.append(arguments)
        out = Path(arguments[arguments.index("--out") + 1]) / "checkpoint"
        out.mkdir(parents=True)
        (out / "card.json").write_text("{}", "utf-8")
        return 0

    monkeypatch.setattr(train_seeds, "train_router", train)
    given = ["--tasks", "rte", "--runs", "adaptive_twin", "--seeds", "1,2", "--root", str(tmp_path)]
    assert train_seeds.main(given) == 0
    card = json.loads((trained_folder("rte", "adaptive", twin=True) / "card.json").read_text("utf-8"))
    shown = [" ".join(["dsgp-lab", "train-router", *call[:-2]]) for call in calls]
    assert shown == [card["command"].replace("--seed 0", f"--seed {seed}") for seed in (1, 2)]
    assert trained_folder("rte", "adaptive", twin=True, root=tmp_path / "seed2").is_dir()
    assert train_seeds.main(given) == 0
    assert len(calls) == 2
    joint = ["--tasks", "rte", "--runs", "joint", "--seeds", "0", "--root", str(tmp_path)]
    assert train_seeds.main(joint) == 0
    command = " ".join(["dsgp-lab", "train-router", *calls[-1][:-2]])
    shipped = json.loads((trained_folder("rte", "adaptive") / "card.json").read_text("utf-8"))["command"]
    assert command == shipped.replace("--adaptive ", "")
    assert trained_folder("rte", "joint", root=tmp_path / "seed0").is_dir()
    monkeypatch.setattr(train_seeds, "train_router", lambda arguments: 2)
    assert train_seeds.main([*given[:-3], "3", *given[-2:]]) == 2
