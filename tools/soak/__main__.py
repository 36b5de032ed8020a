"""Soak: what the lab stands, in figures. `make soak` runs all checks and writes docs/soak.md.

python tools/soak                        # every check: minutes
python tools/soak --only masks,panel     # some of them; the others keep their last figures
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests"), str(ROOT / "tools")]  # toy models are the tests' own

import bad_input
import damage
import disks
import figures
import hostile
import masks
import sharing
import sliders
import sweeps
import torch
from figures import Figure
from toys import save_toy

from dsgp_lab import Lab
from dsgp_lab.evaluate.latency import machine

STORE, TARGET = ROOT / "build" / "soak.json", ROOT / "docs" / "soak.md"
HEAD = """# What it stands

Written by `make soak`; a row holds what a check found, its bar, the time it took, and where it ran. Where
something could not be run, the row says why.

{table}
{rest}"""


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
        "hostile": lambda: hostile.as_strings(lab),
        "browser": lambda: hostile.in_browser(lab),
    }


def stored() -> dict[str, dict[str, object]]:
    """The figures of earlier runs."""
    return json.loads(STORE.read_text("utf-8")) if STORE.exists() else {}


def write(rows: dict[str, dict[str, object]], order: list[str]) -> None:
    """Store the figures, and write the page; what stands below the table there is kept."""
    STORE.parent.mkdir(exist_ok=True)
    STORE.write_text(json.dumps(rows, indent=1), "utf-8")
    table = figures.table([rows[name] for name in order if name in rows])
    old = TARGET.read_text("utf-8") if TARGET.exists() else ""
    rest = old[old.index("\n## ") :] if "\n## " in old else ""
    TARGET.write_text(HEAD.format(table=table, rest=rest), "utf-8")


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
            place = {
                "seconds": time.perf_counter() - start,
                "command": f"make soak SOAK_ARGS='--only {name}'",
                "machine": machine(),
            }
            missed += figure.met is False
            print(f"{name}: {figure.found} -> {figures.VERDICTS[figure.met]}", flush=True)
            write(stored() | {name: figure.record() | place}, list(known))
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
