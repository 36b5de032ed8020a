"""Any method on a user's own labelled file: how well the pruned model does there, beside the dense one."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dsgp_lab.batching import encode
from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.calibration_texts import calibration_batches
from dsgp_lab.evaluate.cell import calibration_split
from dsgp_lab.evaluate.dense import to_predictions
from dsgp_lab.evaluate.methods import (
    BY_LOT,
    CALIBRATED,
    CASCADE,
    DENSE,
    METHODS,
    OF_TWIN,
    ORACLES,
    OTHER_TASK,
    PRICED,
    ROUTED,
    SETTLED,
    best_regime,
    check_method,
    make_method,
    predict,
)
from dsgp_lab.evaluate.paired import paired_difference
from dsgp_lab.evaluate.statistics import Interval, bootstrap_metric
from dsgp_lab.models import load_task_model
from dsgp_lab.own_data import OwnData, Quoting, read_own
from dsgp_lab.plan import check_keep
from dsgp_lab.regimes import FROZEN, Regime, Trained, load_model, load_trained
from dsgp_lab.report import Report, Reported
from dsgp_lab.tasks import Examples, metrics
from dsgp_lab.whole_files import check_place, whole_file

MAX_TOKENS = 128
"""Tokens that `predict` reads of an example, as in training."""

FEW = 30
"""Below this many examples, percentile intervals of the bootstrap are clearly too narrow."""


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Reported):
    """What a method does on labelled examples, beside the task's dense checkpoint.

    metrics maps each of the task's metrics, the main one first, to its values for dense and pruned model;
    difference is the main one's, pruned minus dense, both on the same examples. dense and pruned [examples]
    are predictions: class numbers, for regression numbers; shares [examples] the part of the dense encoder's
    MACs that ran, as in `PrunedPredictions`. regime says whose weights were pruned.
    """

    examples: Examples
    method: str
    regime: Regime
    keep: float
    metrics: dict[str, tuple[Interval, Interval]]
    difference: Interval
    dense: tuple[int | float, ...]
    pruned: tuple[int | float, ...]
    shares: tuple[float, ...]
    notices: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        """The task's name."""
        return self.examples.task.name

    @property
    def n(self) -> int:
        """How many examples."""
        return len(self.examples)

    @property
    def macs(self) -> float:
        """Mean over examples of the share of the dense encoder's MACs that ran."""
        return sum(self.shares) / self.n

    @property
    def agreement(self) -> float:
        """Share of examples with dense's prediction; for regression Pearson's correlation with it."""
        task = self.examples.task
        if task.is_regression:
            return metrics(task, self.pruned, self.dense)["pearson"]
        return sum(a == b for a, b in zip(self.pruned, self.dense, strict=True)) / self.n

    def record(self) -> dict[str, Any]:
        """Everything but the single examples, as JSON can hold it."""
        return {
            "task": self.task,
            "file": self.examples.source,
            "method": self.method,
            "regime": self.regime,
            "keep": self.keep,
            "n": self.n,
            "macs": self.macs,
            "agreement": self.agreement,
            "confidence": self.difference.confidence,
            "metrics": {
                name: {"dense": _ends(dense), "pruned": _ends(pruned)}
                for name, (dense, pruned) in self.metrics.items()
            },
            "difference": {"metric": next(iter(self.metrics)), **_ends(self.difference)},
            "notices": list(self.notices),
        }

    def report(self) -> Report:
        """The models side by side."""
        d, regression = self.difference, self.examples.task.is_regression
        main = next(iter(self.metrics))
        rows = (
            *((name, str(dense), str(pruned)) for name, (dense, pruned) in self.metrics.items()),
            (f"difference in {main}", "", f"{d.value:+.4f} [{d.low:+.4f}, {d.high:+.4f}]"),
            ("correlation with dense" if regression else "same as dense", "", f"{self.agreement:.4f}"),
            ("share of the encoder's MACs", "1.0000", f"{self.macs:.4f}"),
        )
        notes = (
            f"{self.n} examples, budget {self.keep:g}. In brackets: {d.confidence:.0%} intervals over"
            " examples, that of the difference paired.",
            *self.notices,
        )
        title = f"{self.task}, {self.examples.source}: {self.method}, weights {self.regime}"
        return Report(title, rows, ("", DENSE, "pruned"), notes)

    def save_predictions(self, path: Path | str) -> None:
        """Write one row an example as CSV: texts, label, dense and pruned prediction, share of MACs.

        Classes stand by name. `read_own` reads the file again.

        Raises:
            LabError: the file cannot be written.
        """
        task = self.examples.task
        columns = (self.examples.labels, self.dense, self.pruned)
        with whole_file(Path(path)) as scratch, scratch.open("w", encoding="utf-8", newline="") as file:
            # every text in quotes: before Python 3.13 a lone carriage return would stay outside of them
            writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
            writer.writerow([*task.columns, "label", "dense", "pruned", "macs"])
            for text, values, share in zip(
                self.examples.texts, zip(*columns, strict=True), self.shares, strict=True
            ):
                shown = values if task.is_regression else [task.labels[int(value)] for value in values]
                writer.writerow([*text, *shown, share])


