"""A user's own labelled file: JSON lines, CSV or TSV with GLUE's columns, read without guessing.

Nothing is dropped in silence: what cannot be read is an error that names the line, what is passed over is a
notice. Tables are read by the csv module, not by pandas, which fills short rows up and takes texts such as
"NA" or "null" for missing ones.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from dsgp_lab.errors import LabError
from dsgp_lab.rows import parse_rows
from dsgp_lab.tasks import Examples, Task, get_task

Quoting = Literal["minimal", "none"]

JSONL = ".jsonl"
DELIMITERS = {".csv": ",", ".tsv": "\t"}
GZIP = ".gz"

Row = tuple[int, dict[str, Any]]
"""A row and the number of the line it starts in, from 1."""


@dataclass(frozen=True)
class OwnData:
    """The examples of a file in its order, and what the user should know about how it was read."""

    examples: Examples
    notices: tuple[str, ...] = ()


def read_own(path: Path | str, task: str, quoting: Quoting = "minimal") -> OwnData:
    r"""Read a labelled file for a task: ``.jsonl``, ``.csv`` or ``.tsv``, plain or with ``.gz`` behind it.

    Columns are the task's own and ``label``; others are ignored with a notice. Labels are class numbers or
    class names, for regression numbers from 0 to 5. UTF-8, with or without a byte order mark.

    ``quoting`` is for tables. "minimal" takes double quotes around a field off, as spreadsheets and pandas
    write them, in TSV too. "none" takes every quote for a part of its text: GLUE's original TSV files have
    texts with a single quote mark in them. The file does not say which it is, so nothing is guessed; a lone
    quote under "minimal" is an error or, where a text then spans several lines, a notice.

    Raises:
        LabError: a missing file, an unknown ending, another encoding, no rows, missing columns, rows with
            too few or too many fields, empty texts, labels that are not the task's.
    """
    known, path = get_task(task), Path(path)
    if quoting not in get_args(Quoting):
        raise LabError(
            got=f"quoting={quoting!r}", allowed=" or ".join(get_args(Quoting)), hint="leave it out"
        )
    ending = _ending(path)
    text = _decoded(_contents(path), path)
    if not text.strip():
        raise LabError(got=f"{path}, an empty file", allowed="at least one example", hint=_layout(known))
    if ending == JSONL:
        rows, notices = _json_rows(text, known, path)
    else:
        rows, notices = _table_rows(text, known, path, DELIMITERS[ending], quoting)
    texts, labels, _ = parse_rows(known, _checked(known, rows, path), str(path))
    extra = dict.fromkeys(name for _, row in rows for name in row if name not in _wanted(known))
    if extra:
        names = ", ".join(name or "one without a name" for name in extra)
        notices.append(f"Ignored column{'s'[: len(extra) > 1]}: {names}.")
    broken = sum("\ufffd" in part for example in texts for part in example)
    if broken:
        notices.append(
            f"{_count(broken, 'text')} with the character U+FFFD: letters were lost before this file."
        )
    return OwnData(Examples(known, "own", path.name, texts, labels), tuple(notices))


def _wanted(task: Task) -> tuple[str, ...]:
    return (*task.columns, "label")


def _layout(task: Task) -> str:
    return f"write one example a line with the columns {', '.join(_wanted(task))}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _ending(path: Path) -> str:
    plain = path.with_suffix("") if path.suffix.lower() == GZIP else path
    ending = plain.suffix.lower()
    known = (JSONL, *DELIMITERS)
    if ending not in known:
        raise LabError(
            got=f"{path}, with the ending {ending!r}",
            allowed=f"{', '.join(known)}, each also with {GZIP} behind it",
            hint="export the table as CSV in UTF-8, or rename the file if it is one of these",
        )
    return ending


def _contents(path: Path) -> bytes:
    if not path.is_file():
        raise LabError(
            got=f"{path}, {'a folder' if path.is_dir() else 'which does not exist'}",
            allowed="a file",
            hint="check the name and the folder that the command runs in",
        )
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix.lower() == GZIP else data
    except (OSError, EOFError, zlib.error) as error:
        raise LabError(
            got=f"{path}, which cannot be read ({error})",
            allowed=f"a readable file, and behind the ending {GZIP} a whole gzip file",
            hint="check its permissions, or make it anew",
        ) from None


def _decoded(data: bytes, path: Path) -> str:
    """The text of a file in UTF-8, a byte order mark taken off; other encodings are refused."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise _not_utf8(data, 0, "the mark of UTF-16", path)
    if b"\0" in data:  # valid UTF-8, but in a text file a sign of UTF-16 without its mark
        raise _not_utf8(data, data.index(b"\0"), "no character of a text", path)
    start = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    try:
        return data[start:].decode()
    except UnicodeDecodeError as error:
        raise _not_utf8(data, start + error.start, "no UTF-8 there", path) from None


def _not_utf8(data: bytes, place: int, what: str, path: Path) -> LabError:
    line = data.count(b"\n", 0, place) + 1
    return LabError(
        got=f"{path}, whose byte {place + 1}, in line {line}, is 0x{data[place]:02x}, {what}",
        allowed="UTF-8 from the first byte to the last",
        hint="save it as UTF-8 (in a spreadsheet: CSV UTF-8)",
    )


