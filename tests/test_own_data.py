"""A user's own files: three formats that read alike, and one sentence for everything that can be wrong."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsgp_lab.errors import LabError
from dsgp_lab.own_data import read_own

Write = Callable[[str, str | bytes], Path]

PAIRS = [
    ('He said "no".', "He, too, said no.", 1),
    ('"', "one\ttab, one\nline break", 0),
    ("NA", "null", 1),
    ("  spaces  around ", "caf\u00e9 \U0001f600 \u2028 end", 0),
    ("=1+1", "'", 0),
    ("a\r\nb", "\\n is no line break", 1),
]
"""Texts that careless readers spoil: quotes, delimiters, line breaks, words that stand for missing values."""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file of this name, text in UTF-8."""

    def make(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return make


def table(rows: list[tuple[Any, ...]], columns: list[str], delimiter: str = ",") -> str:
    """Rows as a spreadsheet writes them."""
    made = io.StringIO()
    csv.writer(made, delimiter=delimiter).writerows([columns, *rows])
    return made.getvalue()


def refused(path: Path, pattern: str, task: str = "sst2", quoting: Any = "minimal") -> None:
    """A LabError that matches, and that names the file's place."""
    with pytest.raises(LabError, match=pattern) as caught:
        read_own(path, task, quoting)
    assert str(path) in caught.value.got


COLUMNS = ["sentence1", "sentence2", "label"]
FORMATS = {
    "a.jsonl": "".join(json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n" for row in PAIRS),
    "b.JSONL": "\r\n".join(
        json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=False) for row in PAIRS
    ),
    "c.csv": table(PAIRS, COLUMNS),
    "d.tsv": table(PAIRS, COLUMNS, "\t"),
    "pandas.csv": pd.DataFrame(PAIRS, columns=COLUMNS).to_csv(index=False),
    "pandas.tsv": pd.DataFrame(PAIRS, columns=COLUMNS).to_csv(index=False, sep="\t"),
    "order.csv": table([row[::-1] for row in PAIRS], COLUMNS[::-1]),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("name", FORMATS)
def test_all_formats_give_the_same_examples(write: Write, name: str, mark: bytes, packed: bool) -> None:
    data = mark + FORMATS[name].encode()
    path = write(name + ".gz", gzip.compress(data)) if packed else write(name, data)
    examples = read_own(path, "mrpc").examples
    assert examples.texts == tuple((a, b) for a, b, _ in PAIRS)
    assert examples.labels == tuple(label for *_, label in PAIRS)
    assert (examples.source, examples.split, examples.task.name) == (path.name, "own", "mrpc")


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(
    str.strip
)


@given(st.lists(st.tuples(TEXTS, TEXTS, st.integers(0, 1)), min_size=1, max_size=5), st.sampled_from(",\t"))
def test_whatever_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, int]], delimiter: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any.{'csv' if delimiter == ',' else 'tsv'}"
    path.write_bytes(table(rows, COLUMNS, delimiter).encode())
    examples = read_own(path, "mrpc").examples
    assert examples.texts == tuple(row[:2] for row in rows)
    assert examples.labels == tuple(row[2] for row in rows)


WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip)


