"""Fine-tune the base encoder on a task: by low-rank adapters, or in full and made low-rank afterwards.

A larger encoder can be fine-tuned as well, to be the base's teacher. Choices are made on a held-out part of
the training split; the dev splits are evaluated once, at the end, on the checkpoint as it was written.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from dsgp_lab.checkpoints import load_checkpoint, save_checkpoint, update_card
from dsgp_lab.devices import choose_device
from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.dense import predict_logits, to_predictions
from dsgp_lab.evaluate.statistics import bootstrap_metric
from dsgp_lab.models import TaskModel, load_tokenizer
from dsgp_lab.pretrained import check_length, load_encoder, load_pretrained
from dsgp_lab.tasks import Examples, get_task, load_examples, load_teaching, metrics
from dsgp_lab.training.config import FinetuneConfig
from dsgp_lab.training.distillation import take_lesson
from dsgp_lab.training.held_out import hold_out
from dsgp_lab.training.loop import train
from dsgp_lab.training.low_rank import adapted_model, to_low_rank, whole_model
from dsgp_lab.training.overlap import dev_texts, names_in, without
from dsgp_lab.training.teacher import check_teacher, made_by, save_teacher, update_teacher


def finetune(
    config: FinetuneConfig,
    out: Path | str,
    *,
    device: str = "auto",
    dev: bool = True,
    stop_at: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any] | None:
    """Train a task model into ``out/checkpoint`` and return its card; a killed run goes on when called again.

    ``dev=False`` leaves the dev splits alone, as a run that only serves a choice should. ``stop_at`` as in
    ``train``, and then the result is None. Cost: one forward and backward an example and epoch. Limits: one
    device.

    Raises:
        LabError: no data, a device that is not here, ``out`` holds a run with other settings, a held-out part
            larger than the split.
    """
    out, place = Path(out), choose_device(device)
    taught_by = [made_by(check_teacher(path, config)) for path in config.teachers]
    examples = load_examples(config.task, "train")
    rest, held_out = hold_out(examples, config.held_out, config.seed)
    if config.without_texts_of:
        rest = without(rest, dev_texts(names_in(config.without_texts_of)))
    torch.manual_seed(config.seed)
    if config.encoder:
        own = load_encoder(config.encoder, examples.task.labels)
        check_length(own, config.max_length)
        model, tokenizer = own.model.to(place), own.tokenizer
    else:
        start = adapted_model if config.update == "low-rank" else whole_model
        model, tokenizer = start(config, examples).to(place), load_tokenizer()
    lesson = take_lesson(config, rest, held_out, out / "targets", place) if config.teacher else None
    kept = train(config, model, tokenizer, rest, held_out, out, lesson=lesson, stop_at=stop_at, say=say)
    if kept is None:
        return None
    if config.update == "full" and not config.encoder:
        model = to_low_rank(model, config.rank, config.alpha).to(place).eval()
        if len(held_out):
            logits = predict_logits(model, tokenizer, held_out, max_length=config.max_length)
            kept["metrics"] = metrics(examples.task, to_predictions(examples.task, logits), held_out.labels)
    folder = out / "checkpoint"
    card: dict[str, Any] = {
        "task": config.task,
        "data": {
            "train": len(rest),
            "held_out": len(held_out),
            "left_out": len(examples) - len(rest) - len(held_out),
            "available": len(examples),
            "official": examples.task.train_rows,
            "source": "nyu-mll/glue" + (" (a part)" if len(examples) < examples.task.train_rows else ""),
        },
        "seed": config.seed,
        "command": config.command,
        "settings": config.record(),
        "versions": {package: version(package) for package in ("torch", "transformers", "peft")},
        "kept": {"step": kept["step"], "epoch": kept["epoch"]},
        "held_out": kept["metrics"],
    }
    if lesson is not None:
        card["data"]["unlabelled"] = len(lesson.more)
        card["teachers"] = taught_by
    if config.encoder:
        save_teacher(folder, model, tokenizer, card)
        own = load_pretrained(folder)
        own.model.to(place)
        return update_teacher(folder, _judgement(own, config.task, config.max_length) if dev else {})
    save_checkpoint(folder, model, card)
    return evaluate_checkpoint(folder, device=device) if dev else update_card(folder, {})


def evaluate_checkpoint(folder: Path | str, *, device: str = "auto") -> dict[str, Any]:
    """Evaluate a checkpoint on its dev splits and its teaching set, if there is one; write both to its card.

    Each entry is {metric: {"value", "low", "high"}, "n"}; intervals are 95 % bootstrap intervals.
    """
    own = load_checkpoint(folder)
    card = own.card or {}
    own.model.to(choose_device(device))
    return update_card(folder, _judgement(own, card["task"], card["settings"]["max_length"]))


def _judgement(own: TaskModel, task: str, length: int) -> dict[str, Any]:
    """The entries "dev" and "teaching" of a card."""
    results: dict[str, Any] = {"dev": {}}
    splits = [load_examples(task, split) for split in get_task(task).dev_splits]
    for examples in splits:
        results["dev"][examples.split] = _judge(own, examples, length)
    try:
        results["teaching"] = _judge(own, load_teaching(task), length)
    except LabError:
        results["teaching"] = None
    return results


def main(arguments: list[str] | None = None) -> int:
    """``dsgp-lab train TASK``: see ``--help``. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="dsgp-lab train", description=__doc__.splitlines()[0])
    parser.add_argument("task", help="a GLUE task")
    for field in dataclasses.fields(FinetuneConfig)[1:]:
        flag = f"--{field.name.replace('_', '-')}"
        if field.default is False:
            parser.add_argument(flag, action="store_true")
            continue
        kind = str if field.default is None else type(field.default)
        parser.add_argument(flag, type=kind, default=field.default, help="default: %(default)s")
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/TASK)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--no-dev", dest="dev", action="store_false", help="leave the dev splits alone")
    options = vars(parser.parse_args(arguments))
    out, device, dev = (options.pop(name) for name in ("out", "device", "dev"))
    out = out or Path("runs") / options["task"]
    try:
        card = finetune(FinetuneConfig(**options), out, device=device, dev=dev, say=print)
    except LabError as error:
        print(error, file=sys.stderr)
        return 2
    print({"dev": (card or {}).get("dev"), "teaching": (card or {}).get("teaching")})
    return 0


def _judge(own: TaskModel, examples: Examples, length: int) -> dict[str, Any]:
    logits = predict_logits(own.model, own.tokenizer, examples, max_length=length)
    predictions = to_predictions(examples.task, logits)
    result: dict[str, Any] = {}
    for name in examples.task.metrics:
        interval = bootstrap_metric(examples.task, predictions, examples.labels, name)
        result[name] = {key: round(getattr(interval, key), 5) for key in ("value", "low", "high")}
    return result | {"n": len(examples)}


if __name__ == "__main__":
    raise SystemExit(main())
