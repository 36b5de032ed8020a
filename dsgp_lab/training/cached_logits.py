"""Logits that a model gave once, kept in a file."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from dsgp_lab.errors import LabError
from dsgp_lab.whole_files import make_folder, refusals, whole_file


def read_logits(path: Path, rows: int, columns: int) -> Tensor | None:
    """The logits [rows, columns] of a file; None if there is no file.

    Raises:
        LabError: a damaged file, or one of another shape.
    """
    if not path.is_file():
        return None
    try:
        logits = torch.load(path, map_location="cpu", weights_only=True)
        found = tuple(logits.shape)
    except Exception as error:  # torch raises many types for a damaged file
        found, logits = (type(error).__name__,), None
    if logits is None or found != (rows, columns):
        raise LabError(
            got=f"{path} with {', '.join(map(str, found))}",
            allowed=f"logits of {rows} texts, {columns} each, as they were written",
            hint="delete it: they are computed anew",
        )
    return torch.as_tensor(logits)


def write_logits(path: Path, logits: Tensor) -> None:
    """Keep logits; two runs that write the same file at the same time do not disturb each other."""
    make_folder(path.parent)
    own = path.with_name(f"{path.stem}.{os.getpid()}{path.suffix}")
    with whole_file(own) as scratch:
        torch.save(logits, scratch)
    with refusals(path):
        os.replace(own, path)