@given(st.lists(st.tuples(WORDS, st.integers(0, 1)), min_size=1, max_size=5))
def test_without_quoting_every_quote_is_text(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "plain.tsv"
    path.write_bytes("".join(f"{text}\t{label}\n" for text, label in [("sentence", "label"), *rows]).encode())
    found = read_own(path, "sst2", quoting="none").examples
    assert (found.texts, found.labels) == (tuple((t,) for t, _ in rows), tuple(label for _, label in rows))


def test_a_lone_quote_is_never_swallowed(write: Write) -> None:
    """As GLUE's TSV files have it: an error, or where it closes by chance a notice; "none" reads it."""
    lone = write("lone.tsv", 'sentence\tlabel\nfine\t1\n" a warm film\t1\na dull one\t0\n')
    refused(lone, "unreadable from line 3 on .*quoting none")
    assert read_own(lone, "sst2", "none").examples.texts[1] == ('" a warm film',)
    closing = write("closing.tsv", 'sentence\tlabel\n"a warm film\t1\na dull one"\t0\n')
    found = read_own(closing, "sst2")
    assert found.examples.texts == (("a warm film\t1\na dull one",),)
    assert found.notices == (
        "1 row over several lines, the first in line 2: right if texts hold line breaks; if the file has no"
        " quoting, read it with quoting none.",
    )
    inside = write("inside.csv", 'sentence,label\na "warm" film,1\n')
    assert read_own(inside, "sst2").examples.texts == (('a "warm" film',),)


def test_what_is_passed_over_is_said(write: Write) -> None:
    path = write("a.csv", "\nidx,sentence,label,\n\n0,warm,1,\n1,dull \ufffd,0,\n\n")
    assert read_own(path, "sst2").notices == (
        "Passed over 3 empty lines.",
        "Ignored columns: idx, one without a name.",
        "1 text with the character U+FFFD: letters were lost before this file.",
    )
    rows = [{"sentence": "warm", "label": 1}, {"tags": ["x"], "sentence": "dull", "label": 0}]
    path = write("a.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n")
    assert read_own(path, "sst2").notices == ("Passed over 1 empty line.", "Ignored column: tags.")
    assert read_own(write("b.csv", "label,sentence\n1,warm\n"), "sst2").notices == ()


@pytest.mark.parametrize(
    ("task", "written", "read"),
    [
        ("sst2", ["0", "1", "1.0", " 1", "negative", "positive "], (0, 1, 1, 1, 0, 1)),
        ("mnli", ["contradiction", "2", "neutral"], (2, 2, 1)),
        ("rte", ["entailment", "not_entailment"], (0, 1)),
        ("wnli", ["entailment", "not_entailment"], (1, 0)),
        ("stsb", ["0", "3.8", "5", "4.25"], (0.0, 3.8, 5.0, 4.25)),
    ],
)
def test_labels_as_numbers_or_names(
    write: Write, task: str, written: list[str], read: tuple[float, ...]
) -> None:
    columns = {"sst2": ["sentence"], "mnli": ["premise", "hypothesis"]}.get(task, ["sentence1", "sentence2"])
    path = write("a.csv", table([(*columns, label) for label in written], [*columns, "label"]))
    labels = read_own(path, task).examples.labels
    assert labels == read
    assert all(type(label) is (float if task == "stsb" else int) for label in labels)


def test_labels_in_json(write: Write) -> None:
    path = write(
        "a.jsonl", "".join(f'{{"sentence": "a", "label": {v}}}\n' for v in ("1", "1.0", '"1"', '"negative"'))
    )
    assert read_own(path, "sst2").examples.labels == (1, 1, 1, 0)


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("2", "2"),
        ("-1", "-1"),
        ("0.5", "0.5"),
        ('"good"', "good"),
        ('""', ""),
        ('"nan"', "nan"),
        ("NaN", "nan"),
        ("null", "None"),
        ("true", "True"),
        ("[1]", r"\[1\]"),
        ("1e999", "inf"),
        ("9" * 400, "9999"),
        ("Infinity", "inf"),
    ],
)
def test_labels_that_are_not_the_tasks(write: Write, label: str, shown: str) -> None:
    path = write("a.jsonl", f'{{"sentence": "a", "label": 1}}\n\n{{"sentence": "a", "label": {label}}}\n')
    refused(path, rf"Got label '?{shown}.* in line 3 of .*Allowed: 0 or negative, 1 or positive\.")
    if label.startswith('"'):
        path = write("a.csv", f'sentence,label\n"a\nb",1\na,{label}\n')
        refused(path, rf"Got label '{shown}' in line 4 of .*a\.csv")


def test_hidden_labels_of_glue(write: Write) -> None:
    refused(write("test.tsv", "sentence\tlabel\na film\t-1\n"), "label '-1' in line 2.*hidden ones")


@pytest.mark.parametrize("label", ["5.1", "-0.1", "nan", "", "high"])
def test_scores_out_of_range(write: Write, label: str) -> None:
    path = write("a.csv", f"sentence1,sentence2,label\na,b,{label}\n")
    refused(path, f"label '{label}' in line 2 .*a number from 0 to 5", "stsb")


