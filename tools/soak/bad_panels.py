"""Mistakes in the panels: opened with, set from code, and typed into the controls."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dsgp_lab import Lab
from dsgp_lab.panels import Explorer

TEXT = "a warm funny film"


def openings(lab: Lab) -> dict[str, Callable[[], Any]]:
    """Panels that must not open: a LabError instead."""
    given: dict[str, Any] = {
        "empty text": "",
        "blank text": "  ",
        "no text": None,
        "a number": 3,
        "bytes": b"film",
        "no columns": (),
        "three columns": ("a", "b", "c"),
        "a pair with a number": ("a", 3),
    }
    explore: dict[str, Callable[[], Any]] = {
        f"explore: {name}": (lambda text=text: lab.explore(text)) for name, text in given.items()
    }
    keeps: dict[str, Any] = {"0": 0, "2": 2, "NaN": math.nan, "a text": "half", "nothing": None}
    explore |= {
        f"explore: keep {name}": (lambda keep=keep: lab.explore(TEXT, keep=keep))
        for name, keep in keeps.items()
    }
    return explore | {
        "explore: unknown scorer": lambda: lab.explore(TEXT, scorer="michel"),
        "explore: router without a task": lambda: lab.explore(TEXT, scorer="router"),
        "compare: empty text": lambda: lab.compare_panel(TEXT, ""),
        "compare: text and pair": lambda: lab.compare_panel(TEXT, ("a", "")),
        "compare: keep": lambda: lab.compare_panel(TEXT, TEXT, keep=2),
        "compare: unknown scorer": lambda: lab.compare_panel(TEXT, TEXT, scorer="michel"),
        "sweep: no task": lambda: lab.sweep_panel(),
    }


def settings(nowhere: Path) -> dict[str, Callable[[Explorer], Any]]:
    """What is done to an open explorer: a LabError, or a sentence above the figures."""
    values: dict[str, dict[str, Any]] = {
        "empty text": {"text": ""},
        "blank text": {"text": " "},
        "no text": {"text": None},
        "a number": {"text": 5},
        "three columns": {"text": ("a", "b", "c")},
        "keep 0": {"keep": 0},
        "keep 2": {"keep": 2},
        "keep NaN": {"keep": math.nan},
        "keep as text": {"keep": "half"},
        "no keep": {"keep": None},
        "unknown scorer": {"scorer": "michel"},
        "no scorer": {"scorer": None},
        "unknown task": {"task": "imdb"},
        "unknown regime": {"regime": "warm"},
        "unknown name": {"budget": 0.5},
        "a good and a bad value": {"keep": 0.5, "text": ""},
    }
    found: dict[str, Callable[[Explorer], Any]] = {
        f"set: {name}": (lambda panel, change=change: panel.set(**change)) for name, change in values.items()
    }
    units: dict[str, Any] = {
        "kind": ("neuron", 0, 0),
        "layer": ("head", 99, 0),
        "number": ("block", 0, 99),
        "below 0": ("head", -1, 0),
        "too short": ("head", 0),
        "a text": "head",
        "fraction": ("head", 0, 0.5),
    }
    found |= {
        f"toggle: {name}": (lambda panel, unit=unit: panel.toggle(unit)) for name, unit in units.items()
    }

    def typed(text: str) -> Callable[[Explorer], None]:
        return lambda panel: setattr(panel.face.text_1, "value", text)

    return found | {
        "typed: nothing": typed(""),
        "typed: blanks": typed("   "),
        "typed: a tab": typed("\t"),
        "export: ending": lambda panel: panel.export(nowhere / "state.txt"),
        "export: no ending": lambda panel: panel.export(nowhere / "state"),
        "export: no folder": lambda panel: panel.export(nowhere / "x" / "state.html"),
    }
