"""SHA-256 of every file in data/, so that a single changed byte is noticed.

They stand in data/SHA256SUMS, in the format of the `sha256sum` program: `cd data && sha256sum -c SHA256SUMS`
checks them without this package. `make checksums` writes them anew after a change that was meant.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dsgp_lab.errors import LabError
from dsgp_lab.models import sha256
from dsgp_lab.whole_files import write_text

NAME = "SHA256SUMS"


def shipped(folder: Path) -> list[Path]:
    """The files in a data folder, but for the sums themselves and hidden ones."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != NAME)
    return sorted(path for path in paths if not path.name.startswith("."))


def write_sums(folder: Path) -> Path:
    """Write the sums of all files in a data folder; returns where."""
    lines = [f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in shipped(folder)]
    write_text(folder / NAME, "".join(lines))
    return folder / NAME


def read_sums(folder: Path) -> dict[Path, str]:
    """Files of a data folder with the SHA-256 that they should have.

    Raises:
        LabError: the list is missing or damaged.
    """
    path = folder / NAME
    try:
        lines = [line.split("  ", 1) for line in path.read_text("utf-8").splitlines()]
        return {folder / name: digest for digest, name in lines}
    except (OSError, ValueError) as error:
        raise LabError(
            got=f"{path}, which cannot be read ({type(error).__name__})",
            allowed="a line for each file: SHA-256, two spaces, name",
            hint="fetch it again, or run make checksums if the data are your own",
        ) from None


def differing(folder: Path, only: Iterable[Path] | None = None) -> list[str]:
    """Names of files that are altered, absent or not listed; of all, or only of some.

    Raises:
        LabError: the list is missing or damaged.
    """
    listed = read_sums(folder)
    wanted = {*listed, *shipped(folder)} if only is None else set(only)
    names = []
    for path in sorted(wanted):
        name = path.relative_to(folder).as_posix()
        if not path.is_file():
            names.append(f"{name} absent")
        elif path not in listed:
            names.append(f"{name} not listed")
        elif sha256(path) != listed[path]:
            names.append(f"{name} altered")
    return names