def evaluate_file(
    path: Path | str,
    task: str,
    method: str = "router",
    keep: float = 0.6,
    *,
    regime: Regime | None = None,
    quoting: Quoting = "minimal",
    predictions: Path | str | None = None,
    root: Path | None = None,
) -> Evaluation:
    """Evaluate a method on a labelled file (see `read_own`), and write its `predictions` if a path is given.

    Raises:
        LabError: as `read_own`, `evaluate_own` and `save_predictions` do.
    """
    if predictions is not None:
        _check_target(Path(predictions), Path(path))  # before the work, not after it
    data = read_own(path, task, quoting)
    evaluation = evaluate_own(data, method, keep, regime=regime, root=root)
    if predictions is not None:
        evaluation.save_predictions(predictions)
    return evaluation


def evaluate_own(
    data: OwnData,
    method: str = "router",
    keep: float = 0.6,
    *,
    regime: Regime | None = None,
    root: Path | None = None,
) -> Evaluation:
    """Run a method within `keep` of the encoder's MACs over examples, and the task's dense checkpoint.

    `regime` says whose weights are pruned. By default those of the dense checkpoint; for methods with a
    router or twin those of adaptive or joint, the first that is there. `root` holds other checkpoints, as in
    `load_trained`.

    Raises:
        LabError: an unknown method or regime, a budget that is no share, no such checkpoint.
    """
    check_keep(keep)
    check_method(method)
    if method == OTHER_TASK:
        raise LabError(
            got=f"method {method!r} for one task's file",
            allowed=", ".join(name for name in METHODS if name != OTHER_TASK),
            hint="dsgp-lab sweep --regimes shared_frozen,shared --methods router,other_task compares them",
        )
    examples, task = data.examples, data.examples.task
    regime = regime or best_regime(task.name, method, root)
    trained = _trained(task.name, method, regime, root)
    subnetwork, tokenizer = trained.subnetwork(), trained.own.tokenizer
    # not the user's file, whose labels would then be seen beforehand
    texts = partial(calibration_batches, task.name, method, calibration_split(task.name), tokenizer)
    made = make_method(method, subnetwork.anatomy, router=trained.router, calibration=texts)
    run = predict(method, made, subnetwork, tokenizer, examples, keep, calibration=texts)
    reference = trained if regime == "frozen" else Trained(load_task_model(task.name), None)
    whole = predict(DENSE, None, reference.subnetwork(), reference.own.tokenizer, examples, 1.0)
    pruned, dense = (to_predictions(task, logits) for logits in (run.logits, whole.logits))
    return Evaluation(
        examples=examples,
        method=method,
        regime=regime,
        keep=1.0 if method == DENSE else keep,
        metrics={
            name: (
                bootstrap_metric(task, dense, examples.labels, name),
                bootstrap_metric(task, pruned, examples.labels, name),
            )
            for name in task.metrics
        },
        difference=paired_difference(task, pruned, dense, examples.labels),
        dense=tuple(dense),
        pruned=tuple(pruned),
        shares=tuple(run.shares.tolist()),
        notices=(*data.notices, *_notices(examples, tokenizer, method)),
    )


def _trained(task: str, method: str, regime: Regime, root: Path | None) -> Trained:
    if regime in FROZEN and method not in ROUTED:
        return Trained(load_model(task, regime, root=root), None)
    return load_trained(task, regime, twin=method in OF_TWIN, root=root)


def _notices(examples: Examples, tokenizer: Any, method: str) -> list[str]:
    """What the figures do not say of themselves."""
    notices = []
    encoded = encode(tokenizer, examples.texts, 10**9)
    cut = sum(len(item.ids) > MAX_TOKENS for item in encoded)
    if cut:
        notices.append(f"{cut} of {len(encoded)} examples were cut to {MAX_TOKENS} tokens.")
    special = set(tokenizer.all_special_ids)
    unread = sum(set(item.ids) <= special for item in encoded)
    if unread:
        notices.append(f"{unread} of {len(encoded)} examples hold nothing that the model can read.")
    if len(encoded) < FEW:
        notices.append(f"Fewer than {FEW} examples: the intervals are too narrow.")
    if len(set(examples.labels)) == 1:
        notices.append("All labels are the same: the figures say nothing of the other answers.")
    if method in (CASCADE, BY_LOT) and examples.task.is_regression:
        notices.append("A regression's answers have no margin: the twin's mask of this budget ran instead.")
    elif method in CALIBRATED:
        what = "The threshold was chosen on" if method in (CASCADE, BY_LOT) else "Scores are means over"
        what = "The router was settled on" if method in (SETTLED, PRICED) else what
        notices.append(f"{what} texts of {examples.task.name} {calibration_split(examples.task.name)}.")
    if method in ORACLES:
        notices.append("An oracle looks at the whole model's run: its own cost is not charged.")
    return notices


def _check_target(target: Path, source: Path) -> None:
    """Refuse a path that predictions cannot or must not go to."""
    if target.suffix.lower() != ".csv":
        raise _unwritable(target, f"with the ending {target.suffix!r}")
    if target.is_dir() or not target.parent.is_dir():
        raise _unwritable(target, "a folder" if target.is_dir() else f"and no folder {target.parent}")
    if target.exists() and source.exists() and target.samefile(source):
        raise _unwritable(target, "the file with the data")
    check_place(target)


def _unwritable(path: Path, what: str) -> LabError:
    return LabError(
        got=f"predictions to {path}, {what}",
        allowed="a .csv file of its own in a folder that exists",
        hint="choose another name, such as predictions.csv",
    )


def _ends(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}
