"""Mistakes in Python: what is called, and with what."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from toys import random_mask

from dsgp_lab import (
    Anatomy,
    DynamicPruner,
    Lab,
    LanguageLab,
    Mask,
    Sensitivity,
    SubNetwork,
    captured,
    gated,
    load_examples,
    load_teaching,
    make_scorer,
    plan_mask,
)
from dsgp_lab.evaluate.results_table import Results
from dsgp_lab.gates import Gates
from dsgp_lab.tasks import metrics

TEXT = "a warm funny film"


def enter(context: Any) -> None:
    """Open a context manager and leave it."""
    with context:
        pass


def mistakes(lab: Lab, nowhere: Path) -> dict[str, Callable[[], Any]]:
    """Calls that must end in a LabError; `nowhere` is a folder without anything in it."""
    anatomy, inputs, one = lab.anatomy, lab.encode([TEXT]), torch.tensor([6])
    scores, mask = lab.sensitivity(TEXT), random_mask(lab.anatomy)
    wrong = Mask(mask.heads[:, :1], mask.blocks[:, :1])
    anything: Any = object()
    prunes: dict[str, dict[str, Any]] = {
        "empty text": {"text": ""},
        "blank text": {"text": " \n\t"},
        "no text": {"text": None},
        "bytes": {"text": b"film"},
        "a number": {"text": 7},
        "no columns": {"text": ()},
        "three columns": {"text": ("a", "b", "c")},
        "a pair with a number": {"text": ("a", 1)},
        "a pair with an empty text": {"text": ("a", "")},
        "keep 0": {"keep": 0},
        "keep 1.5": {"keep": 1.5},
        "keep below 0": {"keep": -0.1},
        "keep NaN": {"keep": math.nan},
        "keep as text": {"keep": "0.6"},
        "keep True": {"keep": True},
        "keep as a set": {"keep": {0.6}},
        "keep as list": {"keep": [0.6]},
        "unknown scorer": {"scorer": "michel"},
        "scorer of another type": {"scorer": 3},
        "router without a task": {"scorer": "router"},
        "static scores without a task": {"scorer": "constant"},
        "unknown scope": {"scope": "everywhere"},
        "floor below 0": {"floor": -1},
        "floor above the units": {"floor": 99},
        "floor as share": {"floor": 0.5},
        "budget below the floor": {"keep": 0.01, "floor": 1},
        "budget in time without a unit": {"at_most": "soon"},
        "budget in time below 0": {"at_most": "-4 ms"},
    }

    def prune(changes: dict[str, Any]) -> Callable[[], Any]:
        return lambda: lab.prune(**{"text": TEXT} | changes)

    return (
        {f"prune: {name}": prune(changes) for name, changes in prunes.items()}
        | {
            "Lab: unknown task": lambda: Lab("imdb"),
            "Lab: no task": lambda: Lab(""),
            "Lab: a number": lambda: Lab(anything),
            "Lab: unknown regime": lambda: Lab("sst2", regime="warm"),  # type: ignore[arg-type]
            "Lab: regime without checkpoint": lambda: Lab("wnli", regime="joint"),
            "Lab: device": lambda: Lab("sst2", device="tpu"),
            "Lab: dtype": lambda: Lab("sst2", dtype="float7"),
            "Lab: block size": lambda: Lab("sst2", block_size=7),
            "from_pretrained: no such folder": lambda: Lab.from_pretrained(nowhere / "x"),
            "from_pretrained: empty folder": lambda: Lab.from_pretrained(nowhere),
            "from_pretrained: empty name": lambda: Lab.from_pretrained(""),
            "LanguageLab: empty folder": lambda: LanguageLab.from_pretrained(nowhere),
            "LanguageLab: a classifier": lambda: LanguageLab.from_pretrained(lab.name),
            "sensitivity: no texts": lambda: lab.sensitivity([]),
            "sensitivity: texts and pairs": lambda: lab.sensitivity([TEXT, (TEXT, TEXT)]),
            "compare: empty text": lambda: lab.compare(TEXT, ""),
            "gallery: one text": lambda: lab.gallery([TEXT]),
            "gallery: tags": lambda: lab.gallery([TEXT, TEXT], tags=["a"]),
            "encode: a text for a list": lambda: lab.encode(TEXT),
            "curve: no results": lambda: lab.curve(folder=nowhere),
            "curve: keep": lambda: lab.curve(keep=7),
            "sweep panel: no task": lambda: lab.sweep_panel(),
            "restore: no file": lambda: Lab.restore(nowhere / "x.json"),
            "Mask: no booleans": lambda: Mask(scores.heads, scores.blocks),
            "Mask: dimensions": lambda: Mask(mask.heads[0], mask.blocks[0]),
            "Mask: layers": lambda: Mask(mask.heads[:, :1], mask.blocks),
            "Sensitivity: layers": lambda: Sensitivity(scores.heads[:, :1], scores.blocks, "x", one),
            "plan: lengths": lambda: plan_mask(scores, lab.cost, torch.tensor([3, 4]), 0.5),
            "gated: mask": lambda: enter(gated(anatomy, wrong)),
            "gated: gates": lambda: enter(gated(anatomy, Gates(torch.ones(1, 1, 1), torch.ones(1, 1, 1)))),
            "gated: no model": lambda: enter(gated(anything, mask)),
            "captured: no model": lambda: enter(captured(anything)),
            "SubNetwork: mask": lambda: lab.subnetwork(inputs, wrong),
            "SubNetwork: masks": lambda: lab.subnetwork(inputs, mask[[0, 0]]),
            "SubNetwork: execution": lambda: lab.subnetwork(inputs, mask, "fast"),  # type: ignore[arg-type]
            "SubNetwork: no model": lambda: SubNetwork(anything),
            "Anatomy: no model": lambda: Anatomy.of(anything),
            "Anatomy: block size": lambda: Anatomy.of(lab.model, 7),
            "DynamicPruner: keep": lambda: DynamicPruner(lab.subnetwork, make_scorer("random"), 2),
            "make_scorer: name": lambda: make_scorer("x"),
            "load_teaching: task": lambda: load_teaching("imdb"),
            "load_teaching: tag": lambda: load_teaching("sst2").where("x"),
            "load_teaching: sample": lambda: load_teaching("sst2").sample(10**6),
            "load_examples: split": lambda: load_examples("sst2", "test"),
            "load_examples: limit": lambda: load_examples("sst2", "validation", limit=0),
            "metrics: lengths": lambda: metrics("sst2", [1], [1, 0]),
            "Results: no folder": lambda: Results.load(nowhere),
        }
    )
