"""The nine GLUE tasks and the teaching sets: columns, labels, metrics, loaders.

GLUE: Wang et al. 2019, https://gluebenchmark.com. Names, columns and label numbers are those of the Hugging
Face dataset ``nyu-mll/glue``. Test splits are left out: their labels are not public.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dsgp_lab.errors import LabError
from dsgp_lab.rows import glue_rows, parse_rows, read_jsonl

GLUE_FOLDER_VARIABLE = "DSGP_GLUE_DIR"
DATA_FOLDER_VARIABLE = "DSGP_DATA_DIR"


@dataclass(frozen=True)
class Task:
    """One task: what its rows hold and how predictions are judged.

    ``labels`` are the class names in the order of their numbers; a regression task has none, its labels are
    numbers from 0 to 5. The first of ``metrics`` is the one that results are quoted in. ``train_rows`` is the
    size of the whole official training split: a local copy may hold fewer.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    train_rows: int
    train_split: str = "train"
    dev_splits: tuple[str, ...] = ("validation",)

    @property
    def is_pair(self) -> bool:
        """Whether an example is two texts."""
        return len(self.columns) == 2

    @property
    def is_regression(self) -> bool:
        """Whether the label is a number instead of a class."""
        return not self.labels

    @property
    def num_labels(self) -> int:
        """How many outputs a model for this task has (1 for regression)."""
        return len(self.labels) or 1

    @property
    def splits(self) -> tuple[str, ...]:
        """All splits with public labels."""
        return (self.train_split, *self.dev_splits)


_PAIR = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")
_NLI = ("entailment", "neutral", "contradiction")
_MNLI_DEV = ("validation_matched", "validation_mismatched")
_ACCURACY, _WITH_F1 = ("accuracy",), ("accuracy", "f1")

_ALL = (
    Task("cola", "good English?", ("sentence",), ("unacceptable", "acceptable"), ("matthews",), 8_551),
    Task("sst2", "film reviews: sentiment", ("sentence",), ("negative", "positive"), _ACCURACY, 67_349),
    Task("mrpc", "news: same content?", _PAIR, ("not_equivalent", "equivalent"), _WITH_F1, 3_668),
    Task(
        "qqp", "same question?", ("question1", "question2"), ("not_duplicate", "duplicate"), _WITH_F1, 363_846
    ),
    Task("stsb", "likeness of sentences, 0 to 5", _PAIR, (), ("pearson", "spearman"), 5_749),
    Task("mnli", "inference", ("premise", "hypothesis"), _NLI, _ACCURACY, 392_702, dev_splits=_MNLI_DEV),
    Task("qnli", "sentence answers?", ("question", "sentence"), _ENTAILMENT, _ACCURACY, 104_743),
    Task("rte", "first sentence entails second?", _PAIR, _ENTAILMENT, _ACCURACY, 2_490),
    Task("wnli", "whom does the pronoun mean?", _PAIR, ("not_entailment", "entailment"), _ACCURACY, 635),
)

TASKS: dict[str, Task] = {task.name: task for task in _ALL}

SHARED = "glue"
"""Name of the one encoder for all tasks but WNLI."""


def shared_outputs() -> dict[str, slice]:
    """Which outputs of the shared encoder's classifier belong to which task.

    >>> shared_outputs()["mnli"]
    slice(9, 12, None)
    """
    outputs, start = {}, 0
    for task in _ALL:
        if task.name != "wnli":
            outputs[task.name] = slice(start, start + task.num_labels)
            start += task.num_labels
    return outputs


def get_task(name: str) -> Task:
    """Look a task up by its GLUE name.

    >>> get_task("mrpc").columns
    ('sentence1', 'sentence2')

    Raises:
        LabError: for an unknown name; lists the known ones.
    """
    if not isinstance(name, str) or name not in TASKS:
        raise LabError(got=f"task {name!r}", allowed=", ".join(TASKS), hint='write for example task="sst2"')
    return TASKS[name]


@dataclass(frozen=True)
class Examples:
    """Labelled texts of one split.

    ``texts`` holds a tuple of one or two strings an example, ``labels`` class numbers (floats for
    regression), ``tags`` what an example shows (teaching sets only), ``source`` where the rows came from.
    """

    task: Task
    split: str
    source: str
    texts: tuple[tuple[str, ...], ...]
    labels: tuple[int | float, ...]
    tags: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.texts), len(self.labels), len(self.texts if self.tags is None else self.tags)}
        if len(lengths) > 1:
            raise LabError(
                got=f"{len(self.texts)} texts with {len(self.labels)} labels",
                allowed="as many labels and tags as texts",
                hint="give one label, and one tag or none, for each text",
            )

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, positions: Iterable[int]) -> Examples:
        """The examples at these positions, in this order."""
        chosen = list(positions)
        return replace(
            self,
            texts=tuple(self.texts[i] for i in chosen),
            labels=tuple(self.labels[i] for i in chosen),
            tags=None if self.tags is None else tuple(self.tags[i] for i in chosen),
        )

    def where(self, tag: str) -> Examples:
        """The examples that carry a tag.

        Raises:
            LabError: if there are no tags, or none equals ``tag``.
        """
        known = sorted(set(self.tags or ()))
        if tag not in known:
            raise LabError(
                got=f"tag {tag!r}",
                allowed=", ".join(known) or f"no tags: {self.task.name} {self.split} has none",
                hint="choose one of these tags" if known else "load a teaching set with load_teaching",
            )
        return self.take(i for i, own in enumerate(self.tags or ()) if own == tag)

    def sample(self, n: int, seed: int = 0) -> Examples:
        """``n`` examples drawn without repetition, in their old order; the same ones for the same seed."""
        return self.take(sorted(random.Random(seed).sample(range(len(self)), self._checked(n))))

    def split_off(self, n: int, seed: int = 0) -> tuple[Examples, Examples]:
        """Part into (rest, held out), the latter of ``n`` examples drawn by ``seed``."""
        out = set(random.Random(seed).sample(range(len(self)), self._checked(n)))
        return self.take(i for i in range(len(self)) if i not in out), self.take(sorted(out))

    def _checked(self, n: int) -> int:
        if isinstance(n, bool) or not isinstance(n, int) or not 0 <= n <= len(self):
            raise LabError(
                got=f"n={n!r}",
                allowed=f"a whole number from 0 to {len(self)}, the number of examples",
                hint="ask for fewer examples",
            )
        return n


