"""Methods on a user's own file: figures against their definitions, what is written, what is refused."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from dsgp_lab import Anatomy, Lab, LabError, cli
from dsgp_lab.checkpoints import update_card
from dsgp_lab.evaluate import calibration_texts, own
from dsgp_lab.evaluate.methods import METHODS, ROUTED
from dsgp_lab.evaluate.own import Evaluation, evaluate_file, evaluate_own
from dsgp_lab.evaluate.paired import paired_difference
from dsgp_lab.evaluate.pruned import predict_pruned
from dsgp_lab.evaluate.statistics import Interval, bootstrap_metric
from dsgp_lab.models import TaskModel, load_task_model
from dsgp_lab.own_data import OwnData, read_own
from dsgp_lab.regimes import ROUTER, load_trained, trained_folder
from dsgp_lab.router import Router, RouterShape
from dsgp_lab.tasks import Examples, data_folder, get_task, load_teaching, metrics

N = 24


def save_router(folder: Path, anatomy: Anatomy, twin: bool, seed: int) -> None:
    """An untrained router that looks at its input, or its twin, in a regime's folder."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    router = Router(RouterShape.of(anatomy, "constant" if twin else "layerwise"))
    router.start_from_ranking(torch.rand(router.bias.shape))
    torch.nn.init.normal_(router.w2, std=0.3)
    router.save(folder / ROUTER)
    update_card(folder, {"task": "sst2"})


@pytest.fixture(scope="module")
def root(sst2: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of the frozen regime: toy routers for the embedded model."""
    home = tmp_path_factory.mktemp("checkpoints")
    for twin in (False, True):
        save_router(trained_folder("sst2", "frozen", twin, home), sst2.anatomy, twin, seed=1)
    return home


@pytest.fixture(scope="module")
def teaching() -> OwnData:
    """Some of the project's own sentences as if they were a user's."""
    return OwnData(load_teaching("sst2").sample(N))


@pytest.fixture(scope="module")
def file(teaching: OwnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a file."""
    path = tmp_path_factory.mktemp("own") / "reviews.csv"
    texts = [text for (text,) in teaching.examples.texts]
    labels = teaching.examples.labels
    pd.DataFrame({"sentence": texts, "label": labels, "id": range(N)}).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module", autouse=True)
def light() -> Iterator[None]:
    """Load the dense model once, and calibrate on few sentences of the project's own."""
    loaded: TaskModel = load_task_model("sst2")
    few = load_teaching("sst2").sample(8, seed=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own, "load_task_model", lambda task: loaded)
        patch.setattr(own, "calibration_split", lambda task: "teaching")
        patch.setattr(calibration_texts, "long_sample", lambda examples: few)
        yield


def test_a_router_against_its_definition(teaching: OwnData, root: Path) -> None:
    made = evaluate_own(teaching, "router", 0.5, root=root)
    trained = load_trained("sst2", "frozen", root=root)
    sub, tokenizer, labels = trained.subnetwork(), trained.own.tokenizer, teaching.examples.labels
    assert trained.router is not None
    run = predict_pruned(sub, tokenizer, teaching.examples, trained.router, 0.5)
    lab = Lab(trained.own)
    dense = tuple(lab.predict(text).index for (text,) in teaching.examples.texts)
    pruned = tuple(run.logits.argmax(-1).tolist())
    assert (made.dense, made.pruned) == (dense, pruned)
    assert made.dense != made.pruned  # else the test shows little
    assert made.shares == tuple(run.shares.tolist())
    assert made.macs == pytest.approx(float(run.shares.mean()))
    assert made.agreement == sum(a == b for a, b in zip(dense, pruned, strict=True)) / N
    assert made.metrics == {
        "accuracy": (bootstrap_metric("sst2", dense, labels), bootstrap_metric("sst2", pruned, labels))
    }
    assert made.difference == paired_difference("sst2", pruned, dense, labels)
    assert made.difference.value == pytest.approx(
        metrics("sst2", pruned, labels)["accuracy"] - metrics("sst2", dense, labels)["accuracy"]
    )
    assert (made.task, made.method, made.regime, made.keep, made.n) == ("sst2", "router", "frozen", 0.5, N)


def test_the_same_again(teaching: OwnData, root: Path) -> None:
    """Nothing is left behind by a run, and chance is drawn from a seed."""
    few = OwnData(teaching.examples.take(range(4)))
    for method in ("router", "random"):
        first, second = (evaluate_own(few, method, 0.5, root=root) for _ in range(2))
        assert (first.pruned, first.shares) == (second.pruned, second.shares)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "other_task"])
def test_every_method(teaching: OwnData, root: Path, method: str) -> None:
    made = evaluate_own(OwnData(teaching.examples.take(range(4))), method, 0.7, root=root)
    assert len(made.pruned) == len(made.dense) == len(made.shares) == 4
    notices = " ".join(made.notices)
    assert ("means over texts of sst2 teaching" in notices) == method.startswith("static")
    assert ("threshold was chosen on texts of sst2 teaching" in notices) == method.startswith("cascade")
    assert ("own cost is not charged" in notices) == method.startswith("oracle")
    if method == "dense":
        assert (made.keep, made.macs, made.agreement) == (1.0, 1.0, 1.0)
        assert made.difference == Interval(0.0, 0.0, 0.0, 4)
    elif method not in ROUTED:  # those meet a budget on average, once calibrated
        assert all(0.65 < share <= 0.7 + 1e-6 for share in made.shares)


