"""A disk that is full: while a sweep writes its cells, and while a model is trained."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from cells import fake_run, silent
from figures import Figure
from sweeps import made_up_cells
from toys import toy_model, toy_tokenizer

from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.cell_files import read_cells
from dsgp_lab.evaluate.sweep import sweep
from dsgp_lab.tasks import Examples, get_task
from dsgp_lab.training.config import FinetuneConfig
from dsgp_lab.training.loop import LOG, SNAPSHOT, train
from dsgp_lab.training.snapshot import load_snapshot

Grow = Callable[[], None]
NO_DISK = "needs Linux and root, to mount a disk of its own"
BAR = "a LabError that names the disk; what was written before is readable; goes on with more room"


@contextmanager
def small_disk(kilobytes: int) -> Iterator[tuple[Path, Grow] | None]:
    """A file system of that size, and a way to make it large; None where none can be mounted."""
    with TemporaryDirectory() as folder:
        options = ["mount", "-t", "tmpfs", "-o"]
        able = sys.platform == "linux" and os.geteuid() == 0
        if not able or subprocess.run([*options, f"size={kilobytes}k", "tmpfs", folder]).returncode:
            yield None
            return
        try:
            yield Path(folder), lambda: subprocess.run([*options, "remount,size=64m", folder], check=True)
        finally:
            subprocess.run(["umount", folder], check=True)


def full_disk_sweep(cells: int = 40) -> Figure:
    """A sweep whose folder lies on a disk with room for about a fourth of its cells."""
    check = "full disk during a sweep"
    with made_up_cells(cells) as (_, planned), small_disk(64) as disk:
        if disk is None:
            return Figure(check, NO_DISK, BAR, None)
        folder, grow = disk
        said = ""
        try:
            sweep(planned, folder, say=silent, run=fake_run)
        except LabError as error:
            said = str(error)
        before = len(read_cells(folder)) if any(folder.glob("*.parquet")) else 0
        left = [path for path in folder.iterdir() if path.suffix != ".parquet"]
        grow()
        states = [outcome.state for outcome in sweep(planned, folder, say=silent, run=fake_run).outcomes]
    good = "No space left" in said and 0 < before < cells and not left
    good = good and (states.count("there"), states.count("made")) == (before, cells - before)
    shown = f"{before} of {cells} cells readable, {len(left)} half files, then {states.count('made')} made"
    return Figure(check, shown + (": LabError" if said else ": no error"), BAR, good)


def toy_reviews(number: int = 64) -> Examples:
    """Made-up sentences whose label is one of their words."""
    texts = tuple((f"a {'good' if i % 3 else 'bad'} film{' very' * (i % 4)}",) for i in range(number))
    return Examples(get_task("sst2"), "train", "made up", texts, tuple(int(i % 3 > 0) for i in range(number)))


def full_disk_training() -> Figure:
    """A training whose second snapshot does not fit any more: the first one stays, and is gone on from."""
    check = "full disk during training"
    settings = FinetuneConfig("sst2", epochs=2, batch_size=8, held_out=8, precision="fp32")
    rest, held_out = toy_reviews().split_off(16, seed=0)
    with small_disk(2048) as disk:
        if disk is None:
            return Figure(check, NO_DISK, BAR, None)
        folder, grow = disk

        def trained(stop_at: int | None) -> object:
            torch.manual_seed(0)
            model = toy_model("bert", 2, max_position_embeddings=64)
            return train(
                settings, model, toy_tokenizer(), rest, held_out, folder, stop_at=stop_at, say=silent
            )

        trained(stop_at=2)
        room = os.statvfs(folder).f_bavail * os.statvfs(folder).f_bsize
        (folder / "filler").write_bytes(bytes(room - 32_768))  # the log still fits
        said = ""
        try:
            trained(stop_at=None)
        except LabError as error:
            said = str(error)
        left = [path.name for path in folder.iterdir() if path.name not in ("filler", SNAPSHOT, LOG)]
        state = load_snapshot(folder / SNAPSHOT, settings.record())
        grow()
        kept = trained(stop_at=None)
    step = None if state is None else state["step"]
    good = f"{SNAPSHOT}, which cannot be written" in said and step == 2 and kept is not None and not left
    shown = f"snapshot of step {step} readable, {len(left)} half files, then trained to the end"
    return Figure(check, ("LabError, " if said else "no error, ") + shown, BAR, good)
