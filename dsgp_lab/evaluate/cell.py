"""One cell of a sweep: a method on a task's split within one budget, and what came out."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsgp_lab.cascade import LARGE, SMALL
from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.methods import (
    BY_CHANCE,
    BY_LOT,
    CALIBRATED,
    CASCADE,
    DENSE,
    OF_TWIN,
    OTHER_TASK,
    PRICED,
    ROUTED,
    SETTLED,
    check_method,
)
from dsgp_lab.models import CARD, sha256, unreadable
from dsgp_lab.plan import check_keep
from dsgp_lab.regimes import FROZEN, ROUTER, Regime, trained_folder, weights_folder
from dsgp_lab.report import Report
from dsgp_lab.settled import HEAD_PRICE, TOLERANCE
from dsgp_lab.tasks import (
    GLUE_FOLDER_VARIABLE,
    data_folder,
    get_task,
    load_examples,
    shared_outputs,
)

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 2
"""Version of what a cell computes and stores: raise it when either changes, and all cells are made anew."""

TEACHING = "teaching"
"""The project's own sentences as a split."""


@dataclass(frozen=True)
class Cell:
    """What is evaluated. Equal cells on equal checkpoints have equal keys, on every machine.

    `keep` is the share of the encoder's MACs (1.0 for "dense"); `seed` draws what a method leaves to chance,
    and tells apart trainings whose checkpoints lie under different `root`s; `split` is one of the task's or
    "teaching"; `limit` keeps that many examples, drawn from the whole split in the same way for every cell.
    """

    task: str
    regime: Regime
    method: str
    keep: float
    seed: int = 0
    split: str = "validation"
    limit: int | None = None
    root: Path | None = None

    def __post_init__(self) -> None:
        """Refuse names and numbers that no cell can have."""
        trained_folder(self.task, self.regime)  # checks both
        check_method(self.method)
        check_keep(self.keep)
        splits = (*get_task(self.task).splits, TEACHING)
        if self.split not in splits:
            raise LabError(
                got=f"split {self.split!r} of {self.task}",
                allowed=", ".join(splits),
                hint="use one of these",
            )
        if self.method == DENSE and self.keep != 1:
            raise LabError(got=f"dense with keep={self.keep}", allowed="keep=1.0", hint="write keep=1.0")
        if self.limit is not None and self.limit < 1:
            raise LabError(
                got=f"limit={self.limit}", allowed="a whole number above 0, or None", hint="leave it out"
            )

    def __str__(self) -> str:
        """The cell in a line of progress."""
        seed = f" seed {self.seed}" if self.method in BY_CHANCE or self.seed else ""
        return f"{self.task} {self.regime} {self.method} keep {self.keep:g}{seed}"

    @property
    def key(self) -> str:
        """A hash of `configuration`: the name of the cell's file."""
        return key_of(self.configuration())

    def configuration(self) -> dict[str, Any]:
        """Everything that the result depends on, checkpoints by the hashes of their files.

        Raises:
            LabError: a checkpoint that is missing or whose card cannot be read.
        """
        calibration = calibration_split(self.task) if self.method in CALIBRATED else None
        sentences = teaching_file(self.task)
        more: dict[str, Any] = {}
        if self.method == OTHER_TASK and self.split == TEACHING:
            more["donors"] = {t: sha256(teaching_file(t)) for t in donor_tasks(self.task, TEACHING)}
        if self.method in (CASCADE, BY_LOT):
            more["budgets"] = [SMALL, LARGE]
        if self.method in (SETTLED, PRICED):
            more["tolerance"] = TOLERANCE
            more["head_price"] = HEAD_PRICE if self.method == PRICED else 0.0
        return more | {
            "format": FORMAT,
            "task": self.task,
            "regime": self.regime,
            "method": self.method,
            "keep": float(self.keep),
            "seed": self.seed,
            "split": self.split,
            "limit": self.limit,
            "checkpoints": self.checkpoints(),
            "calibration": calibration,
            "teaching": sha256(sentences) if TEACHING in (self.split, calibration) else None,
        }

    @property
    def weights_key(self) -> str:
        """Which of `checkpoints` has the weights."""
        if self.regime == "frozen":
            return DENSE
        twin = self.method in OF_TWIN
        return weights_folder(self.task, self.regime, twin, self.root).name

    def checkpoints(self) -> dict[str, dict[str, str]]:
        """SHA-256 of every file of the checkpoints it uses, as their cards say: {folder: {file: hash}}."""
        found = {}
        if self.regime in FROZEN:
            found[self.weights_key] = _hashes(weights_folder(self.task, self.regime))
        if self.regime not in FROZEN or self.method in ROUTED:
            folder = trained_folder(self.task, self.regime, self.method in OF_TWIN, self.root)
            found[folder.name] = _hashes(folder)
        if self.method not in ROUTED:  # a router that is trained anew leaves these as they are
            found = {name: {k: v for k, v in files.items() if k != ROUTER} for name, files in found.items()}
        return found


@dataclass(frozen=True, eq=False)
class CellResult:
    """Predictions and metrics of a cell, and how they came about.

    predictions: one row an example, with idx (its position in the split), label, prediction, logits, share
    (of the dense encoder's MACs that ran) and tokens. record: configuration, machine, versions of packages,
    start (UTC), seconds.
    """

    cell: Cell
    predictions: pd.DataFrame
    metrics: dict[str, float]
    record: dict[str, Any]

    def report(self) -> Report:
        """Metrics, MACs and time."""
        rows = [(name, f"{value:.4f}") for name, value in self.metrics.items()]
        rows.append(("mean share of MACs", f"{self.predictions['share'].mean():.3f}"))
        rows.append(("examples", str(len(self.predictions))))
        rows.append(("seconds", f"{self.record['seconds']:.1f}"))
        return Report(str(self.cell), tuple(rows))

    def __str__(self) -> str:
        """A text table."""
        return self.report().text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.report().html()


def key_of(configuration: dict[str, Any]) -> str:
    """The key of a cell's configuration; the order of the entries makes no difference.

    >>> key_of({"task": "sst2", "keep": 0.5}) == key_of({"keep": 0.5, "task": "sst2"})
    True
    """
    text = json.dumps(configuration, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def split_problem(task: str, split: str) -> str | None:
    """Why a split cannot be loaded, or None; asked once a process for each GLUE folder."""
    return _split_problem(task, split, os.environ.get(GLUE_FOLDER_VARIABLE))


@lru_cache(maxsize=64)
def _split_problem(task: str, split: str, _folder: str | None) -> str | None:
    try:
        load_examples(task, split, limit=1)
    except LabError as error:
        return error.got
    return None


def calibration_split(task: str) -> str:
    """Where calibration texts come from: the training split, or without one the teaching set."""
    known = get_task(task)
    return TEACHING if split_problem(task, known.train_split) else known.train_split


def teaching_file(task: str) -> Path:
    """Where a task's own sentences lie, whether there are any or not."""
    return data_folder() / "teaching" / f"{task}.jsonl"


def donor_tasks(task: str, split: str) -> list[str]:
    """The other tasks of the shared encoder that have data of the kind of `split`."""
    others = [other for other in shared_outputs() if other != task]
    return [other for other in others if split != TEACHING or teaching_file(other).is_file()]


def _hashes(folder: Path) -> dict[str, str]:
    path = folder / CARD
    try:
        files = json.loads(path.read_text("utf-8"))["files"]
        return {name: files[name]["sha256"] for name in sorted(files)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise unreadable(path, error) from None
