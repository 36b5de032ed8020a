"""Settings of a fine-tuning run, with their command line."""

from __future__ import annotations

import dataclasses
import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dsgp_lab.errors import LabError
from dsgp_lab.tasks import get_task
from dsgp_lab.training.overlap import names_in

PRECISIONS = ("auto", "bf16", "fp32")
UPDATES = ("low-rank", "full")


@dataclass(frozen=True)
class FinetuneConfig:
    """How a task model is fine-tuned: every linear layer, and the head.

    ``update="low-rank"`` trains adapters of ``rank``. ``"full"`` trains whole matrices and keeps the nearest
    change of that rank: steadier where adapters collapse to one class; use a learning rate near 1e-4.
    ``warmup`` is the share of steps in which the learning rate rises; after it it falls linearly to 0.
    ``held_out`` examples leave the training split; the best of ``evaluations`` an epoch on them is kept.
    With ``held_out=0`` the last state is kept. ``average`` is the decay per step of a moving average of the
    weights, which is then evaluated and kept in place of the weights (0: no average). ``start_from`` names a
    checkpoint folder whose adapter is the starting point; ``without_texts_of`` tasks, with commas, whose dev
    sets' texts are left out of training, for a run that models of those tasks will start from.
    ``precision="auto"`` computes in bf16 where the machine has matrix units for it.

    ``encoder`` names another encoder, a folder or a hub name, to be fine-tuned in the base's place: all of
    its weights, into an ordinary Hugging Face checkpoint, which can be a teacher. ``teacher`` names
    folders of such checkpoints, with commas: their mean logits are then the target (Hinton et al. 2015), with
    ``teacher_weight`` against the labels, softened by ``temperature``. A teacher needs no labels:
    ``inputs_of`` names tasks, with commas, whose training texts it judges as well, and ``swap_pairs`` adds
    every pair the other way round.
    """

    task: str
    epochs: int = 3
    batch_size: int = 64
    learning_rate: float = 7e-4
    rank: int = 32
    alpha: int = 64
    seed: int = 0
    warmup: float = 0.06
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    dropout: float = 0.1
    max_length: int = 128
    held_out: int = 600
    evaluations: int = 2
    average: float = 0.0
    precision: str = "auto"
    update: str = "low-rank"
    without_texts_of: str = ""
    encoder: str = ""
    teacher: str = ""
    teacher_weight: float = 1.0
    temperature: float = 1.0
    inputs_of: str = ""
    swap_pairs: bool = False
    start_from: str | None = None

    def __post_init__(self) -> None:
        get_task(self.task)
        for field in dataclasses.fields(self)[1:-1]:
            kinds = (int, float) if isinstance(field.default, float) else type(field.default)
            value = getattr(self, field.name)
            valid = isinstance(value, kinds) and isinstance(value, bool) == isinstance(field.default, bool)
            self._check(field.name, f"a value like {field.default!r}", valid)
        for name in ("epochs", "batch_size", "rank", "alpha", "evaluations"):
            self._check(name, "a whole number from 1", getattr(self, name) >= 1)
        self._check("max_length", "a number of tokens from 8 to 512", 8 <= self.max_length <= 512)
        self._check("held_out", "0 or more examples", self.held_out >= 0)
        self._check("learning_rate", "a number above 0, below 1", 0 < self.learning_rate < 1)
        self._check("weight_decay", "a number from 0", self.weight_decay >= 0)
        for name in ("warmup", "label_smoothing", "dropout", "average"):
            self._check(name, "a number from 0, below 1", 0 <= getattr(self, name) < 1)
        self._check("update", ", ".join(UPDATES), self.update in UPDATES)
        for name in names_in(self.without_texts_of) + self.more_tasks:
            get_task(name)
        self._check("teacher_weight", "a number from 0 to 1", 0 <= self.teacher_weight <= 1)
        self._check("temperature", "a finite number above 0", 0 < self.temperature < math.inf)
        regression = get_task(self.task).is_regression
        self._check("temperature", "1 for a regression", not regression or self.temperature == 1)
        self._check("teacher", "folders, with commas", bool(self.teachers) or not self.teacher)
        for name in ("inputs_of", "swap_pairs", "teacher_weight", "temperature"):
            self._check(name, "nothing without a teacher", bool(self.teacher) or self._is_default(name))
        for name in ("rank", "alpha", "dropout"):
            self._check(name, "nothing beside an encoder", not self.encoder or self._is_default(name))
        self._check("inputs_of", "other tasks", self.task not in self.more_tasks)
        smooth = self.label_smoothing and self.teacher and self.teacher_weight == 1
        self._check("label_smoothing", "0 where no label is used", not smooth)
        self._check("swap_pairs", "pairs", get_task(self.task).is_pair or not self.swap_pairs)
        whole = self.update == "full" and self.start_from is None
        self._check("encoder", "update='full' and no start_from beside it", whole or not self.encoder)
        self._check("precision", ", ".join(PRECISIONS), self.precision in PRECISIONS)

    def _is_default(self, name: str) -> bool:
        return bool(getattr(self, name) == type(self).__dataclass_fields__[name].default)

    def _check(self, name: str, allowed: str, valid: bool) -> None:
        if not valid:
            raise LabError(
                got=f"{name}={getattr(self, name)!r}", allowed=allowed, hint="correct it or leave it out"
            )

    @property
    def teachers(self) -> list[Path]:
        """The folders in ``teacher``."""
        return [Path(name) for name in names_in(self.teacher)]

    @property
    def more_tasks(self) -> list[str]:
        """The names in ``inputs_of``."""
        return names_in(self.inputs_of)

    @property
    def command(self) -> str:
        """The command line of this run, without what is at its default.

        >>> FinetuneConfig("sst2", epochs=2).command
        'dsgp-lab train sst2 --epochs 2 --seed 0'
        """
        words = ["dsgp-lab", "train", self.task]
        for field in dataclasses.fields(self)[1:]:
            value = getattr(self, field.name)
            if value is True:
                words.append(f"--{field.name.replace('_', '-')}")
            elif value != field.default or field.name in ("epochs", "seed"):
                words += [f"--{field.name.replace('_', '-')}", str(value)]
        return shlex.join(words)

    def record(self) -> dict[str, Any]:
        """The settings as plain values."""
        return dataclasses.asdict(self)


def learning_rate_at(step: int, total: int, config: FinetuneConfig) -> float:
    """Learning rate of a step, counted from 0: linear rise over the warm-up, linear fall to 0.

    >>> config = FinetuneConfig("sst2", learning_rate=1e-3, warmup=0.5)
    >>> [round(learning_rate_at(step, 4, config), 6) for step in range(4)]
    [0.0005, 0.001, 0.001, 0.0005]
    """
    rise = math.ceil(total * config.warmup)
    if step < rise:
        return config.learning_rate * (step + 1) / rise
    return config.learning_rate * (total - step) / max(1, total - rise)


def computes_in_bf16(precision: str, device: torch.device) -> bool:
    """Whether a run on this device computes in bf16; "auto" asks for AMX on a CPU, native bf16 on a GPU."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and bool(capabilities.get("amx_bf16", False))
