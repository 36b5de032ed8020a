"""Train a router for a task: alone, on the dense checkpoint as it is, or together with the weights."""

from __future__ import annotations

import argparse
import dataclasses
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dsgp_lab.anatomy import Anatomy, Inputs
from dsgp_lab.batching import Encoded, collate, encode
from dsgp_lab.checkpoints import load_checkpoint, save_checkpoint, update_card
from dsgp_lab.cost import CostModel
from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.dense import predict_logits
from dsgp_lab.models import TaskModel
from dsgp_lab.regimes import ROUTER
from dsgp_lab.router import Router, RouterShape
from dsgp_lab.sensitivity import Fisher, Sensitivity
from dsgp_lab.tasks import Examples, data_folder, load_examples
from dsgp_lab.training.config import computes_in_bf16
from dsgp_lab.training.held_out import hold_out
from dsgp_lab.training.router_config import RouterConfig
from dsgp_lab.training.router_loop import RouterTraining, calibrate, feature_statistics


CALIBRATION_TEXTS = 512


@dataclass(frozen=True)
class RouterData:
    """A task's training data for routers: texts, their encodings, the dense model's logits, held-out texts."""

    examples: Examples
    encoded: list[Encoded]
    targets: Tensor
    held_out: Examples


def train_router(
    config: RouterConfig,
    out: Path | str,
    *,
    dense: Path | None = None,
    stop_at: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any] | None:
    """Train a router into ``out/checkpoint`` and return its card; a killed run goes on when called again.

    ``dense`` is the folder of the dense checkpoint (default: the task's own). The router starts as the static
    Fisher plan of the dense model. None if ``stop_at`` steps were reached before the end.

    Raises:
        LabError: no data, no dense checkpoint, or ``out`` holds a run with other settings.
    """
    out = Path(out)
    source = dense or data_folder() / "checkpoints" / config.task
    own = load_checkpoint(source)
    data = _data(own, config, out)
    anatomy = Anatomy.of(own.model, order=own.neuron_order)
    calibration = _batches(own, _long_sample(data.examples), config.max_length)
    router = _fresh_router(config, anatomy, calibration)
    if config.regime == "joint":
        anatomy = Anatomy.of(_trainable(source, own), order=own.neuron_order)
    training = RouterTraining(
        config, anatomy, router, data.examples.task, data.encoded, data.examples.labels, data.targets, out, say
    )
    if not training.run(stop_at=stop_at):
        return None
    held_out = [inputs for inputs, _ in _batches(own, data.held_out, config.max_length)]
    shares = calibrate(anatomy, router, held_out)
    folder = out / "checkpoint"
    folder.mkdir(parents=True, exist_ok=True)
    router.save(folder / ROUTER)
    card: dict[str, Any] = {
        "task": config.task,
        "seed": config.seed,
        "command": config.command,
        "settings": config.record(),
        "data": {"train": len(data.examples), "held_out": len(data.held_out)},
        "shares_before_calibration": {str(key): round(value, 4) for key, value in shares.items()},
        "versions": {package: version(package) for package in ("torch", "transformers", "peft")},
    }
    if config.regime == "joint":
        save_checkpoint(folder, anatomy.model, card, own.neuron_order)
    return update_card(folder, card)


def _data(own: TaskModel, config: RouterConfig, out: Path) -> RouterData:
    """Training examples without the part held out from the dense model; the dense logits are kept in `out`."""
    settings = (own.card or {})["settings"]
    rest, held_out = hold_out(load_examples(config.task, "train"), settings["held_out"], settings["seed"])
    encoded = encode(own.tokenizer, rest.texts, config.max_length)
    long = [i for i, item in enumerate(encoded) if len(item.ids) >= config.min_tokens]
    if not long:
        raise LabError(
            got=f"min_tokens={config.min_tokens}, and no such example",
            allowed="a length that some examples reach",
            hint="lower min_tokens",
        )
    needed = min(len(long), config.steps * config.batch_size)
    chosen = sorted(random.Random(config.seed).sample(long, needed))
    rest, encoded = rest.take(chosen), [encoded[i] for i in chosen]
    path = out / "targets.pt"
    if path.is_file():
        targets = torch.load(path, weights_only=True)
    else:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=computes_in_bf16("auto", torch.device("cpu"))):
            targets = predict_logits(own.model, own.tokenizer, rest, max_length=config.max_length)
        out.mkdir(parents=True, exist_ok=True)
        torch.save(targets, path)
    return RouterData(rest, encoded, targets, held_out)


