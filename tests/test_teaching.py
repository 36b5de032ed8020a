"""The teaching sets in `data/teaching`: format, labels, balance, lengths, originality. No model, no torch."""

import gzip
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent / "data" / "teaching"
README = FOLDER / "README.md"
GLUE = Path(os.environ.get("DSGP_GLUE_DIR", "no such folder"))

# Task -> its text columns, its fewest rows, its tags.
COLUMNS = {
    "sst2": ("sentence",),
    "cola": ("sentence",),
    "mrpc": ("sentence1", "sentence2"),
    "stsb": ("sentence1", "sentence2"),
    "mnli": ("premise", "hypothesis"),
    "rte": ("sentence1", "sentence2"),
    "qnli": ("question", "sentence"),
}
MINIMUM = {task: 256 if task == "sst2" else 128 for task in COLUMNS}
TAGS = {
    "sst2": {"plain", "negation", "contrast", "comparison", "irony", "long", "short", "domain"},
    "cola": {
        "simple",
        "agreement",
        "word order",
        "binding",
        "argument structure",
        "island",
        "polarity",
        "auxiliary",
        "comparison",
    },
    "mrpc": {"numbers", "voice", "synonyms", "negation", "names", "detail"},
    "stsb": {"reworded", "detail", "other part", "same topic", "unrelated"},
    "mnli": {"lexical", "negation", "quantity", "time", "modality", "reference"},
    "rte": {"apposition", "quantity", "time", "place", "lexical", "inference"},
    "qnli": {"who", "what", "when", "where", "why", "how"},
}
CLASSES = {task: 3 if task == "mnli" else 2 for task in COLUMNS if task != "stsb"}

every_task = pytest.mark.parametrize("task", COLUMNS)
every_class_task = pytest.mark.parametrize("task", CLASSES)


def rows(task: str) -> list[dict[str, Any]]:
    """Return the rows of a task's file, in order."""
    lines = (FOLDER / f"{task}.jsonl").read_text(encoding="utf-8").split("\n")
    assert lines.pop() == "", "the last line ends with a line break"
    return [json.loads(line) for line in lines]


def texts(task: str) -> Iterator[tuple[str, ...]]:
    """Yield the one or two texts of each row."""
    for row in rows(task):
        yield tuple(row[column] for column in COLUMNS[task])


def words(text: str) -> int:
    """Count the words of a text; what stands between blanks is a word."""
    return len(text.split())


def squeeze(text: str) -> str:
    """Drop case, blanks and punctuation, so that GLUE's tokenised texts compare with natural ones."""
    return re.sub(r"[\W_]+", "", text.casefold())


def test_squeeze_sees_through_tokenisation() -> None:
    assert squeeze("it 's a film -lrb- almost -rrb- . ") == squeeze("It's a film (lrb-almost-rrb).")


def test_there_is_a_file_for_each_task_and_no_other() -> None:
    assert {path.stem for path in FOLDER.glob("*.jsonl")} == set(COLUMNS)


@every_task
def test_keys_and_index(task: str) -> None:
    expected = ["idx", *COLUMNS[task], "label", "tags"]
    for number, row in enumerate(rows(task)):
        assert list(row) == expected
        assert row["idx"] == number


@every_task
def test_enough_rows(task: str) -> None:
    assert len(rows(task)) >= MINIMUM[task]


@every_task
def test_exactly_one_known_tag(task: str) -> None:
    found = [row["tags"] for row in rows(task)]
    assert all(len(tags) == 1 for tags in found)
    assert {tags[0] for tags in found} == TAGS[task]


@every_class_task
def test_labels_are_class_numbers(task: str) -> None:
    for row in rows(task):
        assert type(row["label"]) is int
        assert 0 <= row["label"] < CLASSES[task]


@every_class_task
def test_classes_are_balanced(task: str) -> None:
    """Every class has its share of the rows to within a tenth (45 to 55 % of two classes)."""
    labels = [row["label"] for row in rows(task)]
    for count in Counter(labels).values():
        assert count / len(labels) == pytest.approx(1 / CLASSES[task], rel=0.1)


