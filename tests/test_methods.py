"""Methods by name, on a toy model and, as cells of a sweep, on the embedded one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cells import silent
from toys import WORDS, toy_anatomy, toy_model, toy_tokenizer

from dsgp_lab import Lab, LabError
from dsgp_lab.checkpoints import update_card
from dsgp_lab.cost import CostModel
from dsgp_lab.evaluate.cell import Cell
from dsgp_lab.evaluate.cell_files import read_cells
from dsgp_lab.evaluate.dense import to_predictions
from dsgp_lab.evaluate.methods import METHODS, OF_TWIN, ROUTED, make_method, predict
from dsgp_lab.evaluate.pruned import mismatched, predict_masked, predict_pruned
from dsgp_lab.evaluate.run_cell import run_cell
from dsgp_lab.evaluate.sweep import sweep
from dsgp_lab.evaluate.sweep_plan import plan_cells
from dsgp_lab.regimes import ROUTER, trained_folder
from dsgp_lab.router import Router, RouterShape
from dsgp_lab.router_planner import Planner
from dsgp_lab.sensitivity import Constant, FirstOrder, Fisher, Random
from dsgp_lab.subnetwork import SubNetwork
from dsgp_lab.tasks import Examples, get_task, load_teaching, shared_outputs
from dsgp_lab.training.router_data import labelled_batches


def texts(count: int, task: str = "sst2") -> Examples:
    """Toy examples of lengths 1 to 9."""
    made = tuple((" ".join(WORDS[i % 7 : i % 7 + 1 + i % 9]),) for i in range(count))
    return Examples(get_task(task), "toy", "toy", made, tuple(i % 2 for i in range(count)))


@pytest.fixture(scope="module")
def toy() -> SubNetwork:
    """A packed toy classifier of two classes."""
    return SubNetwork(toy_anatomy(toy_model("bert", 2)))


def toy_router(subnetwork: SubNetwork, constant: bool = False) -> Router:
    """A router whose decisions differ between inputs, unless constant."""
    torch.manual_seed(0)
    router = Router(RouterShape.of(subnetwork.anatomy, "constant" if constant else "layerwise", 8))
    with torch.no_grad():
        router.bias.copy_(-8 * torch.rand(router.bias.shape))
        router.w2.copy_(torch.randn(router.w2.shape))
    return router.eval()


def test_every_method_runs_within_its_budget(toy: SubNetwork) -> None:
    tokenizer, examples = toy_tokenizer(), texts(12)
    batches = labelled_batches(tokenizer, examples)
    router = toy_router(toy)
    donors = predict_pruned(toy, tokenizer, texts(5), router, 0.5).masks
    runs = {}
    for name in METHODS:
        decides = toy_router(toy, constant=True) if name in OF_TWIN else router
        made = make_method(name, toy.anatomy, router=decides, calibration=lambda: batches, seed=3)
        others = {"donors": donors, "calibration": lambda: batches}
        runs[name] = predict(name, made, toy, tokenizer, examples, 0.5, seed=3, **others)
        assert runs[name].logits.shape == (12, 2)
        if name not in ("dense", *ROUTED):
            assert (runs[name].shares <= 0.5 + 1e-6).all(), name
    assert runs["dense"].shares.tolist() == [1.0] * 12
    expected = predict_masked(toy, tokenizer, examples, mismatched(runs["router"].masks, 3))
    assert torch.equal(runs["mismatched"].logits, expected.logits)
    cost = CostModel.of(toy.anatomy)
    own = [router.macs(cost, n) / float(cost.dense(torch.tensor([n]))[0]) for n in expected.lengths.tolist()]
    assert torch.allclose(runs["mismatched"].shares - expected.shares, torch.tensor(own), atol=1e-6)
    again = predict("mismatched", router, toy, tokenizer, examples, 0.5, seed=3, routed=runs["router"])
    assert torch.equal(again.logits, expected.logits)
    for mask in runs["other_task"].masks.groups():
        assert any(torch.equal(mask[0].heads[0], each) for each in donors.heads)
    with pytest.raises(LabError, match="'other_task' without masks"):
        predict("other_task", router, toy, tokenizer, examples, 0.5)
    assert len({run.logits.numpy().tobytes() for run in runs.values()}) > 6


def test_the_twin_decides_once_for_all_examples(toy: SubNetwork) -> None:
    tokenizer, examples, twin = toy_tokenizer(), texts(12), toy_router(toy, constant=True)
    together = predict_pruned(toy, tokenizer, examples, twin, 0.5)
    assert len(together.masks.groups()) == 1
    planner = Planner(twin, 0.5)
    for i in range(3):
        inputs = labelled_batches(tokenizer, examples.take([i]))[0][0]
        assert torch.allclose(toy.run(inputs, planner)[0], together.logits[i], atol=1e-5)
        assert torch.equal(planner.mask.heads, together.masks[[i]].heads)


def test_what_methods_are_made_of(toy: SubNetwork) -> None:
    batches = labelled_batches(toy_tokenizer(), texts(12))
    fisher = make_method("static_fisher", toy.anatomy, calibration=lambda: batches)
    expected = Constant.fit(toy.anatomy, Fisher(), batches)
    assert isinstance(fisher, Constant)
    assert torch.equal(fisher.heads, expected.heads)
    assert fisher.origin == "fisher"
    flap = make_method("static_flap", toy.anatomy, calibration=lambda: batches)
    assert isinstance(flap, Constant)
    assert make_method("oracle_signed", toy.anatomy) == FirstOrder(signed=True)
    assert make_method("oracle_first_order", toy.anatomy) == FirstOrder()
    random = make_method("random", toy.anatomy, seed=5)
    assert isinstance(random, Random)
    assert random.seed == 5
    assert make_method("dense", toy.anatomy) is None


def test_methods_that_lack_something(toy: SubNetwork) -> None:
    with pytest.raises(LabError, match=r"Got method 'michel'\. Allowed: dense, random, static_first_order"):
        make_method("michel", toy.anatomy)
    with pytest.raises(LabError, match="'router' without a router"):
        make_method("router", toy.anatomy)
    twin = toy_router(toy, constant=True)
    with pytest.raises(LabError, match="'cascade' without calibration data"):
        predict("cascade", twin, toy, toy_tokenizer(), texts(12), 0.5)
    with pytest.raises(LabError, match="'static_flap' without calibration data"):
        make_method("static_flap", toy.anatomy)


@pytest.fixture(scope="module")
def trained(sst2: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a toy router and twin for the sst2 checkpoint as it is."""
    root = tmp_path_factory.mktemp("trained")
    for twin in (False, True):
        folder = trained_folder("sst2", "frozen", twin, root)
        folder.mkdir(parents=True)
        toy_router(sst2.subnetwork, twin).save(folder / ROUTER)
        update_card(folder, {"task": "sst2"})
    return root