def test_a_cascade_of_a_regression_says_that_the_twin_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "load_task_model", load_task_model)
    few = OwnData(load_teaching("stsb").take(range(3)))
    cascade, twin = (evaluate_own(few, method, 0.5) for method in ("cascade", "twin"))
    assert cascade.pruned == twin.pruned
    notices = " ".join(cascade.notices)
    assert "the twin's mask of this budget ran instead" in notices
    assert "threshold" not in notices


def test_joint_weights_come_first_and_dense_stays_dense(sst2: Lab, teaching: OwnData, tmp_path: Path) -> None:
    save_router(trained_folder("sst2", "frozen", root=tmp_path), sst2.anatomy, twin=False, seed=1)
    joint = trained_folder("sst2", "joint", root=tmp_path)
    shutil.copytree(data_folder() / "checkpoints" / "sst2", joint)
    save_router(joint, sst2.anatomy, twin=False, seed=2)
    few = OwnData(teaching.examples.take(range(6)))
    default, frozen = (evaluate_own(few, "router", 0.5, regime=r, root=tmp_path) for r in (None, "frozen"))
    assert (default.regime, frozen.regime) == ("joint", "frozen")
    assert default.shares != frozen.shares
    assert default.dense == frozen.dense
    assert evaluate_own(few, "random", root=tmp_path).regime == "frozen"
    assert evaluate_own(few, "dense", regime="joint", root=tmp_path).regime == "joint"


def test_what_is_refused(teaching: OwnData, root: Path, tmp_path: Path) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"method": "michel"}, r"Got method 'michel'\. Allowed: dense, random, .*router"),
        ({"method": "other_task"}, r"Got method 'other_task' for one task's file\. Allowed: dense"),
        ({"keep": 0}, r"Got keep=0\. Allowed: a number above 0"),
        ({"regime": "warm"}, r"Got regime='warm'\. Allowed: frozen, joint"),
        ({"regime": "adaptive"}, "no adaptive checkpoint for sst2.*Allowed: frozen, frozen_twin"),
        ({"root": tmp_path}, "no frozen checkpoint for sst2.*dsgp-lab train-router sst2"),
        ({"method": "twin", "root": tmp_path}, "no frozen_twin checkpoint for sst2"),
    ]
    for changes, pattern in wrong:
        with pytest.raises(LabError, match=pattern):
            evaluate_own(teaching, **{"root": root, **changes})


def test_notices(teaching: OwnData) -> None:
    texts = (("warm " * 200,), ("\U0001f600",), *teaching.examples.texts)
    examples = Examples(get_task("sst2"), "own", "x.csv", texts, (1,) * len(texts))
    made = evaluate_own(OwnData(examples, ("Ignored column: id.",)), "random", 0.6)
    assert made.notices == (
        "Ignored column: id.",
        "1 of 26 examples were cut to 128 tokens.",
        "1 of 26 examples hold nothing that the model can read.",
        "Fewer than 30 examples: the intervals are too narrow.",
        "All labels are the same: the figures say nothing of the other answers.",
    )
    enough = OwnData(load_teaching("sst2").sample(30))
    assert evaluate_own(enough, "random", 0.6).notices == ()


@pytest.fixture(scope="module")
def scores() -> Evaluation:
    """A regression result made by hand."""
    texts = (("a", 'b "c"'), ("d\r", "e"), ("f\n", "g,h"))
    labels, dense, pruned = (0.0, 2.5, 5.0), (0.5, 2.0, 4.0), (1.0, 1.5, 2.0)
    dense_scores, pruned_scores = metrics("stsb", dense, labels), metrics("stsb", pruned, labels)
    columns = {
        name: (Interval(dense_scores[name], 0.5, 1.0, 3), Interval(pruned_scores[name], 0.25, 1.0, 3))
        for name in ("pearson", "spearman")
    }
    return Evaluation(
        examples=Examples(get_task("stsb"), "own", "pairs.tsv", texts, labels),
        method="router",
        regime="joint",
        keep=0.5,
        metrics=columns,
        difference=paired_difference("stsb", pruned, dense, labels),
        dense=dense,
        pruned=pruned,
        shares=(0.4, 0.5, 0.6),
        notices=("A <notice>.",),
    )


def test_regression_agrees_by_correlation(scores: Evaluation) -> None:
    assert scores.agreement == pytest.approx(metrics("stsb", scores.pruned, scores.dense)["pearson"])
    assert scores.macs == pytest.approx(0.5)
    text = str(scores)
    assert text.startswith("stsb, pairs.tsv: router, weights joint\n")
    for name in ("pearson", "spearman", "difference in pearson", "correlation with dense"):
        assert re.search(rf"^{name} ", text, re.MULTILINE)
    assert "3 examples, budget 0.5. In brackets: 95% intervals" in text
    assert repr(scores) == text
    assert "| share of the encoder's MACs | 1.0000 | 0.5000 |" in scores.report().markdown()
    assert "A &lt;notice&gt;." in scores._repr_html_()


