"""Tasks, loaders, metrics, and what happens to wrong data."""

from __future__ import annotations

import gzip
import json
import math

import pytest

from dsgp_lab.errors import LabError
from dsgp_lab.tasks import TASKS, Examples, get_task, load_examples, load_teaching, metrics


@pytest.fixture
def glue(tmp_path, monkeypatch):
    """A GLUE folder to be filled by ``write(task, split, rows)``; nothing else is read."""
    monkeypatch.setenv("DSGP_GLUE_DIR", str(tmp_path))

    def write(task, split, rows, ending=".jsonl.gz"):
        folder = tmp_path / task
        folder.mkdir(exist_ok=True)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        data = text.encode() if ending == ".jsonl" else gzip.compress(text.encode())
        (folder / f"{split}{ending}").write_bytes(data)

    return write


def reviews(n):
    return Examples(get_task("sst2"), "train", "test", tuple((f"text {i}",) for i in range(n)), (0,) * n)


def test_nine_tasks_with_the_labels_of_glue():
    assert set(TASKS) == {"cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli"}
    assert get_task("mnli").labels == ("entailment", "neutral", "contradiction")
    assert get_task("rte").labels == get_task("qnli").labels == ("entailment", "not_entailment")
    assert get_task("wnli").labels == ("not_entailment", "entailment")
    assert get_task("mnli").dev_splits == ("validation_matched", "validation_mismatched")
    assert get_task("stsb").is_regression
    assert get_task("stsb").num_labels == 1
    assert [task.name for task in TASKS.values() if not task.is_pair] == ["cola", "sst2"]


def test_unknown_task_lists_the_names():
    with pytest.raises(LabError, match=r"Got task 'sst3'\. Allowed: cola, sst2, .*wnli"):
        get_task("sst3")


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz"])
def test_loads_from_the_folder(glue, ending):
    rows = [{"sentence": f"line {i}\u2028 ", "label": i % 2, "idx": i} for i in range(5)]
    glue("sst2", "validation", rows, ending)
    examples = load_examples("sst2", "validation")
    assert (len(examples), examples.source, examples.split) == (5, "DSGP_GLUE_DIR", "validation")
    assert examples.texts[1] == ("line 1\u2028 ",)
    assert examples.labels == (0, 1, 0, 1, 0)
    assert len(load_examples("sst2", "validation", limit=2)) == 2


def test_pairs_and_scores(glue):
    glue("stsb", "train", [{"sentence1": "a", "sentence2": "b", "label": 3.8, "idx": 0}])
    examples = load_examples("stsb", "train")
    assert examples.texts == (("a", "b"),)
    assert examples.labels == (3.8,)


@pytest.mark.parametrize("split", ["test", "validation", "dev"])
def test_unknown_split(glue, split):
    with pytest.raises(LabError, match="train, validation_matched, validation_mismatched"):
        load_examples("mnli", split)


@pytest.mark.parametrize("limit", [0, -1, 1.5, "3", True])
def test_bad_limit(glue, limit):
    with pytest.raises(LabError, match="Got limit="):
        load_examples("sst2", "train", limit)


