"""Running one cell of a sweep; models, calibration and examples are kept in memory for the next cell."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dsgp_lab.anatomy import Anatomy
from dsgp_lab.evaluate.calibration_texts import calibration_batches
from dsgp_lab.evaluate.cell import TEACHING, Cell, CellResult, calibration_split, donor_tasks
from dsgp_lab.evaluate.dense import to_predictions
from dsgp_lab.evaluate.latency import machine, threads
from dsgp_lab.evaluate.methods import (
    MISMATCHED,
    OF_TWIN,
    OTHER_TASK,
    ROUTED,
    ROUTER_METHOD,
    STATIC,
    make_method,
    predict,
)
from dsgp_lab.evaluate.pruned import PrunedPredictions
from dsgp_lab.mask import Mask
from dsgp_lab.regimes import FROZEN, ROUTER, Regime, load_model, load_router, trained_folder
from dsgp_lab.router import Router
from dsgp_lab.sensitivity import Scorer
from dsgp_lab.subnetwork import SubNetwork
from dsgp_lab.tasks import Examples, get_task, load_examples, load_teaching, metrics

PACKAGES = ("torch", "transformers", "tokenizers", "peft", "numpy", "scipy", "scikit-learn", "pyarrow")

DONORS = 64
"""Inputs of each other task whose masks are tried on the cell's own inputs."""


def run_cell(cell: Cell) -> CellResult:
    """Evaluate a cell on one torch thread.

    Raises:
        LabError: checkpoints or data that are missing or damaged.
    """
    import pandas as pd

    started, start = datetime.now(UTC), time.perf_counter()
    configuration = cell.configuration()
    with threads(1):
        positions, examples = _examples(cell.task, cell.split, cell.limit)
        made = _predictions(cell, examples)
    predicted = to_predictions(examples.task, made.logits)
    table = pd.DataFrame(
        {
            "idx": positions,
            "label": [float(label) for label in examples.labels],
            "prediction": [float(value) for value in predicted],
            "logits": list(made.logits.numpy()),
            "share": made.shares.double().numpy(),
            "tokens": made.lengths.numpy(),
        }
    )
    record = {
        "configuration": configuration,
        "root": None if cell.root is None else str(cell.root),
        "source": examples.source,
        "machine": machine(),
        "versions": {package: version(package) for package in PACKAGES},
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - start, 3),
    }
    return CellResult(cell, table, metrics(examples.task, predicted, examples.labels), record)


# What cells share is kept for the next one. Hashes of the files are part of the keys, so that a notebook that
# trains a router anew does not get what the old one gave.


def _predictions(cell: Cell, examples: Examples) -> PrunedPredictions:
    files = cell.checkpoints()
    twin = cell.method in OF_TWIN
    home = trained_folder(cell.task, cell.regime, twin, cell.root).name
    weights = files[cell.weights_key]
    digests = tuple(digest for file, digest in weights.items() if file != ROUTER)
    # frozen: one model for all methods, whatever the root of their routers
    origin = (False, None) if cell.regime in FROZEN else (twin, cell.root)
    tokenizer, subnetwork = _loaded(cell.task, cell.regime, *origin, digests)
    made: Scorer | Router | None
    if cell.method in STATIC:
        made = _static(cell.method, cell.task, calibration_split(cell.task), tokenizer, subnetwork)
    elif cell.method in ROUTED:
        made = _router(cell.task, cell.regime, twin, cell.root, files[home].get(ROUTER))
    else:
        made = make_method(cell.method, subnetwork.anatomy, seed=cell.seed)
    routed = None
    if cell.method in (ROUTER_METHOD, MISMATCHED):
        routed = _routed(made, subnetwork, tokenizer, examples, cell.keep)
    if cell.method == ROUTER_METHOD and routed is not None:
        return routed
    donors = _donors(cell, made, subnetwork, tokenizer) if cell.method == OTHER_TASK else None
    return predict(
        cell.method,
        made,
        subnetwork,
        tokenizer,
        examples,
        cell.keep,
        seed=cell.seed,
        routed=routed,
        donors=donors,
        calibration=partial(_calibration, cell.task, cell.method, calibration_split(cell.task), tokenizer),
    )


def _donors(cell: Cell, router: Any, subnetwork: SubNetwork, tokenizer: Any) -> Mask:
    """The router's masks for inputs of the other tasks of the shared encoder, about as many of each."""
    masks = []
    for task in donor_tasks(cell.task, cell.split):
        split = TEACHING if cell.split == TEACHING else get_task(task).dev_splits[0]
        _, examples = _examples(task, split, DONORS)
        masks.append(predict(ROUTER_METHOD, router, subnetwork, tokenizer, examples, cell.keep).masks)
    return Mask.stack(masks)


@lru_cache(maxsize=2)
def _loaded(
    task: str, regime: Regime, twin: bool, root: Path | None, _digests: tuple[str, ...]
) -> tuple[Any, SubNetwork]:
    own = load_model(task, regime, twin, root)
    return own.tokenizer, SubNetwork(Anatomy.of(own.model, order=own.neuron_order))


@lru_cache(maxsize=2)
def _router(task: str, regime: Regime, twin: bool, root: Path | None, _digest: str | None) -> Router:
    return load_router(task, regime, twin, root)


@lru_cache(maxsize=1)
def _routed(
    router: Router, subnetwork: SubNetwork, tokenizer: Any, examples: Examples, keep: float
) -> PrunedPredictions:
    return predict(ROUTER_METHOD, router, subnetwork, tokenizer, examples, keep)


@lru_cache(maxsize=2)
def _static(
    method: str, task: str, split: str, tokenizer: Any, subnetwork: SubNetwork
) -> Scorer | Router | None:
    batches = partial(_calibration, task, "", split, tokenizer)
    return make_method(method, subnetwork.anatomy, calibration=batches)


_calibration = lru_cache(maxsize=1)(calibration_batches)


@lru_cache(maxsize=8)  # those of all tasks, for masks from other tasks
def _examples(task: str, split: str, limit: int | None) -> tuple[list[int], Examples]:
    """Examples and their positions in the split; a limited sample is drawn from all of it, not its start."""
    every = load_teaching(task) if split == TEACHING else load_examples(task, split)
    positions = list(range(len(every)))
    if limit is not None and limit < len(every):
        positions = sorted(random.Random(0).sample(positions, limit))
        every = every.take(positions)
    return positions, every