def _fresh_router(
    config: RouterConfig, anatomy: Anatomy, calibration: Sequence[tuple[Inputs, Tensor]]
) -> Router:
    torch.manual_seed(config.seed)
    router = Router(RouterShape.of(anatomy, config.kind, config.width))
    router.standardise(*feature_statistics(anatomy, [inputs for inputs, _ in calibration]))
    fisher = Sensitivity.stack([Fisher()(anatomy, inputs, labels) for inputs, labels in calibration])
    router.start_from_ranking(static_ranks(fisher, CostModel.of(anatomy)))
    return router


def static_ranks(sensitivity: Sensitivity, cost: CostModel, length: int = 25) -> Tensor:
    """The budget at which each unit joins the static plan of a batch's mean scores [layers, units].

    Units are ordered by score per MAC; a unit's rank is the share of all MACs up to its middle.
    """
    scores = torch.cat([sensitivity.heads, sensitivity.blocks], dim=-1).mean(0)
    macs = torch.tensor([cost.head(length)] * cost.num_heads + [cost.block(length)] * cost.num_blocks)
    macs = macs.double().expand(cost.num_layers, -1).flatten()
    order = (scores.flatten().double() / macs).argsort(descending=True)
    ends = macs[order].cumsum(0)
    ranks = torch.empty_like(ends)
    ranks[order] = (ends - macs[order] / 2) / macs.sum()
    return ranks.float().view_as(scores)


def _trainable(source: Path, own: TaskModel) -> Any:
    """The dense checkpoint with its adapter still apart, ready to train on."""
    from peft import PeftModel

    from dsgp_lab.models import load_base, quiet

    base = load_base(own.model.config.num_labels)
    with quiet():
        return PeftModel.from_pretrained(base, str(source), is_trainable=True)


def _long_sample(examples: Examples) -> Examples:
    """Calibration examples from the longer half: training texts are often shorter than those of the dev sets."""
    ranked = sorted(range(len(examples)), key=lambda i: -sum(len(text) for text in examples.texts[i]))
    half = ranked[: max(1, len(ranked) // 2)]
    return examples.take(half).sample(min(CALIBRATION_TEXTS, len(half)))


def _batches(own: TaskModel, examples: Examples, max_length: int, size: int = 32) -> list[tuple[Inputs, Tensor]]:
    encoded = encode(own.tokenizer, examples.texts, max_length)
    ranked = sorted(range(len(encoded)), key=lambda i: len(encoded[i].ids))
    batches: list[tuple[Inputs, Tensor]] = []
    for start in range(0, len(ranked), size):
        rows = ranked[start : start + size]
        inputs = collate([encoded[i] for i in rows], own.tokenizer.pad_token_id)
        batches.append((inputs, torch.tensor([examples.labels[i] for i in rows])))
    return batches


def main(arguments: list[str] | None = None) -> int:
    """``dsgp-lab train-router TASK``: see ``--help``. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="dsgp-lab train-router", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("task", help="a GLUE task with a dense checkpoint")
    for field in dataclasses.fields(RouterConfig)[1:]:
        flag = f"--{field.name.replace('_', '-')}"
        if field.default is False:
            parser.add_argument(flag, action="store_true")
        else:
            parser.add_argument(flag, type=type(field.default), default=field.default, help="default: %(default)s")
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/TASK-REGIME-KIND)")
    parser.add_argument("--dense", type=Path, help="folder of the dense checkpoint (default: the task's own)")
    options = vars(parser.parse_args(arguments))
    out, dense = options.pop("out"), options.pop("dense")
    try:
        config = RouterConfig(**options)
        out = out or Path("runs") / f"{config.task}-{config.regime}-{config.kind}"
        train_router(config, out, dense=dense, say=print)
    except LabError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
