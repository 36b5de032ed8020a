"""Train a router live, on a few sentences: minutes become seconds, and nothing is written to disk.

The training itself is `RouterTraining`; here it gets its examples from a Lab, runs in a scratch folder and
computes in float32 everywhere, so that machines differ by rounding alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from dsgp_lab.batching import encode
from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.dense import predict_logits
from dsgp_lab.mask import Mask
from dsgp_lab.report import Report
from dsgp_lab.router import Router
from dsgp_lab.sensitivity import Fisher, Sensitivity
from dsgp_lab.tasks import Examples
from dsgp_lab.training.router_config import RouterConfig
from dsgp_lab.training.router_data import labelled_batches
from dsgp_lab.training.router_loop import LOG, RouterTraining, Source, calibrate
from dsgp_lab.training.router_start import Start, fresh_router

if TYPE_CHECKING:
    from dsgp_lab.lab import Lab

CALIBRATION = 32
"""Examples that budgets are calibrated on: each costs ten gated runs."""


@dataclass(frozen=True, eq=False)
class Taught:
    """A trained router with its settings and its log, one row for every 25 steps (means over these steps).

    A row has step, distance (of the logits from the dense model's, divergence), gap (of the batch's share of
    MACs from the budget) and spread (standard deviation of the shares in a batch).
    """

    config: RouterConfig
    router: Router
    log: tuple[dict[str, float], ...]

    def curve(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and the values of one column of the log, each [rows]."""
        return np.array([row["step"] for row in self.log]), np.array([row[name] for row in self.log])

    def report(self) -> Report:
        """Rows for print and notebook."""
        columns = ("step", "distance", "gap", "spread")
        rows = tuple((f"{row['step']:g}", *(f"{row[name]:.3f}" for name in columns[1:])) for row in self.log)
        return Report(f"Router, {self.config.kind}, {self.config.steps} steps", rows, columns)

    def __str__(self) -> str:
        """A text table."""
        return self.report().text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.report().html()


def prepare(lab: Lab, examples: Examples) -> Start:
    """What training on these examples begins with: the dense logits as targets, static scores, features.

    Budgets are calibrated on some of the examples, so that whatever was held out stays unseen.

    Raises:
        LabError: examples of a task with another number of outputs, or fewer than two.
    """
    outputs = lab.model.config.num_labels
    if examples.task.num_labels != outputs or len(examples) < 2:
        raise LabError(
            got=f"{len(examples)} examples of {examples.task.name} for a model of {outputs} outputs",
            allowed="at least two examples of the model's own task",
            hint="pass load_teaching(...) of the lab's task",
        )
    targets = predict_logits(lab.model, lab.tokenizer, examples)
    encoded = encode(lab.tokenizer, examples.texts, RouterConfig.max_length)
    batches = labelled_batches(lab.tokenizer, examples)
    some = examples.sample(min(CALIBRATION, len(examples)))
    return Start(
        dense=lab.anatomy,
        trained=lab.anatomy,
        sources=[Source(examples.task, encoded, examples.labels, targets)],
        held_out=[inputs for inputs, _ in labelled_batches(lab.tokenizer, some, size=8)],
        calibration=[inputs for inputs, _ in batches],
        fisher=Sensitivity.stack([Fisher()(lab.anatomy, inputs, labels) for inputs, labels in batches]),
        groups=torch.zeros(len(examples), dtype=torch.long),
    )


def teach(start: Start, config: RouterConfig) -> Taught:
    """Train a router on a model that stays as it is, and calibrate it; the same result for the same seed.

    Cost: two to three dense runs a training example, and ten for each example that is calibrated on.

    Raises:
        LabError: the regime "joint", which trains the weights as well.
    """
    if config.regime != "frozen":
        raise LabError(
            got=f"regime={config.regime!r}",
            allowed="'frozen': the router alone is trained",
            hint="train weights with dsgp-lab train-router",
        )
    with torch.random.fork_rng(devices=[]), _fixed(start.trained.model), TemporaryDirectory() as scratch:
        router = fresh_router(config, start)
        training = RouterTraining(config, start.trained, router, start.sources, Path(scratch))
        training.bf16 = False  # its rounding depends on the machine
        training.run()
        lines = (Path(scratch) / LOG).read_text("utf-8").splitlines()
        calibrate(start.trained, router, start.held_out)
    return Taught(config, router, tuple(json.loads(line) for line in lines))


def varying_units(masks: Mask, rare: float = 0.02) -> int:
    """How many units run for some inputs and not for others: more than `rare` of them, and not nearly all.

    >>> heads = torch.tensor([[[True, True]], [[True, False]]])
    >>> varying_units(Mask(heads, torch.ones(2, 1, 3, dtype=torch.bool)))
    1
    """
    kept = torch.cat([masks.heads.flatten(1), masks.blocks.flatten(1)], dim=1).float().mean(0)
    return int(((kept > rare) & (kept < 1 - rare)).sum())


@contextmanager
def _fixed(model: nn.Module | Any) -> Iterator[None]:
    """Inside the context no weight of the model takes a gradient, which would cost a third of the time."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for parameter, _ in before:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, wanted in before:
            parameter.requires_grad_(wanted)
