"""Settings of a router training run, with their command line."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from dsgp_lab.errors import LabError
from dsgp_lab.router import RouterKind
from dsgp_lab.tasks import SHARED, get_task
from dsgp_lab.training.config import UPDATES
from dsgp_lab.training.overlap import names_in

Regime = Literal["frozen", "joint"]


@dataclass(frozen=True)
class RouterConfig:
    """How a router is trained on a task ("glue": all tasks in one encoder).

    In the regime "frozen" it is trained alone, in "joint" with the weights.

    Each step draws a budget between ``lowest`` and 1; the loss is the distance of the logits from the dense
    model's, plus ``budget_weight`` times the squared gap between the share of MACs that ran and the budget:
    for every input, or with ``adaptive`` for the batch's mean, so that inputs may trade. ``distillation`` and
    ``labels`` weigh the distance against the task's own loss. With ``lowest=1`` nothing is pruned: plain
    training of the weights, for several tasks in one encoder. ``noise`` is the scale of the logistic noise on
    the logits; it falls to a tenth over the last 40 % of the steps. ``min_tokens`` leaves shorter inputs out.
    Weights are trained through the adapter of the model they start from (``update="low-rank"``), or whole
    matrices are, and the nearest change of ``rank`` is kept (``"full"``; use a learning rate near 1e-4).
    ``inputs_of`` names tasks, with commas, whose training texts are added without their labels, until there
    are as many inputs as the steps use: the dense model says what their outputs should be. Before them come
    ``perturbed`` copies of each of the task's own texts, with words left out or exchanged at random.
    ``start_from`` is the folder of a router's checkpoint of the same regime to go on from: a static twin's
    makes a router that begins as that twin. With ``rank_by_task``, a router of all tasks first learns each
    task's own static ranking of the units from its inputs.
    """

    task: str
    regime: Regime = "frozen"
    kind: RouterKind = "layerwise"
    adaptive: bool = False
    steps: int = 600
    batch_size: int = 32
    learning_rate: float = 2e-3
    bias_learning_rate: float = 2e-2
    weights_learning_rate: float = 3e-4
    update: str = "low-rank"
    rank: int = 32
    lowest: float = 0.2
    budget_weight: float = 30.0
    distillation: float = 1.0
    temperature: float = 1.0
    labels: float = 0.0
    noise: float = 1.0
    width: int = 64
    min_tokens: int = 0
    inputs_of: str = ""
    perturbed: int = 0
    start_from: str = ""
    rank_by_task: bool = False
    max_length: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every setting."""
        if self.task != SHARED:
            get_task(self.task)
        for name, allowed in (
            ("regime", get_args(Regime)),
            ("kind", get_args(RouterKind)),
            ("update", UPDATES),
        ):
            self._check(name, ", ".join(allowed), getattr(self, name) in allowed)
        for name in ("steps", "batch_size", "width", "rank"):
            self._check(name, "a whole number from 1", getattr(self, name) >= 1)
        for name in ("learning_rate", "bias_learning_rate", "weights_learning_rate"):
            self._check(name, "a number above 0, below 1", 0 < getattr(self, name) < 1)
        for name in ("budget_weight", "distillation", "labels", "noise", "min_tokens", "perturbed"):
            self._check(name, "a number from 0", getattr(self, name) >= 0)
        for name in self.more_tasks:
            get_task(name)
        alone = not (self.labels or self.task == SHARED)
        self._check("inputs_of", "other tasks", self.task not in self.more_tasks)
        self._check(
            "inputs_of", "nothing where labels are used, or for all tasks", alone or not self.more_tasks
        )
        self._check("perturbed", "0 where labels are used, or for all tasks", alone or not self.perturbed)
        trains = self.regime == "joint" or (self.update == "low-rank" and self.rank == 32)
        self._check("regime", '"joint", where update or rank are set', trains)
        self._check("start_from", "nothing for all tasks", not (self.start_from and self.task == SHARED))
        self._check("rank_by_task", "nothing for one task", not self.rank_by_task or self.task == SHARED)
        self._check("lowest", "a number above 0, at most 1", 0 < self.lowest <= 1)
        nothing = self.lowest == 1 and self.regime != "joint"  # no unit is cut, and no weight is trained
        self._check("lowest", "a number below 1, where the weights stay as they are", not nothing)
        self._check("temperature", "a number above 0", self.temperature > 0)

    def _check(self, name: str, allowed: str, valid: bool) -> None:
        if not valid:
            raise LabError(
                got=f"{name}={getattr(self, name)!r}", allowed=allowed, hint="correct it or leave it out"
            )

    @property
    def more_tasks(self) -> list[str]:
        """The names in ``inputs_of``."""
        return names_in(self.inputs_of)

    @property
    def command(self) -> str:
        """The command line of this run, without what is at its default.

        >>> RouterConfig("sst2", kind="constant").command
        'dsgp-lab train-router sst2 --kind constant --seed 0'
        """
        words = ["dsgp-lab", "train-router", self.task]
        for field in dataclasses.fields(self)[1:]:
            value = getattr(self, field.name)
            if value is True:
                words.append(f"--{field.name.replace('_', '-')}")
            elif value != field.default or field.name == "seed":
                words += [f"--{field.name.replace('_', '-')}", str(value)]
        return " ".join(words)

    def noise_at(self, step: int) -> float:
        """Noise scale of a step: full for 60 % of them, then falling to a tenth.

        >>> config = RouterConfig("sst2", steps=10)
        >>> [round(config.noise_at(step), 2) for step in (0, 6, 8, 10)]
        [1.0, 1.0, 0.55, 0.1]
        """
        late = max(0.0, step / self.steps - 0.6) / 0.4
        return self.noise * (1 - 0.9 * late)

    def record(self) -> dict[str, Any]:
        """The settings as plain values."""
        return dataclasses.asdict(self)