def test_missing_glue_folder_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("DSGP_GLUE_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(LabError, match=r"nowhere does not exist\..*unset it to load from the hub"):
        load_examples("sst2", "validation")
    monkeypatch.setenv("DSGP_GLUE_DIR", str(tmp_path))
    with pytest.raises(LabError, match=r"sst2/validation\.jsonl\.gz does not exist"):
        load_examples("sst2", "validation")


def test_neither_folder_nor_hub_says_what_to_do(monkeypatch):
    import datasets

    def no_network(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.delenv("DSGP_GLUE_DIR", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", no_network)
    with pytest.raises(LabError, match=r"hub does not answer \(ConnectionError\).*load_teaching"):
        load_examples("sst2", "validation")


def test_loads_from_the_hub(monkeypatch):
    import datasets

    monkeypatch.delenv("DSGP_GLUE_DIR", raising=False)
    asked = []

    def load_dataset(name, task, split):
        asked.append((name, task, split))
        return datasets.Dataset.from_dict({"sentence": ["a", "b"], "label": [0, 1], "idx": [0, 1]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    examples = load_examples("sst2", "validation", limit=1)
    assert (examples.source, examples.texts, examples.labels) == ("hub", (("a",),), (0,))
    assert asked == [("nyu-mll/glue", "sst2", "validation")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a", "label": 0}, r"columns text, label in row 2.*sentence, label for sst2"),
        ({"sentence": "a"}, r"columns sentence in row 2.*sentence, label"),
        (["a", 0], r"columns list in row 2"),
        ({"sentence": None, "label": 0}, "a text that is no string in row 2"),
        ({"sentence": "a", "label": 2}, r"label 2 in row 2.*0 \(negative\), 1 \(positive\)"),
        ({"sentence": "a", "label": -1}, "label -1"),
        ({"sentence": "a", "label": "1"}, "label '1'"),
        ({"sentence": "a", "label": True}, "label True"),
        ({"sentence": "a", "label": 1, "tags": "plain"}, "tags 'plain' in row 2"),
    ],
)
def test_wrong_rows_are_named(glue, row, message):
    glue("sst2", "train", [{"sentence": "fine", "label": 1}, row])
    with pytest.raises(LabError, match=message):
        load_examples("sst2", "train")


@pytest.mark.parametrize("label", [5.1, -0.1, math.nan, None])
def test_scores_out_of_range(glue, label):
    glue("stsb", "train", [{"sentence1": "a", "sentence2": "b", "label": label}])
    with pytest.raises(LabError, match="a number from 0 to 5"):
        load_examples("stsb", "train")


def test_unreadable_files(glue, tmp_path):
    folder = tmp_path / "sst2"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"sentence": "a", "label": 0}\n{"sentence"\n')
    with pytest.raises(LabError, match=r"train\.jsonl, unreadable at line 2"):
        load_examples("sst2", "train")
    (folder / "train.jsonl").write_bytes(b'{"sentence": "caf\xe9", "label": 0}\n')
    with pytest.raises(LabError, match="in UTF-8"):
        load_examples("sst2", "train")
    (folder / "validation.jsonl.gz").write_bytes(b"not gzip")
    with pytest.raises(LabError, match=r"validation\.jsonl\.gz, unreadable"):
        load_examples("sst2", "validation")
    (folder / "train.jsonl").write_text("\n")
    with pytest.raises(LabError, match="no rows in"):
        load_examples("sst2", "train")


def test_teaching_set_with_tags(tmp_path, monkeypatch):
    monkeypatch.setenv("DSGP_DATA_DIR", str(tmp_path))
    (tmp_path / "teaching").mkdir()
    rows = [
        {"idx": 0, "sentence": "Fine.", "label": 1, "tags": ["short"]},
        {"idx": 1, "sentence": "Not bad.", "label": 1, "tags": ["negation"]},
    ]
    (tmp_path / "teaching" / "sst2.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    examples = load_teaching("sst2")
    assert examples.tags == ("short", "negation")
    assert examples.where("negation").texts == (("Not bad.",),)
    with pytest.raises(LabError, match=r"tag 'irony'\. Allowed: negation, short"):
        examples.where("irony")
    with pytest.raises(LabError, match=r"no teaching set for mrpc.*Allowed: sst2"):
        load_teaching("mrpc")


def test_tags_of_a_set_without_tags():
    with pytest.raises(LabError, match="sst2 train has none"):
        reviews(2).where("plain")


def test_missing_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DSGP_DATA_DIR", str(tmp_path / "gone"))
    with pytest.raises(LabError, match="gone, which does not exist"):
        load_teaching("sst2")


def test_sample_and_split_off():
    examples = reviews(20)
    assert examples.sample(5, seed=1) == examples.sample(5, seed=1)
    assert examples.sample(5, seed=1) != examples.sample(5, seed=2)
    rest, held_out = examples.split_off(6, seed=3)
    assert (len(rest), len(held_out)) == (14, 6)
    assert set(rest.texts) | set(held_out.texts) == set(examples.texts)
    for n in (21, -1, 1.0, True):
        with pytest.raises(LabError, match="from 0 to 20"):
            examples.sample(n)


def test_labels_must_match_texts():
    with pytest.raises(LabError, match="2 texts with 1 labels"):
        Examples(get_task("sst2"), "train", "test", (("a",), ("b",)), (0,))


def test_metrics_against_known_values():
    predictions, labels = [1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 1]
    assert metrics("mrpc", predictions, labels) == pytest.approx({"accuracy": 4 / 6, "f1": 4 / 6})
    # tp 2, tn 2, fp 1, fn 1: (2 * 2 - 1 * 1) / sqrt(3 * 3 * 3 * 3)
    assert metrics("cola", predictions, labels) == pytest.approx({"matthews": 3 / 9})
    found = metrics("stsb", [1.0, 2.0, 4.0], [1.0, 2.0, 3.0])
    assert found == pytest.approx({"pearson": 3 / math.sqrt(28 / 3), "spearman": 1.0})
    assert metrics(get_task("mnli"), [2, 0], [2, 1]) == {"accuracy": 0.5}


def test_metrics_without_variance_are_zero():
    assert metrics("cola", [1, 1], [1, 0]) == {"matthews": 0.0}
    assert metrics("stsb", [2.0, 2.0], [1.0, 4.0]) == {"pearson": 0.0, "spearman": 0.0}
    assert metrics("mrpc", [0, 0], [0, 0]) == {"accuracy": 1.0, "f1": 0.0}


def test_metrics_need_as_many_predictions_as_labels():
    with pytest.raises(LabError, match="1 predictions for 2 labels"):
        metrics("sst2", [1], [1, 0])
    with pytest.raises(LabError, match="0 predictions"):
        metrics("sst2", [], [])