@every_class_task
def test_classes_are_exactly_balanced_within_each_tag(task: str) -> None:
    counts = Counter((row["tags"][0], row["label"]) for row in rows(task))
    for tag in TAGS[task]:
        assert len({counts[tag, label] for label in range(CLASSES[task])}) == 1, tag


def test_sst2_has_32_rows_or_more_of_each_tag() -> None:
    assert min(Counter(row["tags"][0] for row in rows("sst2")).values()) >= 32


def test_stsb_scores_are_spread_evenly() -> None:
    scores = [row["label"] for row in rows("stsb")]
    assert all(type(score) is float for score in scores)
    counts = Counter(scores)
    assert sorted(counts) == [step / 2 for step in range(11)]
    assert len(set(counts.values())) == 1


@every_task
def test_no_row_occurs_twice(task: str) -> None:
    """A first text may return with another second text, never the whole row, in either order."""
    seen = Counter(frozenset(text.casefold().strip() for text in row) for row in texts(task))
    assert [row for row, count in seen.items() if count > 1] == []


@every_task
def test_the_last_text_of_a_row_is_its_own(task: str) -> None:
    seen = Counter(row[-1].casefold().strip() for row in texts(task))
    assert [text for text, count in seen.items() if count > 1] == []


@every_task
def test_a_pair_holds_two_different_texts(task: str) -> None:
    for row in texts(task):
        assert len({squeeze(text) for text in row}) == len(row)


@every_task
def test_texts_are_clean(task: str) -> None:
    """No blanks at the ends, doubled or of an unusual kind; plain ASCII; an end mark."""
    for row in texts(task):
        for text in row:
            assert text == " ".join(text.split())
            assert text.isascii()
            # Speech in mnli is transcribed as in the original task: lower case, no full stop.
            assert text[-1] in ".?!" or (task == "mnli" and text[0].islower()), text


def test_sst2_lengths_fit_the_tags() -> None:
    for row in rows("sst2"):
        count = words(row["sentence"])
        if row["tags"] == ["long"]:
            assert 30 <= count <= 60, row
        elif row["tags"] == ["short"]:
            assert 1 <= count <= 4, row
        else:
            assert 4 <= count < 30, row


def test_mrpc_lengths_are_those_of_news() -> None:
    for row in texts("mrpc"):
        assert all(14 <= words(text) <= 25 for text in row), row


def test_sst2_has_no_near_duplicates() -> None:
    """No two sentences of five words or more share half of their words (Jaccard)."""
    bags = [frozenset(re.findall(r"\w+", text.casefold())) for (text,) in texts("sst2")]
    bags = [bag for bag in bags if len(bag) >= 5]
    for number, bag in enumerate(bags):
        for other in bags[:number]:
            assert 2 * len(bag & other) < len(bag | other), sorted(bag & other)


@every_task
def test_the_page_shows_the_count_and_a_true_example_of_each_tag(task: str) -> None:
    page = README.read_text(encoding="utf-8")
    assert f"| `{task}.jsonl` | {len(rows(task))} |" in page
    section = page.split(f"### {task}\n")[1].split("\n### ")[0]
    table = {line.split(" | ")[0].strip("| "): line for line in section.splitlines() if line.startswith("| ")}
    shown = {
        row["tags"][0]
        for row, text in zip(rows(task), texts(task), strict=True)
        if (line := table.get(row["tags"][0])) and line.endswith(f"| {' | '.join(text)} | {row['label']:g} |")
    }
    assert shown == TAGS[task]


def glue_texts() -> Iterator[str]:
    """Yield every text of the GLUE files, `<task>/<split>.jsonl.gz`."""
    for path in sorted(GLUE.glob("*/*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield from (value for value in json.loads(line).values() if isinstance(value, str))


@pytest.mark.skipif(not GLUE.is_dir(), reason="DSGP_GLUE_DIR names no folder")
def test_no_text_is_from_glue() -> None:
    """Texts under four words are left out: nobody owns "Awful."."""
    ours = {
        squeeze(text): text for task in COLUMNS for row in texts(task) for text in row if words(text) >= 4
    }
    theirs = {squeeze(text) for text in glue_texts()}
    assert theirs, "the folder holds GLUE files"
    assert [text for key, text in ours.items() if key in theirs] == []
