"""Snapshots of a training run, so that a killed run goes on where it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dsgp_lab.errors import LabError
from dsgp_lab.whole_files import whole_file


def save_snapshot(path: Path, state: dict[str, Any]) -> None:
    """Write a snapshot (tensors and plain values); the file is always either the old or the new one."""
    with whole_file(path) as scratch:
        torch.save(state | {"rng": random_state()}, scratch)


def load_snapshot(path: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """Read a snapshot and restore torch's random state; None if there is no file.

    Only tensors and plain values are unpickled.

    Raises:
        LabError: the snapshot is damaged, or belongs to a run with other settings.
    """
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a damaged file
        raise LabError(
            got=f"{path}, an unreadable snapshot ({type(error).__name__})",
            allowed="a snapshot of this run",
            hint="delete it to start the run anew",
        ) from None
    other = sorted(key for key in config if state["config"].get(key) != config[key])
    if other:
        raise LabError(
            got=f"{path}, a run with another {', '.join(other)}",
            allowed="the settings that the run was started with",
            hint="choose another folder with --out, or delete this one",
        )
    set_random_state(state["rng"])
    return state


def random_state() -> dict[str, Any]:
    """Torch's random state on the CPU and on every GPU in use."""
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": gpus}


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what ``random_state`` gave."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
