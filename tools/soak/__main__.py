"""Soak: what the lab stands, in figures. `make soak` runs all checks and writes docs/soak.md.

python tools/soak                        # every check: minutes
python tools/soak --only masks,panel     # some of them; the others keep their last figures
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests"), str(ROOT / "tools")]  # toy models and made-up cells are the tests' own

import bad_input
import damage
import disks
import hostile
import masks
import sharing
import sliders
import sweeps
import torch
from figures import VERDICTS, Figure, with_rows
from toys import save_toy

from dsgp_lab import Lab
from dsgp_lab.evaluate.latency import machine

TARGET = ROOT / "docs" / "soak.md"


def checks(toy: str, lab: Lab) -> dict[str, Callable[[], Figure]]:
    """All checks by name; `toy` is a folder with a toy classifier, `lab` a lab on it."""
    return {
        "masks": masks.random_masks,
        "killed": sweeps.killed_sweep,
        "killed-real": sweeps.killed_real_sweep,
        "processes": sweeps.two_processes,
        "disk-sweep": disks.full_disk_sweep,
        "disk-training": disks.full_disk_training,
        "sliders": lambda: sliders.slider_moves(Lab("sst2")),
        "byte": damage.damaged_bytes,
        "threads": lambda: sharing.one_model(Lab("sst2")),
        "python": lambda: bad_input.python(lab),
        "command": lambda: bad_input.command_line(toy),
        "panel": lambda: bad_input.panel(lab),
        "file": bad_input.files,
        "hostile": hostile.as_strings,
        "browser": hostile.in_browser,
    }


def tried(name: str, check: Callable[[], Figure]) -> Figure:
    """A check's figure; one that breaks off has missed its bar."""
    try:
        return check()
    except Exception as error:
        traceback.print_exc()
        return Figure(name, f"broke off: {type(error).__name__}: {error}"[:300], "", False)


def main(arguments: list[str]) -> int:
    """Run the chosen checks; the exit code is 1 where a bar was missed."""
    parser = argparse.ArgumentParser(prog="make soak", description="Soak checks; figures in docs/soak.md.")
    parser.add_argument("--only", default="", help="names with commas; default: all")
    wanted = parser.parse_args(arguments).only
    torch.set_num_threads(1)
    missed = 0
    with TemporaryDirectory() as folder:
        toy = save_toy(Path(folder))
        known = checks(toy, Lab.from_pretrained(toy, block_size=16))
        names = wanted.split(",") if wanted else list(known)
        if unknown := set(names) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
        for name in names:
            start = time.perf_counter()
            figure = tried(name, known[name])
            line = figure.row(name, time.perf_counter() - start, machine())
            missed += figure.met is False
            print(f"{name}: {figure.found} -> {VERDICTS[figure.met]}", flush=True)
            page = TARGET.read_text("utf-8") if TARGET.exists() else ""
            TARGET.write_text(with_rows(page, {name: line}, list(known)), "utf-8")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
