"""Made-up cells for the tests of sweeps and results: a data folder with cards alone, and predictions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dsgp_lab.evaluate.cell import Cell, CellResult
from dsgp_lab.regimes import ROUTER, Regime, trained_folder
from dsgp_lab.tasks import TASKS, get_task, metrics

TEACHING_SETS = Path(__file__).resolve().parents[1] / "data" / "teaching"


def silent(line: str) -> None:
    """Say nothing."""


def card(folder: Path, **files: str) -> None:
    """A checkpoint's card that names these files and hashes."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = {name.replace("__", "."): {"sha256": digest} for name, digest in files.items()}
    (folder / "card.json").write_text(json.dumps({"files": entries}), "utf-8")


def data_of_cards(home: Path, monkeypatch: pytest.MonkeyPatch, tasks: Iterable[str] = ("sst2",)) -> Path:
    """A data folder whose checkpoints are cards, and no GLUE; returns its checkpoints."""
    monkeypatch.setenv("DSGP_DATA_DIR", str(home))
    monkeypatch.setenv("DSGP_GLUE_DIR", str(home / "no-glue"))
    shutil.copytree(TEACHING_SETS, home / "teaching")
    checkpoints = home / "checkpoints"
    for task in tasks:
        card(checkpoints / task, adapter_model__safetensors="a" * 64)
        for twin in (False, True):
            card(trained_folder(task, "frozen", twin), router__safetensors="r" * 64)
    assert ROUTER == "router.safetensors"
    return checkpoints


def made_cell(
    task: str,
    method: str = "dense",
    keep: float = 1.0,
    *,
    flip: float = 0.0,
    regime: Regime = "frozen",
    seed: int = 0,
    n: int = 60,
    noise: int = 0,
    **changes: Any,
) -> CellResult:
    """A result whose predictions are wrong (or noisy) for the share `flip` of examples, drawn by `noise`."""
    known = get_task(task)
    split = changes.pop("split", known.dev_splits[0])
    cell = Cell(
        task, regime, method, keep, seed, split, changes.pop("limit", None), changes.pop("root", None)
    )
    drawn = np.random.default_rng(list(TASKS).index(task))
    labels = drawn.uniform(0, 5, n) if known.is_regression else drawn.integers(known.num_labels, size=n)
    chance = np.random.default_rng([noise, *f"{method}{keep}{seed}".encode()])
    wrong = chance.random(n) < flip
    if known.is_regression:
        predictions = labels + chance.normal(0, 0.1 + 2 * flip, n)
    else:
        predictions = np.where(wrong, (labels + 1) % known.num_labels, labels)
    table = pd.DataFrame(
        {
            "idx": np.arange(n),
            "label": labels.astype(float),
            "prediction": predictions.astype(float),
            "logits": list(np.zeros((n, known.num_labels), dtype=np.float32)),
            "share": np.full(n, keep),
            "tokens": np.full(n, 25),
        }
    )
    record = {
        "configuration": {"checkpoints": {"dense": {"adapter": "a"}}} | changes.pop("configuration", {}),
        "root": None,
        "machine": "a machine",
        "started": "2030-01-01T00:00:00+00:00",
        "seconds": 1.0,
    }
    values = metrics(known, predictions.tolist(), labels.tolist())
    return CellResult(cell, table, values, record | changes)


def fake_run(cell: Cell) -> CellResult:
    """What `run_cell` gives, without a model; needs `data_of_cards`."""
    flip = 0.1 if cell.method == "dense" else 0.5 * (1 - cell.keep)
    settings = {"regime": cell.regime, "seed": cell.seed, "split": cell.split, "limit": cell.limit}
    result = made_cell(cell.task, cell.method, cell.keep, flip=flip, root=cell.root, **settings)
    root = None if cell.root is None else str(cell.root)
    return CellResult(
        cell,
        result.predictions,
        result.metrics,
        result.record | {"configuration": cell.configuration(), "root": root},
    )