def test_record_is_json(scores: Evaluation) -> None:
    record = scores.record()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert list(record) == [
        *("task", "file", "method", "regime", "keep", "n", "macs", "agreement", "confidence"),
        *("metrics", "difference", "notices"),
    ]
    assert record["metrics"]["spearman"]["pruned"]["value"] == 1.0
    assert record["difference"] == {
        "metric": "pearson",
        "value": scores.difference.value,
        "low": scores.difference.low,
        "high": scores.difference.high,
    }


def test_written_predictions_read_as_data(scores: Evaluation, tmp_path: Path) -> None:
    scores.save_predictions(tmp_path / "p.csv")
    again = read_own(tmp_path / "p.csv", "stsb")
    assert (again.examples.texts, again.examples.labels) == (scores.examples.texts, scores.examples.labels)
    assert again.notices[-1] == "Ignored columns: dense, pruned, macs."
    table = pd.read_csv(tmp_path / "p.csv")
    assert table["pruned"].tolist() == list(scores.pruned)


def test_a_file_and_its_predictions(file: Path, teaching: OwnData, root: Path, tmp_path: Path) -> None:
    made = evaluate_file(file, "sst2", "twin", 0.5, predictions=tmp_path / "p.csv", root=root)
    assert made.examples.texts == teaching.examples.texts
    assert made.notices[0] == "Ignored column: id."
    table = pd.read_csv(tmp_path / "p.csv")
    assert list(table) == ["sentence", "label", "dense", "pruned", "macs"]
    names = ("negative", "positive")
    for column, values in (
        ("label", made.examples.labels),
        ("dense", made.dense),
        ("pruned", made.pruned),
    ):
        assert table[column].tolist() == [names[int(value)] for value in values]
    assert table["macs"].tolist() == pytest.approx(list(made.shares))
    assert table["sentence"].tolist() == [text for (text,) in made.examples.texts]


def test_predictions_that_cannot_be_written_are_refused_first(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is run; the data are never overwritten."""
    monkeypatch.setattr(own, "evaluate_own", lambda *_, **__: pytest.fail("ran first"))
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "link.csv").symlink_to(file)
    before = file.read_bytes()
    for target, pattern in (
        (file, "the file with the data"),
        (tmp_path / "link.csv", "the file with the data"),
        (tmp_path / "p.txt", r"the ending '\.txt'.*Allowed: a \.csv file of its own"),
        (tmp_path / "none" / "p.csv", "no folder .*none"),
        (tmp_path / "folder.csv", "a folder"),
    ):
        with pytest.raises(LabError, match=pattern):
            evaluate_file(file, "sst2", predictions=target)
    assert file.read_bytes() == before


def test_a_full_disk_is_one_sentence(scores: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(LabError, match=r"which cannot be written \(No space left on device\)"):
        scores.save_predictions("p.csv")


class TestCommand:
    """`dsgp-lab evaluate`."""

    @pytest.fixture(autouse=True)
    def arguments(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def call(self, *arguments: str) -> tuple[int, str, str]:
        self.monkeypatch.setattr(sys, "argv", ["dsgp-lab", "evaluate", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *self.capsys.readouterr()

    def test_table_and_json(self, file: Path, root: Path, tmp_path: Path) -> None:
        options = ["sst2", f"--file={file}", "--keep=0.5", f"--root={root}"]
        code, out, err = self.call(*options, f"--predictions={tmp_path / 'p.csv'}")
        assert (code, err) == (0, "")
        assert out.startswith("sst2, reviews.csv: router, weights frozen\n")
        assert len(pd.read_csv(tmp_path / "p.csv")) == N
        code, out, err = self.call(*options, "--method=dense", "--json")
        assert (code, err) == (0, "")
        record = json.loads(out)
        assert (record["task"], record["method"], record["n"], record["macs"]) == ("sst2", "dense", N, 1.0)

    def test_mistakes_are_one_sentence(self, file: Path, tmp_path: Path) -> None:
        quoted = tmp_path / "a.tsv"
        quoted.write_text('sentence\tlabel\n"a warm film\t1\n')
        for options, pattern in (
            ([f"--file={tmp_path / 'none.csv'}"], "does not exist"),
            ([f"--file={quoted}"], "unreadable from line 2"),
            ([f"--file={quoted}", "--quoting=some"], "Got quoting='some'"),
            ([f"--file={quoted}", "--quoting=none", "--regime=warm"], "Got regime='warm'"),
            ([f"--file={file}", "--keep=1.5"], "Got keep=1.5"),
            ([f"--file={file}", "--method=magic"], "Got method 'magic'"),
        ):
            code, out, err = self.call("sst2", *options)
            assert (code, out) == (2, "")
            assert re.fullmatch(rf"Got .*{re.escape(pattern.removeprefix('Got '))}.*\n", err), err
        assert self.call("sst2")[0] == 2
