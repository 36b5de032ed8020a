"""Train checkpoints again under other seeds, by the commands in their cards, for a sweep with `--root`.

    python tools/train_seeds.py --tasks rte,mrpc --runs adaptive,adaptive_twin --seeds 1,2
    python tools/train_seeds.py --tasks cola,rte --runs joint,joint_twin --seeds 0

The regime joint has no cards here: its runs are those of adaptive, with the same budget for every input.
Each goes to runs/seedN/TASK/RUN; a stopped run goes on when called again. A sweep of them, into a folder that
has or will have the cells of seed 0 too: `dsgp-lab sweep --root runs/seed1 --seeds 1 ...`.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
from pathlib import Path

from dsgp_lab.evaluate.sweep_plan import listed, numbers
from dsgp_lab.models import CARD
from dsgp_lab.tasks import data_folder
from dsgp_lab.training.train_router import main as train_router


def arguments_of(task: str, run: str, seed: int, out: Path) -> list[str]:
    """What `dsgp-lab train-router` was given for a shipped checkpoint, with another seed and folder."""
    shipped = run.replace("joint", "adaptive")
    card = json.loads((data_folder() / "checkpoints" / task / shipped / CARD).read_text("utf-8"))
    given = [word for word in shlex.split(card["command"])[2:] if run == shipped or word != "--adaptive"]
    place = given.index("--seed") + 1
    return [*given[:place], str(seed), *given[place + 1 :], "--out", str(out)]


def main(arguments: list[str]) -> int:
    """Train all that is asked for and not there yet; returns 0, or the code of the first that failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", default="cola,mrpc,stsb,rte")
    parser.add_argument("--runs", default="adaptive,adaptive_twin", help="folders in data/checkpoints/TASK")
    parser.add_argument("--seeds", default="1,2")
    parser.add_argument("--root", type=Path, default=Path("runs"))
    chosen = parser.parse_args(arguments)
    for seed in numbers(chosen.seeds, int, "seeds"):
        for task in listed(chosen.tasks) or ():
            for run in listed(chosen.runs) or ():
                home = chosen.root / f"seed{seed}"
                out, target = home / "training" / f"{task}-{run}", home / task / run
                if target.exists():
                    continue
                print(f"{task} {run} seed {seed}")
                code = train_router(arguments_of(task, run, seed, out))
                if code:
                    return code
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copytree(out / "checkpoint", target)
                shutil.rmtree(out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
