"""Files are written whole or not at all, and what the system refuses becomes a sentence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from dsgp_lab.errors import LabError


@contextmanager
def refusals(path: Path | str) -> Iterator[None]:
    """Turn what the system refuses while `path` is written (a full disk, no right) into a LabError.

    Only statements that write belong into the block: torch and safetensors report a full disk as errors of
    their own, so every RuntimeError counts as one.

    >>> with refusals("results.json"):
    ...     raise OSError(28, "No space left on device")
    Traceback (most recent call last):
    ...
    dsgp_lab.errors.LabError: Got results.json, which cannot be written (No space left on device). Allowed...
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise LabError(
            got=f"{path}, which cannot be written ({' '.join(reason.split())[:120]})",
            allowed="a place with room, that this user may write to",
            hint="make room or name another place, and run the same again: what was written before stays",
        ) from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write to; what is written there then takes the place of `path`.

    After an error `path` is what it was, and nothing is left beside it.

    Raises:
        LabError: the system refuses, for example because the disk is full.
    """
    scratch = path.with_name(f".{path.name}.tmp")
    try:
        with refusals(path):
            yield scratch
            os.replace(scratch, path)
    finally:
        with suppress(OSError):
            scratch.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all; LabError where the system refuses."""
    with whole_file(path) as scratch:
        scratch.write_text(text, "utf-8")


def check_place(path: Path) -> Path:
    """Return `path` if a file can be written there; before a long computation rather than after it.

    Raises:
        LabError: the system refuses, or a folder is there.
    """
    make_folder(path.parent)
    if path.is_dir():
        raise LabError(got=f"{path}, a folder", allowed="a file", hint=f"write {path / 'results.json'}")
    scratch = path.with_name(f".{path.name}.tmp")
    with refusals(path):
        scratch.touch()
        scratch.unlink()
    return path


def make_folder(folder: Path) -> Path:
    """Make a folder and those above it, where they are missing; LabError where the system refuses."""
    with refusals(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder
