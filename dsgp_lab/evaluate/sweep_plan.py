"""Which cells a sweep has: every combination of what was asked for that the checkpoints and data allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.cell import TEACHING, Cell, split_problem, teaching_file
from dsgp_lab.evaluate.methods import (
    BY_CHANCE,
    DENSE,
    METHODS,
    MISMATCHED,
    OTHER_TASK,
    ROUTER_METHOD,
    STATIC,
    available_methods,
    check_method,
)
from dsgp_lab.models import CARD
from dsgp_lab.regimes import REGIMES, SHARING, Regime
from dsgp_lab.tasks import TASKS, get_task, load_examples, task_folder

KEEPS = (0.25, 0.35, 0.5)
"""Budgets of a sweep, unless others are given."""

Number = TypeVar("Number", int, float)

_ONE_RUN = (ROUTER_METHOD, MISMATCHED)  # the second takes the masks of the first


def plan_cells(
    tasks: Sequence[str] | None = None,
    regimes: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    keeps: Sequence[float] = KEEPS,
    seeds: Sequence[int] = (0,),
    *,
    limit: int | None = None,
    split: str | None = None,
    root: Path | None = None,
    say: Callable[[str], None] = print,
) -> list[Cell]:
    """The cells of a sweep, in an order in which neighbours share models, calibration and routers' runs.

    None stands for everything there are checkpoints for, and as `split` for the task's first dev split, where
    GLUE is not at hand for the teaching set. What is asked for and not there is left out, and said. Methods
    that leave nothing to chance get the first seed only. The dense model is always there: all others are
    compared with it.

    Raises:
        LabError: an unknown task, regime, method or split, or nothing left to run.
    """
    for method in methods or ():
        check_method(method)
    wanted = [check_regime(regime) for regime in regimes or ()]
    cells: list[Cell] = []
    for task in tasks or dense_tasks():
        if DENSE not in available_methods(task, "frozen"):
            say(f"{task}: no dense checkpoint to compare with; left out.")
            continue
        chosen = _split(task, split, say)
        if chosen is None:
            continue
        cells.append(Cell(task, "frozen", DENSE, 1.0, split=chosen, limit=limit))
        for regime in wanted or _trained_regimes(task, root):
            for method in _methods(task, regime, methods, root, say):
                if (regime, method) == ("frozen", DENSE):
                    continue  # there already
                budgets = (1.0,) if method == DENSE else keeps
                chances = seeds if method in BY_CHANCE else seeds[:1]
                cells += [
                    Cell(task, regime, method, keep, seed, chosen, limit, root)
                    for keep in budgets
                    for seed in chances
                ]
    if not cells:
        raise LabError(
            got="a sweep without a cell",
            allowed="tasks and regimes with checkpoints, and data for them",
            hint="see the notices above; dsgp-lab doctor says what is there",
        )
    return sorted(dict.fromkeys(cells), key=_place)


def check_regime(name: str) -> Regime:
    """A regime's name, or a LabError that lists them.

    >>> check_regime("joint")
    'joint'
    """
    for regime in REGIMES:
        if regime == name:
            return regime
    raise LabError(got=f"regime {name!r}", allowed=", ".join(REGIMES), hint="use one of these names")


def listed(text: str | None) -> list[str] | None:
    """Names with commas between them; None stays None.

    >>> listed("sst2, mrpc"), listed(None)
    (['sst2', 'mrpc'], None)
    """
    return None if text is None else [name.strip() for name in text.split(",")]


def numbers(text: str, kind: type[Number], what: str) -> list[Number]:
    """Numbers with commas between them, or a LabError that calls them `what`.

    >>> numbers("0.25,0.5", float, "keeps")
    [0.25, 0.5]
    """
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise LabError(
            got=f"{what} {text!r}",
            allowed=f"{'whole numbers' if kind is int else 'numbers'} with commas between them",
            hint="write for example " + ("0,1,2" if kind is int else "0.25,0.35,0.5"),
        ) from None


def group_cells(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells that share their costly part, for one process each: a calibration, or a router's run.

    >>> cells = [Cell("sst2", "frozen", name, 0.5) for name in ("router", "mismatched", "random", "twin")]
    >>> [[cell.method for cell in group] for group in group_cells(cells)]
    [['random'], ['twin'], ['router', 'mismatched']]
    """
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in sorted(cells, key=_place):
        *setting, block, keep, _, seed = _place(cell)
        if cell.method in STATIC:
            key = (*setting, block)
        elif cell.method in _ONE_RUN:
            key = (*setting, block, keep)
        else:
            key = (*setting, block, keep, seed)
        groups.setdefault(key, []).append(cell)
    return list(groups.values())


def dense_tasks() -> list[str]:
    """Tasks with a dense checkpoint, in GLUE's order."""
    return [task for task in TASKS if (task_folder(task) / CARD).is_file()]


def _trained_regimes(task: str, root: Path | None) -> list[Regime]:
    """Frozen, where much can be compared without any training, and those with a checkpoint."""
    return [r for r in REGIMES if r == "frozen" or available_methods(task, r, root)]


def _methods(
    task: str, regime: Regime, wanted: Sequence[str] | None, root: Path | None, say: Callable[[str], None]
) -> list[str]:
    there = available_methods(task, regime, root)
    possible = [name for name in METHODS if name != OTHER_TASK or regime in SHARING]
    missing = [name for name in wanted or possible if name not in there]
    if missing:
        say(f"{task} {regime}: no checkpoint for {', '.join(missing)}; left out.")
    return [name for name in wanted or METHODS if name in there]


def _split(task: str, wanted: str | None, say: Callable[[str], None]) -> str | None:
    """The split to use, None where there is no data; says what it does instead of what is usual."""
    if wanted == TEACHING:
        return wanted
    name = wanted or get_task(task).dev_splits[0]
    if wanted is not None:
        load_examples(task, name, limit=1)  # asked for by name: an error if it is not there
        return name
    problem = split_problem(task, name)
    if problem is None:
        return name
    if not teaching_file(task).is_file():
        say(f"{task}: {problem}, and no teaching set for it; left out.")
        return None
    say(f"{task}: {problem}; its teaching set is used instead.")
    return TEACHING


def _place(cell: Cell) -> tuple[Any, ...]:
    """A cell's place in the order: setting, block of cells that share something, budget, method, seed."""
    names = list(METHODS)
    block = ROUTER_METHOD if cell.method in _ONE_RUN else cell.method
    setting = (list(TASKS).index(cell.task), REGIMES.index(cell.regime), cell.split, cell.limit or 0)
    return (
        *setting,
        str(cell.root or ""),
        names.index(block),
        cell.keep,
        names.index(cell.method),
        cell.seed,
    )
