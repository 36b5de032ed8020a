"""Train a router for a task: alone, on the dense checkpoint as it is, or together with the weights."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dsgp_lab.anatomy import Anatomy
from dsgp_lab.checkpoints import NEURON_ORDER, save_checkpoint, update_card, verified_card
from dsgp_lab.devices import choose_device
from dsgp_lab.errors import LabError
from dsgp_lab.regimes import DENSE_FILES, ROUTER, digests_of
from dsgp_lab.tasks import SHARED, task_folder
from dsgp_lab.training.low_rank import to_low_rank
from dsgp_lab.training.router_config import RouterConfig
from dsgp_lab.training.router_loop import RouterTraining, calibrate
from dsgp_lab.training.router_start import fresh_router, shared_start, task_start
from dsgp_lab.whole_files import make_folder


def train_router(
    config: RouterConfig,
    out: Path | str,
    *,
    dense: Path | None = None,
    device: str = "auto",
    stop_at: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any] | None:
    """Train a router into ``out/checkpoint`` and return its card; a killed run goes on when called again.

    ``dense`` is the folder of the checkpoint to start from (default: the task's own; for the task "glue" in
    the regime "joint" a fresh encoder). The router starts as the static Fisher plan of that model. None if
    ``stop_at`` steps were reached before the end.

    Raises:
        LabError: no data, no dense checkpoint, or ``out`` holds a run with other settings or another
            checkpoint to start from.
    """
    out, place = Path(out), choose_device(device)
    begin = shared_start if config.task == SHARED else task_start
    begun_with = dense or _usual(config)
    if config.task != SHARED and begun_with is not None and not (begun_with / NEURON_ORDER).is_file():
        say(f"{begun_with} has no order of its neurons: blocks are as trained, which cuts worse.")
        say(f"To put them in order first: dsgp-lab order {config.task} --by importance")
    start = begin(config, dense, out.parent / "targets", place)
    router = fresh_router(config, start)
    folders = {"dense": begun_with}
    folders["start_from"] = Path(config.start_from) if config.start_from else None
    begun = {
        f"{name}/{file}": digest
        for name, folder in folders.items()
        if folder is not None
        for file, digest in digests_of(folder, every=True).items()
    }
    training = RouterTraining(config, start.trained, router, start.sources, out, say, begun)
    if not training.run(stop_at=stop_at):
        return None
    trained, adapter = start.trained, start.adapter
    if config.regime == "joint" and adapter is None:
        adapter = to_low_rank(trained.model, config.rank, config.rank).to(place).eval()
        trained = Anatomy.of(adapter.get_base_model(), order=trained.order)
    # without pruning the router has learned nothing that could be calibrated
    shares = calibrate(trained, router, start.held_out) if config.lowest < 1 else {}
    folder = make_folder(out / "checkpoint")
    router.save(folder / ROUTER)
    card: dict[str, Any] = {
        "task": config.task,
        "seed": config.seed,
        "command": config.command,
        "settings": config.record(),
        "data": {source.task.name: len(source.labels) for source in start.sources},
        "unlabelled": sum(len(source.encoded) - len(source.labels) for source in start.sources),
        "held_out": sum(len(inputs["input_ids"]) for inputs in start.held_out),
        "shares_before_calibration": {str(key): round(value, 4) for key, value in shares.items()},
        "versions": {package: version(package) for package in ("torch", "transformers", "peft")},
    }
    if dense:
        card["command"] += f" --dense {dense}"
    given = [Path(folder) for folder in (dense, config.start_from) if folder]
    if given:
        card["begun_by"] = [verified_card(folder, ())["command"] for folder in given]
    if config.regime == "frozen":
        card[DENSE_FILES] = digests_of(dense or task_folder(config.task))
    if config.regime == "joint":
        save_checkpoint(folder, adapter, card, trained.order)
    return update_card(folder, card)


def _usual(config: RouterConfig) -> Path | None:
    """The checkpoint that a run begins with unless another is named; None for a fresh encoder."""
    fresh = config.task == SHARED and config.regime == "joint"
    return None if fresh else task_folder(config.task)


def main(arguments: list[str] | None = None) -> int:
    """``dsgp-lab train-router TASK``: see ``--help``. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="dsgp-lab train-router", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("task", help="a GLUE task with a dense checkpoint")
    for field in dataclasses.fields(RouterConfig)[1:]:
        flag = f"--{field.name.replace('_', '-')}"
        if field.default is False:
            parser.add_argument(flag, action="store_true")
        else:
            parser.add_argument(
                flag, type=type(field.default), default=field.default, help="default: %(default)s"
            )
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/TASK-REGIME-KIND)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--dense", type=Path, help="folder of the dense checkpoint (default: the task's own)")
    options = vars(parser.parse_args(arguments))
    out, dense, device = options.pop("out"), options.pop("dense"), options.pop("device")
    try:
        config = RouterConfig(**options)
        out = out or Path("runs") / f"{config.task}-{config.regime}-{config.kind}"
        train_router(config, out, dense=dense, device=device, say=print)
    except LabError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
