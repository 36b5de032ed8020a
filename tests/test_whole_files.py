"""Writers: whole or not at all, and a refusal of the system is a sentence."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from cells import made_cell
from torch import nn

from dsgp_lab import LabError
from dsgp_lab.checkpoints import save_neuron_order
from dsgp_lab.evaluate import cell_files
from dsgp_lab.evaluate.cell_files import claimed, write_cell
from dsgp_lab.evaluate.results_table import Results
from dsgp_lab.router import Router, RouterShape
from dsgp_lab.training.snapshot import load_snapshot, save_snapshot
from dsgp_lab.views import prediction_bars
from dsgp_lab.whole_files import check_place, make_folder, whole_file, write_text

FULL = OSError(28, "No space left on device")


def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with whole_file(path) as scratch:
        scratch.write_text("new", "utf-8")
        assert path.read_text("utf-8") == "old"
    assert path.read_text("utf-8") == "new"
    assert list(tmp_path.iterdir()) == [path]


def spoil(path: Path, error: Exception) -> None:
    """Break off in the middle of a file."""
    with whole_file(path) as scratch:
        scratch.write_text("ne", "utf-8")
        raise error


@pytest.mark.parametrize("error", [FULL, RuntimeError("file write failed\n  at x"), KeyError("a mistake")])
def test_after_an_error_the_old_file_stays(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    kind = KeyError if isinstance(error, KeyError) else LabError
    with pytest.raises(kind) as caught:
        spoil(path, error)
    if kind is LabError:
        reason = "No space left on device" if error is FULL else "file write failed at x"
        assert f"{path}, which cannot be written ({reason})" in str(caught.value)
    assert path.read_text("utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_is_checked_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "a.json"
    assert check_place(path) == path
    assert list(path.parent.iterdir()) == []
    path.write_text("old", "utf-8")
    check_place(path)
    assert path.read_text("utf-8") == "old"
    with pytest.raises(LabError, match=r"new, a folder\. Allowed: a file"):
        check_place(path.parent)
    with pytest.raises(LabError, match="which cannot be written"):
        check_place(path / "b.json")  # below a file
    refused = PermissionError(13, "Permission denied")
    monkeypatch.setattr(Path, "touch", lambda self: (_ for _ in ()).throw(refused))
    with pytest.raises(LabError, match=r"a\.json, which cannot be written \(Permission denied\)"):
        check_place(path)


COMMANDS = ("bench", "calibrate", "language", "prompt-router")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_refuses_a_place_before_it_measures(command: str, tmp_path: Path) -> None:
    """Minutes of measuring are not lost to a name that cannot be written."""
    from typer.testing import CliRunner

    from dsgp_lab.cli import app

    file = tmp_path / "file"
    file.touch()
    with pytest.raises(LabError, match="which cannot be written"):
        CliRunner().invoke(app, [command, "--out", str(file / "a.json")], catch_exceptions=False)


def test_commands_refuse_places_that_make_no_sense(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from dsgp_lab.cli import app

    with pytest.raises(LabError, match=r"ending in '\.doc'"):
        CliRunner().invoke(app, ["bench", "--out", str(tmp_path / "a.doc")], catch_exceptions=False)
    with pytest.raises(LabError, match="--out with --speed"):
        CliRunner().invoke(
            app, ["language", "--speed", "--out", str(tmp_path / "a.json")], catch_exceptions=False
        )


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LabError, match=r"Not a directory|File exists"):
        make_folder(tmp_path / "file" / "folder")
    assert make_folder(tmp_path / "a" / "b").is_dir()


WRITERS: dict[str, Callable[[Path], Any]] = {
    "router": lambda path: Router(RouterShape("layerwise", 1, 2, 2, 8, 4)).save(path),
    "snapshot": lambda path: save_snapshot(path, {"config": {}, "x": torch.zeros(3)}),
    "view": lambda path: prediction_bars(["a", "b"], [0.5, 0.5], [0.4, 0.6]).save(path.with_suffix(".html")),
    "cell": lambda path: write_cell(made_cell("sst2"), path),
    "order": lambda path: save_neuron_order(path.parent, torch.zeros(1, 1)),
    "results": lambda path: Results(pd.DataFrame(), pd.DataFrame(), ()).write(path.parent),
    "claim": lambda path: claimed(path).__enter__(),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_writer_says_what_the_system_refuses(tmp_path: Path, name: str) -> None:
    """Below a file nothing can be written, whoever tries."""
    (tmp_path / "file").touch()
    with pytest.raises(LabError, match=r"file.*, which cannot be written \(.*make room or name another"):
        WRITERS[name](tmp_path / "file" / "new.x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", [name for name in WRITERS if name not in ("claim", "results")])
def test_a_full_disk_leaves_what_stood_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    target = {"view": "new.html", "order": "neuron_order.safetensors"}.get(name, "new.x")
    (tmp_path / target).write_bytes(b"old")

    def full(*_: object) -> None:
        raise FULL

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(LabError, match="No space left on device"):
        WRITERS[name](tmp_path / "new.x")
    assert [path.name for path in tmp_path.iterdir()] == [target]
    assert (tmp_path / target).read_bytes() == b"old"


def test_a_snapshot_is_written_and_read(tmp_path: Path) -> None:
    save_snapshot(tmp_path / "snapshot.pt", {"config": {"a": 1}, "weights": nn.Linear(2, 2).state_dict()})
    state = load_snapshot(tmp_path / "snapshot.pt", {"a": 1})
    assert state is not None
    assert state["weights"]["weight"].shape == (2, 2)
    assert load_snapshot(tmp_path / "absent.pt", {}) is None


def test_a_claim_never_stands_there_without_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while it writes the claim, a process leaves none: the next one need not wait."""
    path = tmp_path / "cell.parquet"

    def killed(*_: object) -> None:
        assert not path.with_suffix(".claim").exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", killed)
        with pytest.raises(KeyboardInterrupt):
            claimed(path).__enter__()
    with claimed(path) as mine:
        assert mine
        assert cell_files._read(path.with_suffix(".claim")) is not None


def test_claims_where_files_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", none)
    with claimed(tmp_path / "a.parquet") as mine, claimed(tmp_path / "a.parquet") as second:
        assert (mine, second) == (True, False)
    assert list(tmp_path.iterdir()) == []