@pytest.mark.parametrize(
    ("name", "content", "pattern"),
    [
        ("a.csv", "", "an empty file.*sentence, label"),
        ("a.csv", " \r\n\n", "an empty file"),
        ("a.jsonl", "\n", "an empty file"),
        ("a.tsv", codecs.BOM_UTF8, "an empty file"),
        ("a.csv", "sentence,label\n\n", "with a header and no rows"),
        (
            "a.csv",
            "text,label\na,1\n",
            "columns 'text', 'label' in line 1 .*sentence, label for sst2, each once",
        ),
        ("a.csv", "sentence, label\na,1\n", "columns 'sentence', ' label'"),
        ("a.csv", "sentence,label,label\na,1,0\n", "each once"),
        ("a.csv", "sentence;label\na;1\n", "'sentence;label' in line 1.*',' between all fields"),
        ("a.tsv", "sentence,label\na,1\n", r"'\\t' between all fields"),
        ("a.csv", "a film,1\n" + "b" * 300 + ",0\n", "columns 'a film', '1' in line 1"),
        ("a.csv", "x" * 300 + ",0\n", r"columns 'x{100,116}\.\.\. in line 1"),
        (
            "a.csv",
            "sentence,label\na,1\nwarm, funny,1\n",
            "3 fields in line 3 of .*Allowed: 2.*double quotes",
        ),
        ("a.csv", "sentence,label\na\n", "1 field in line 2"),
        ("a.csv", 'sentence,label\n"a",1\n"b"c,1\n', "unreadable from line 3 on"),
        ("a.csv", 'sentence,label\n"a,1\nb,1\n', "unreadable from line 2 on"),
        ("a.csv", f"sentence,label\n{'a' * 200_000},1\n", "from line 2 on .*field larger"),
        ("a.csv", "sentence,label\n ,1\n", "an empty text in column sentence in line 2"),
        ("a.csv", "sentence,label\n,1\n", "an empty text in column sentence in line 2"),
        ("a.jsonl", '{"sentence": "a", "label": 1}\n{"sentence"\n', "unreadable at line 2"),
        ("a.jsonl", '["a", 1]\n', r"unreadable at line 1 \(a list\)\. Allowed: one JSON object a line"),
        ("a.jsonl", "[" * 100_000, "unreadable at line 1"),
        ("a.jsonl", '{"sentence": "a", "label": 1, "label": 0}\n', "a key occurs twice"),
        (
            "a.jsonl",
            '{"sentence": "a", "label": 1}\n{"sentence": "a"}\n',
            "columns 'sentence' in line 2 of.*rename",
        ),
        ("a.jsonl", "{}\n", "columns none in line 1 of"),
        ("a.jsonl", '{"sentence": null, "label": 1}\n', "None in column sentence in line 1"),
        ("a.jsonl", '{"sentence": 7, "label": 1}\n', "7 in column sentence in line 1"),
        ("a.jsonl", '{"sentence": "\\t", "label": 1}\n', "an empty text in column sentence in line 1"),
        ("a.jsonl", '{"sentence": "ab\\ud800", "label": 1}\n', r"half of a surrogate pair \(character 3\)"),
        ("a.txt", "sentence,label\na,1\n", r"the ending '\.txt'\. Allowed: \.jsonl, \.csv, \.tsv, each also"),
        ("a", "sentence,label\na,1\n", "the ending ''"),
        ("a.gz", b"", "the ending ''"),
        ("a.csv.gz", b"sentence,label\na,1\n", "which cannot be read"),
        ("a.csv.gz", gzip.compress(b"sentence,label\na,1\n", mtime=0)[:-9], "which cannot be read"),
    ],
)
def test_what_is_wrong_is_named(write: Write, name: str, content: str | bytes, pattern: str) -> None:
    refused(write(name, content), pattern)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
@pytest.mark.parametrize(
    ("data", "pattern"),
    [
        ("sentence,label\nfine,1\ncaf\u00e9,1\n".encode("latin-1"), "byte 26, in line 3, is 0xe9, no UTF-8"),
        ("\ufeffcaf\u00e9,1\n".encode() + "caf\u00e9".encode("cp1252"), "byte 15, in line 2, is 0xe9"),
        (
            codecs.BOM_UTF16_LE + "sentence,label\na,1\n".encode("utf-16-le"),
            "byte 1, in line 1, is 0xff, the mark of UTF-16",
        ),
        ("sentence,label\na,1\n".encode("utf-16-be"), "byte 1, in line 1, is 0x00, no character of a text"),
        (b"sentence,label\na,1\nb\0,1", "byte 21, in line 3, is 0x00"),
        ("sentence,label\ncaf\u00e9".encode()[:-1], "byte 19, in line 2, is 0xc3"),
    ],
)
def test_other_encodings_are_named(write: Write, name: str, data: bytes, pattern: str) -> None:
    refused(write(name, data), f"whose {pattern}.*Allowed: UTF-8 from the first byte to the last")


def test_no_such_file(tmp_path: Path) -> None:
    refused(tmp_path / "none.csv", "which does not exist")
    (tmp_path / "folder.csv").mkdir()
    refused(tmp_path / "folder.csv", "a folder")


def test_wrong_arguments(write: Write) -> None:
    path = write("a.csv", "sentence,label\na,1\n")
    with pytest.raises(LabError, match=r"Got task 'imdb'"):
        read_own(path, "imdb")
    with pytest.raises(LabError, match=r"Got quoting='all'\. Allowed: minimal or none"):
        read_own(path, "sst2", quoting="all")  # type: ignore[arg-type]
