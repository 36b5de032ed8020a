"""Who imports whom: no cycles, and the line of the package runs one way.

    errors, masks, costs, families, scorers, the cut run -> training, evaluation, views -> lab -> panels, cli

What is imported inside functions counts for the direction; only what runs at import time can form a cycle.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "dsgp_lab"
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / PACKAGE).rglob("*.py")
}

ENGINE = (
    "anatomy",
    "attention",
    "batching",
    "copies",
    "cost",
    "decoder",
    "devices",
    "errors",
    "execution",
    "gates",
    "generation",
    "mask",
    "packed",
    "packed_decoder",
    "plan",
    "pruner",
    "report",
    "router",
    "router_planner",
    "runs",
    "sensitivity",
    "subnetwork",
    "together",
)
ABOVE = (
    "training",
    "evaluate",
    "views",
    "panels",
    "lab",
    "classifier",
    "language",
    "exploration",
    "cli",
    "cli_language",
    "cli_options",
    "checks",
)
MODELS = (
    "anatomy",
    "gates",
    "subnetwork",
    "models",
    "pretrained",
    "lab",
    "classifier",
    "panels",
    "exploration",
    "evaluate",
    "training",
)


def is_for_types(node: ast.AST) -> bool:
    """Whether a statement is `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(node: ast.AST, *, lazy: bool) -> Iterator[str]:
    """Modules of the package that are imported below a node; with `lazy`, in functions too."""
    for child in ast.iter_child_nodes(node):
        if is_for_types(child) or (isinstance(child, ast.FunctionDef) and not lazy):
            continue
        if isinstance(child, ast.ImportFrom) and (child.module or "").split(".")[0] == PACKAGE:
            assert child.module is not None
            for alias in child.names:
                submodule = f"{child.module}.{alias.name}"
                yield submodule if submodule in FILES else child.module
        elif isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names if alias.name.split(".")[0] == PACKAGE)
        else:
            yield from imports(child, lazy=lazy)


def graph(*, lazy: bool) -> dict[str, set[str]]:
    """Every module with those it imports."""
    return {
        name: set(imports(ast.parse(path.read_text("utf-8")), lazy=lazy)) - {name}
        for name, path in FILES.items()
    }


def below(parts: tuple[str, ...]) -> set[str]:
    """The modules that are, or lie in, one of these parts of the package."""
    return {name for name in FILES if name.split(".")[1:2] and name.split(".")[1] in parts}


def crossings(start: set[str], forbidden: set[str], *, lazy: bool = True) -> list[str]:
    """Imports from one set of modules into another."""
    found = graph(lazy=lazy)
    return sorted(f"{name} imports {other}" for name in start for other in found[name] & forbidden)


def test_no_cycle() -> None:
    order = list(TopologicalSorter(graph(lazy=False)).static_order())  # CycleError names the modules
    assert len(order) == len(FILES) > 100


def test_a_cycle_would_be_found() -> None:
    code = (
        "import dsgp_lab.mask\nif TYPE_CHECKING:\n    import dsgp_lab.lab\ndef f():\n    import dsgp_lab.cost"
    )
    assert list(imports(ast.parse(code), lazy=False)) == ["dsgp_lab.mask"]
    assert list(imports(ast.parse(code), lazy=True)) == ["dsgp_lab.mask", "dsgp_lab.cost"]


RULES = {
    "the engine knows nothing of what is built on it": (ENGINE, ABOVE),
    "but for the router, the engine loads no files": (
        tuple(part for part in ENGINE if part != "router"),
        ("models", "pretrained", "checkpoints", "tasks", "regimes"),
    ),
    "figures run no model": (("views",), MODELS),
    "panels hold no model code": (("panels",), ("anatomy", "gates", "models", "training", "cli")),
    "measuring needs no widget": (("training", "evaluate"), ("panels", "cli")),
}


@pytest.mark.parametrize(("start", "forbidden"), RULES.values(), ids=RULES)
def test_the_line_runs_one_way(start: tuple[str, ...], forbidden: tuple[str, ...]) -> None:
    assert crossings(below(start), below(forbidden)) == []


def test_only_the_doors_open_panels_and_nobody_calls_the_command_line() -> None:
    users = {line.split()[0] for line in crossings(set(FILES) - below(("panels",)), below(("panels",)))}
    assert users <= {"dsgp_lab.lab", "dsgp_lab.snapshot"}
    assert crossings(set(FILES) - {"dsgp_lab.cli"}, {"dsgp_lab.cli"}) == []
