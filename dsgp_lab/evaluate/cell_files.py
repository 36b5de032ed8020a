"""The folder of a sweep: one parquet file a finished cell, one claim file a cell that somebody works on."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.cell import FORMAT, Cell, CellResult, key_of
from dsgp_lab.whole_files import refusals

RECORD = b"dsgp_lab"
"""Key of the record in a file's schema metadata."""

STALE_SECONDS = 30 * 60
"""Age at which a claim of another machine's process counts for nothing, whatever has become of it."""

OUTDATED_SECONDS = 24 * 3600
"""The same for a process of this machine that is alive: its number may have gone to another process."""


def cell_path(folder: Path, cell: Cell) -> Path:
    """Where a cell's result belongs."""
    return folder / f"{cell.key}.parquet"


def write_cell(result: CellResult, path: Path) -> None:
    """Write a result so that nobody ever sees half a file: under another name first, then renamed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    record = result.record | {"metrics": result.metrics}
    table = pa.Table.from_pandas(result.predictions, preserve_index=False)
    table = table.replace_schema_metadata({RECORD: json.dumps(record).encode()})
    for left in path.parent.glob(f".{path.stem}.*.tmp"):  # by one that was killed while it wrote
        left.unlink(missing_ok=True)
    scratch = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.tmp")
    try:
        with refusals(path):
            pq.write_table(table, scratch, compression="zstd", write_page_checksum=True)
            os.replace(scratch, path)
    finally:
        with suppress(OSError):
            scratch.unlink()


def read_cell(path: Path) -> CellResult:
    """Read what `write_cell` wrote, checksums verified.

    Raises:
        LabError: a file that is missing, damaged, under another cell's name, or of another format.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, page_checksum_verification=True)
        record = json.loads((table.schema.metadata or {})[RECORD])
        configuration = record["configuration"]
        written = configuration["format"]
        if key_of(configuration) != path.stem:
            raise ValueError("another cell's name")
        if written == FORMAT:
            cell = cell_of(configuration, record["root"])
            return CellResult(cell, table.to_pandas(), record.pop("metrics"), record)
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        reason = "which does not exist" if not path.exists() else f"which cannot be read ({_short(error)})"
        raise LabError(
            got=f"{path}, {reason}",
            allowed="a cell as the sweep wrote it",
            hint="run the same sweep again: it makes damaged cells anew",
        ) from None
    raise LabError(
        got=f"{path}, a cell of format {written}",
        allowed=f"format {FORMAT}",
        hint="run the sweep again into a new folder",
    )


def read_cells(folder: Path) -> list[CellResult]:
    """All cells of a sweep's folder, in the order of their file names.

    Raises:
        LabError: no cells there, or one that cannot be read.
    """
    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        raise LabError(
            got=f"{folder}, {'without cells' if folder.is_dir() else 'which does not exist'}",
            allowed="a folder that dsgp-lab sweep has written",
            hint=f"run dsgp-lab sweep --out {folder}",
        )
    return [read_cell(path) for path in paths]


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Claim the cell whose result belongs at `path` for this process; gives False if another one works on it.

    The claim is a file beside it that only one process can create. Claims of processes that are gone, or
    too old, are taken over. Two that take over the same claim in the same instant may
    both work on the cell: that costs time, and the results are equal.
    """
    claim = path.with_suffix(".claim")
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "time": time.time(), "id": uuid.uuid4().hex}
    mine = _create(claim, owner) or (_stale(claim) and _take_over(claim, owner))
    try:
        yield mine
    finally:
        if mine and _read(claim) == owner:  # else somebody found it stale and holds it now
            claim.unlink(missing_ok=True)


def _create(claim: Path, owner: dict[str, Any]) -> bool:
    """Make a claim that nobody ever sees without its owner; False where there is one.

    A process that is killed while it writes one would otherwise hold the cell until `STALE_SECONDS` are over.
    """
    scratch = claim.with_name(f".{claim.stem}.{owner['id']}.tmp")  # `write_cell` clears what is left of it
    try:
        with refusals(claim):
            scratch.write_text(json.dumps(owner), "utf-8")
            try:
                os.link(scratch, claim)
            except (FileExistsError, FileNotFoundError):  # the latter: another has just finished this cell
                return False
            except OSError:  # a file system without links
                return _create_in_place(claim, owner)
    finally:
        with suppress(OSError):
            scratch.unlink()
    return True


def _create_in_place(claim: Path, owner: dict[str, Any]) -> bool:
    try:
        handle = os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(owner, file)
    return True


def _take_over(claim: Path, owner: dict[str, Any]) -> bool:
    claim.unlink(missing_ok=True)
    return _create(claim, owner)


def _stale(claim: Path) -> bool:
    try:
        age = time.time() - claim.stat().st_mtime
    except FileNotFoundError:
        return True  # released in this moment
    owner = _read(claim)
    if owner is None or owner["host"] != socket.gethostname():
        return age > STALE_SECONDS
    return age > OUTDATED_SECONDS or not _alive(owner["pid"])


def _read(claim: Path) -> dict[str, Any] | None:
    """Who holds a claim; None while it is being written, or after it was released."""
    try:
        owner = json.loads(claim.read_text("utf-8"))
        return owner if {"pid", "host"} <= owner.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    return True


def cell_of(configuration: dict[str, Any], root: str | None) -> Cell:
    """The cell that a configuration is one of; KeyError or LabError for one that no cell has."""
    names = ("task", "regime", "method", "keep", "seed", "split", "limit")
    return Cell(**{name: configuration[name] for name in names}, root=None if root is None else Path(root))


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else text[:117] + "..."
