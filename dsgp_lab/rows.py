"""Rows of labelled data: where they are read from, and what they must hold."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsgp_lab.errors import LabError
from dsgp_lab.hub import hub_access

if TYPE_CHECKING:
    from dsgp_lab.tasks import Task

HUB_DATASET = "nyu-mll/glue"

Columns = tuple[tuple[tuple[str, ...], ...], tuple[int | float, ...], tuple[str, ...] | None]


def read_jsonl(path: Path) -> Iterator[Any]:
    """Yield the rows of a JSON-lines file, plain or gzipped.

    Raises:
        LabError: at a line that is not JSON; names file and line.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    line_number = 1
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                if line.strip():
                    yield json.loads(line)
                line_number += 1
    except (ValueError, OSError, EOFError) as error:
        raise LabError(
            got=f"{path}, unreadable at line {line_number} ({error})",
            allowed="one JSON object a line, in UTF-8",
            hint="mend that line or fetch the file again",
        ) from None


def parse_rows(task: Task, rows: Iterable[Any], place: str) -> Columns:
    """Check rows against a task: (texts, labels, tags), tags None unless every row has one.

    A row's optional column ``tags`` is a list of one string. ``place`` names the rows in errors.

    Raises:
        LabError: missing columns, texts or tags that are no strings, labels out of range, no rows.
    """
    texts: list[tuple[str, ...]] = []
    labels: list[int | float] = []
    tags: list[str] = []
    wanted = (*task.columns, "label")
    for number, row in enumerate(rows, start=1):
        found = list(row) if isinstance(row, dict) else [type(row).__name__]
        if not isinstance(row, dict) or any(name not in row for name in wanted):
            raise LabError(
                got=f"columns {', '.join(map(str, found))} in row {number} of {place}",
                allowed=f"{', '.join(wanted)} for {task.name}",
                hint="rename the columns, or choose the task that the file was made for",
            )
        text = tuple(row[name] for name in task.columns)
        if not all(isinstance(part, str) for part in text):
            raise LabError(
                got=f"a text that is no string in row {number} of {place}",
                allowed=f"strings in {', '.join(task.columns)}",
                hint="mend that row",
            )
        texts.append(text)
        labels.append(_label(task, row["label"], number, place))
        if "tags" in row:
            tags.append(_tag(row["tags"], number, place))
    if not texts:
        raise LabError(got=f"no rows in {place}", allowed="at least one row", hint="fetch the file again")
    return tuple(texts), tuple(labels), tuple(tags) if len(tags) == len(texts) else None


def glue_rows(task: Task, split: str, folder: Path | None, limit: int | None) -> tuple[Iterable[Any], str]:
    """The first ``limit`` rows of a GLUE split from a folder, else from the hub, and what to call the place.

    Raises:
        LabError: the folder lacks the file; the hub does not answer.
    """
    if folder is not None:
        path = _glue_file(task, split, folder)
        return islice(read_jsonl(path), limit), str(path)
    return islice(_hub_rows(task, split), limit), f"{HUB_DATASET} {task.name} {split}"


def _label(task: Task, value: Any, number: int, place: str) -> int | float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if task.is_regression:
        if is_number and 0 <= value <= 5:
            return float(value)
        allowed = "a number from 0 to 5"
    else:
        if is_number and value in range(task.num_labels):
            return int(value)
        allowed = ", ".join(f"{i} ({name})" for i, name in enumerate(task.labels))
    raise LabError(got=f"label {value!r} in row {number} of {place}", allowed=allowed, hint="mend that label")


def _tag(value: Any, number: int, place: str) -> str:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        return value[0]
    raise LabError(
        got=f"tags {value!r} in row {number} of {place}",
        allowed='a list of one string, such as ["negation"]',
        hint="mend that row",
    )


def _glue_file(task: Task, split: str, folder: Path) -> Path:
    for ending in (".jsonl.gz", ".jsonl"):
        path = folder / task.name / f"{split}{ending}"
        if path.is_file():
            return path
    missing = folder / task.name / f"{split}.jsonl.gz" if folder.is_dir() else folder
    raise LabError(
        got=f"DSGP_GLUE_DIR={folder}, where {missing} does not exist",
        allowed="a folder with <task>/<split>.jsonl.gz, columns as in nyu-mll/glue",
        hint="correct DSGP_GLUE_DIR, or unset it to load from the hub",
    )


def _hub_rows(task: Task, split: str) -> Iterable[Any]:
    try:
        import datasets

        datasets.disable_progress_bars()
        with hub_access():
            rows: Iterable[Any] = datasets.load_dataset(HUB_DATASET, task.name, split=split)
            return rows
    except Exception as error:  # every kind of network and cache failure ends in the same advice
        raise LabError(
            got=f"no GLUE data for {task.name} {split}: DSGP_GLUE_DIR is not set and the hub does not answer"
            f" ({type(error).__name__})",
            allowed="a local GLUE folder, or a network that reaches the Hugging Face hub",
            hint=f"set DSGP_GLUE_DIR to a folder with {task.name}/{split}.jsonl.gz, or use the teaching set,"
            f' load_teaching("{task.name}")',
        ) from None