def data_folder() -> Path:
    """Where teaching sets, checkpoints and results live: ``DSGP_DATA_DIR``, else ``data/`` of the clone.

    Raises:
        LabError: if that folder does not exist.
    """
    named = os.environ.get(DATA_FOLDER_VARIABLE)
    folder = Path(named) if named else Path(__file__).resolve().parents[1] / "data"
    if not folder.is_dir():
        raise LabError(
            got=f"data folder {folder}, which does not exist",
            allowed="the folder data/ of a clone of this project",
            hint=f"work in a clone, or set {DATA_FOLDER_VARIABLE} to its data folder",
        )
    return folder


def task_folder(task: str) -> Path:
    """Where a task's dense checkpoint lies; LabError without a data folder."""
    return data_folder() / "checkpoints" / task


def load_examples(task: str, split: str, limit: int | None = None) -> Examples:
    """Load a GLUE split from the folder named by ``DSGP_GLUE_DIR``, else from the Hugging Face hub.

    The folder holds ``<task>/<split>.jsonl`` or ``.jsonl.gz``, one JSON object a line with the columns of
    ``nyu-mll/glue``. ``limit`` keeps the first rows only.

    Raises:
        LabError: unknown task or split, a folder without the file, rows that do not fit, no data at all.
    """
    known = get_task(task)
    if split not in known.splits:
        raise LabError(
            got=f"split {split!r} of {task}",
            allowed=", ".join(known.splits),
            hint=f'write for example split="{known.dev_splits[0]}"',
        )
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise LabError(
            got=f"limit={limit!r}", allowed="a whole number above 0, or None", hint="leave limit out"
        )
    folder = os.environ.get(GLUE_FOLDER_VARIABLE)
    rows, place = glue_rows(known, split, Path(folder) if folder else None, limit)
    texts, labels, _ = parse_rows(known, rows, place)
    return Examples(known, split, GLUE_FOLDER_VARIABLE if folder else "hub", texts, labels)


def load_teaching(task: str) -> Examples:
    """Load the project's own sentences in a task's format, each with a tag that says what it shows.

    Raises:
        LabError: unknown task, or no teaching set for it.
    """
    known = get_task(task)
    folder = data_folder() / "teaching"
    path = folder / f"{task}.jsonl"
    if not path.is_file():
        there = sorted(p.stem for p in folder.glob("*.jsonl"))
        raise LabError(
            got=f"no teaching set for {task} at {path}",
            allowed=", ".join(there) or "none found",
            hint="choose one of these, or load GLUE with load_examples",
        )
    return Examples(known, "teaching", "teaching", *parse_rows(known, read_jsonl(path), str(path)))


def metrics(
    task: str | Task, predictions: Sequence[int | float], labels: Sequence[int | float]
) -> dict[str, float]:
    """Judge predictions by the task's metrics (scikit-learn and scipy).

    Predictions are class numbers, or numbers for a regression task. A correlation with a constant has no
    value; it counts as 0.

    >>> metrics("sst2", [1, 0, 1, 1], [1, 0, 0, 1])
    {'accuracy': 0.75}

    Raises:
        LabError: if the numbers of predictions and labels differ, or there are none.
    """
    known = get_task(task) if isinstance(task, str) else task
    if len(predictions) != len(labels) or not len(labels):
        raise LabError(
            got=f"{len(predictions)} predictions for {len(labels)} labels",
            allowed="as many predictions as labels, at least one",
            hint="predict every example of the split once",
        )
    return {name: _metric(name, predictions, labels) for name in known.metrics}


def _metric(name: str, predictions: Sequence[int | float], labels: Sequence[int | float]) -> float:
    if name in ("pearson", "spearman"):
        from scipy import stats

        if len(set(predictions)) < 2 or len(set(labels)) < 2:
            return 0.0
        correlate = stats.pearsonr if name == "pearson" else stats.spearmanr
        value = float(correlate(predictions, labels).statistic)
        return value if math.isfinite(value) else 0.0
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    if name == "f1":
        return float(f1_score(labels, predictions, zero_division=0.0))
    return float((accuracy_score if name == "accuracy" else matthews_corrcoef)(labels, predictions))