def _json_rows(text: str, task: Task, path: Path) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    blank = 0
    # split at "\n" alone: texts may hold other characters that str.splitlines breaks at
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        if not line.strip():
            blank += 1
            continue
        try:
            row = json.loads(line, object_pairs_hook=_no_double)
            if not isinstance(row, dict):
                raise ValueError(f"a {type(row).__name__}")
        except (ValueError, RecursionError) as error:
            raise LabError(
                got=f"{path}, unreadable at line {number} ({error})",
                allowed="one JSON object a line",
                hint=_layout(task),
            ) from None
        _check_columns(list(row), task, number, path)
        rows.append((number, row))
    return rows, _blank_notice(blank)


def _no_double(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key occurs twice")
    return dict(pairs)


def _table_rows(
    text: str, task: Task, path: Path, delimiter: str, quoting: Quoting
) -> tuple[list[Row], list[str]]:
    lines = io.StringIO(text, newline="")
    style: Literal[0, 3] = csv.QUOTE_NONE if quoting == "none" else csv.QUOTE_MINIMAL
    reader = csv.reader(lines, delimiter=delimiter, quoting=style, strict=True)
    header: list[str] = []
    rows: list[Row] = []
    blank, long = 0, []
    number = 1
    try:
        for cells in reader:
            if not cells:
                blank += 1
            elif not header:
                header = cells
                _check_columns(header, task, number, path, delimiter)
            else:
                _check_width(cells, header, number, path)
                rows.append((number, dict(zip(header, cells, strict=True))))
                if reader.line_num > number:
                    long.append(number)
            number = reader.line_num + 1
    except csv.Error as error:
        raise LabError(
            got=f"{path}, unreadable from line {number} on ({error})",
            allowed="fields plain, or in double quotes, and quotes within them doubled",
            hint="mend that line, or read the file with quoting none if its quotes belong to the texts",
        ) from None
    if not rows:
        raise LabError(
            got=f"{path}, with a header and no rows", allowed="at least one example", hint=_layout(task)
        )
    notices = _blank_notice(blank)
    if long:
        notices.append(
            f"{_count(len(long), 'row')} over several lines, the first in line {long[0]}: right if texts hold"
            " line breaks; if the file has no quoting, read it with quoting none."
        )
    return rows, notices


def _blank_notice(blank: int) -> list[str]:
    return [f"Passed over {_count(blank, 'empty line')}."] if blank else []


def _check_columns(found: list[str], task: Task, number: int, path: Path, delimiter: str = "") -> None:
    wanted = _wanted(task)
    if all(found.count(name) == 1 for name in wanted):
        return
    names = ", ".join(map(repr, found)) or "none"
    hint = "rename the columns, or choose the task that the file was made for"
    if delimiter and len(found) == 1:
        hint = f"write their names in the first line, and {delimiter!r} between all fields"
    raise LabError(
        got=f"columns {names if len(names) <= 120 else names[:117] + '...'} in line {number} of {path}",
        allowed=f"{', '.join(wanted)} for {task.name}, each once",
        hint=hint,
    )


def _check_width(cells: list[str], header: list[str], number: int, path: Path) -> None:
    if len(cells) != len(header):
        raise LabError(
            got=f"{_count(len(cells), 'field')} in line {number} of {path}",
            allowed=f"{len(header)}, as in its header",
            hint="mend that line; a text that holds the delimiter goes into double quotes",
        )


def _checked(task: Task, rows: list[Row], path: Path) -> Iterator[dict[str, Any]]:
    """The task's columns of each row, labels as numbers; errors name the line, which `parse_rows` cannot."""
    for number, row in rows:
        place = f"in line {number} of {path}"
        for column in task.columns:
            fault = _fault(row[column])
            if fault:
                raise LabError(
                    got=f"{fault} in column {column} {place}",
                    allowed="a text of at least one word",
                    hint="mend that text, or take the example out",
                )
        texts = {column: row[column] for column in task.columns}
        yield texts | {"label": _label(task, row["label"], place)}


def _fault(text: Any) -> str:
    """What keeps a value from being read as a text, or "" if nothing does."""
    if not isinstance(text, str):
        return f"{text!r:.60}"
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can spell one with an escape
        return f"half of a surrogate pair (character {error.start + 1})"
    return "" if text.strip() else "an empty text"


def _label(task: Task, value: Any, place: str) -> int | float:
    """A label as the task's number: from a number, a number as text, or a class name.

    >>> _label(get_task("sst2"), "positive", "in line 2"), _label(get_task("stsb"), "3.8", "in line 2")
    (1, 3.8)
    """
    name = value.strip() if isinstance(value, str) else value
    if name in task.labels:
        return task.labels.index(name)
    try:
        number = float("nan") if isinstance(name, bool) else float(name)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if task.is_regression and 0 <= number <= 5:
        return number
    if number in range(len(task.labels)):
        return int(number)
    allowed = ", ".join(f"{i} or {name}" for i, name in enumerate(task.labels)) or "a number from 0 to 5"
    hidden = "labels of -1 are GLUE's mark for hidden ones: choose a file with labels"
    raise LabError(
        got=f"label {value!r:.60} {place}",
        allowed=allowed,
        hint=hidden if number == -1 else "mend that label",
    )