@pytest.mark.slow
def test_real_cells(sst2: Lab, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells of every kind of method on the embedded model, against the engine itself."""
    monkeypatch.setenv("DSGP_GLUE_DIR", str(tmp_path / "none"))
    wanted = ("dense", "random", "static_fisher", "twin", "router", "mismatched", "cascade", "oracle_signed")
    keep = 0.4  # at 0.5 the threshold of the cascade is the margin of one of these texts, a tie
    cells = plan_cells(["sst2"], ["frozen"], wanted, keeps=(keep,), limit=24, root=trained, say=silent)
    done = {result.cell.method: result for result in map(run_cell, cells)}
    every = load_teaching("sst2")
    router = Router.load(trained_folder("sst2", "frozen", root=trained) / ROUTER)
    for name, result in done.items():
        table = result.predictions
        assert len(table) == 24
        assert table["idx"].is_monotonic_increasing
        examples = every.take(table["idx"])
        assert tuple(table["label"]) == examples.labels
        logits = torch.from_numpy(np.stack(table["logits"]))
        assert to_predictions(get_task("sst2"), logits) == table["prediction"].tolist()
        assert result.metrics["accuracy"] == (table["prediction"] == table["label"]).mean()
        assert result.record["source"] == "teaching"
        if name in ("random", "static_fisher", "oracle_signed"):
            assert (table["share"] <= keep + 1e-6).all()
        if name == "router":
            run = predict_pruned(sst2.subnetwork, sst2.tokenizer, examples, router, keep)
            assert torch.allclose(logits, run.logits, atol=1e-5)
            assert table["tokens"].tolist() == run.lengths.tolist()
    assert done["dense"].predictions["share"].eq(1).all()
    for name in ("static_fisher", "cascade"):
        assert done[name].record["configuration"]["calibration"] == "teaching"
    out = tmp_path / "sweep"
    swept = sweep(cells, out, say=silent)
    assert {o.cell.method: o.metrics for o in swept.outcomes} == {name: r.metrics for name, r in done.items()}
    stored = {result.cell.method: result for result in read_cells(out)}
    for name, result in done.items():
        assert stored[name].predictions["share"].equals(result.predictions["share"])
        assert stored[name].predictions["prediction"].equals(result.predictions["prediction"])


@pytest.mark.slow
def test_masks_of_other_tasks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Under the shared encoder's router, masks from the teaching sets of other tasks; never the own ones."""
    monkeypatch.setenv("DSGP_GLUE_DIR", str(tmp_path / "none"))
    cells = plan_cells(["rte"], ["shared"], ["router", "other_task"], keeps=(0.5,), limit=16, say=silent)
    done = {result.cell.method: result for result in map(run_cell, cells)}
    swapped, own = done["other_task"], done["router"]
    assert set(swapped.record["configuration"]["donors"]) == set(shared_outputs()) - {"rte", "qqp"}
    assert "donors" not in own.record["configuration"]
    assert abs(swapped.predictions["share"].mean() - own.predictions["share"].mean()) < 0.1
    assert not np.allclose(np.stack(swapped.predictions["logits"]), np.stack(own.predictions["logits"]))


@pytest.mark.slow
def test_an_altered_router_is_refused(trained: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    folder = trained_folder("sst2", "frozen", root=root)
    folder.mkdir(parents=True)
    for path in trained_folder("sst2", "frozen", root=trained).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / ROUTER).write_bytes((folder / ROUTER).read_bytes()[:-1] + b"\0")
    with pytest.raises(LabError, match=r"router\.safetensors, altered or damaged"):
        run_cell(Cell("sst2", "frozen", "router", 0.5, split="teaching", limit=4, root=root))
