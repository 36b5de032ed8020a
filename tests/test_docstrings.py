"""Every public name says what it is, in the way the reference (`make docs`) prints it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import dsgp_lab

PACKAGE = Path(dsgp_lab.__file__).parent
Definition = ast.FunctionDef | ast.ClassDef


def definitions(tree: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """Public classes, functions and methods, with their full names; nothing inside functions."""
    for node in tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield f"{prefix}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from definitions(node, f"{prefix}{node.name}.")


def described() -> dict[str, tuple[Definition, str]]:
    """Every public definition of the package by module and name, with its docstring."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE).with_suffix("").as_posix()
        for name, node in definitions(ast.parse(path.read_text("utf-8"))):
            found[f"{module}: {name}"] = (node, ast.get_docstring(node) or "")
    return found


ALL = described()


def face() -> dict[str, tuple[Definition, str]]:
    """What `from dsgp_lab import ...` gives, and its methods."""
    homes = {name: home.replace(".", "/") for name, home in dsgp_lab._HOME.items()}
    return {
        key: value
        for key, value in ALL.items()
        for name, home in homes.items()
        if key.split(": ")[0].startswith(home) and key.split(": ")[1].split(".")[0] == name
    }


def test_every_module_and_every_public_name_has_a_docstring() -> None:
    modules = [
        path for path in PACKAGE.rglob("*.py") if not ast.get_docstring(ast.parse(path.read_text("utf-8")))
    ]
    assert modules == []
    setters = ("setter",)
    missing = [
        key
        for key, (node, text) in ALL.items()
        if not text and not any(ast.unparse(d).endswith(setters) for d in node.decorator_list)
    ]
    assert missing == []
    assert len(ALL) > 800


def test_the_face_is_found() -> None:
    names = {key.split(": ")[1].split(".")[0] for key in face()}
    assert names == set(dsgp_lab.__all__)


def test_public_tensors_have_shapes() -> None:
    """A function of the public face that takes or returns a Tensor names an axis in brackets."""
    wanting = [
        key
        for key, (node, text) in face().items()
        if isinstance(node, ast.FunctionDef) and "Tensor" in _signature(node) and "[" not in text
    ]
    assert wanting == []


def test_public_functions_name_the_error_they_raise() -> None:
    wanting = [
        key
        for key, (node, text) in face().items()
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(part, ast.Raise) and "LabError" in ast.unparse(part) for part in ast.walk(node))
        and "LabError" not in text
    ]
    assert wanting == []


@pytest.mark.parametrize("word", ["Cost:", "Limits:"])
def test_scorers_state_cost_and_limits(word: str) -> None:
    scorers = {
        key: text
        for key, (node, text) in ALL.items()
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "Scorer" for base in node.bases)
    }
    assert len(scorers) > 7
    assert [key for key, text in scorers.items() if word not in text] == []


def _signature(node: ast.FunctionDef) -> str:
    return ast.unparse(node.args) + (ast.unparse(node.returns) if node.returns else "")
