"""The recipes of CONTRIBUTING.md: their code blocks are run, and every file they name is there."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

from dsgp_lab.anatomy import FAMILIES

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
BLOCK = re.compile(r"^ *```python (\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
TO_BE_WRITTEN = ("xlm_roberta.py", "magnitude.py", "subj", "09_")


def recipe(name: str) -> str:
    """All code blocks of a recipe, one after the other."""
    return "\n\n".join(textwrap.dedent(code) for kind, code in BLOCK.findall(TEXT) if kind == name)


def as_module(name: str, folder: Path) -> ModuleType:
    """A recipe's code as a module."""
    path = folder / f"recipe_{name}.py"
    path.write_text(recipe(name), "utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def test_there_are_four_recipes() -> None:
    assert sorted({kind for kind, _ in BLOCK.findall(TEXT)}) == ["family", "notebook", "scorer", "task"]
    assert TEXT.count("```python") == len(BLOCK.findall(TEXT))


@pytest.mark.parametrize(
    "name", ["family", "scorer", "task", pytest.param("notebook", marks=pytest.mark.slow)]
)
def test_a_recipe_works(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    known = dict(FAMILIES)
    try:
        module = as_module(name, tmp_path)
        tests = [value for key, value in vars(module).items() if key.startswith("test_")]
        assert tests
        for test in tests:
            test(*([tmp_path] if inspect.signature(test).parameters else []))
    finally:
        FAMILIES.clear()
        FAMILIES.update(known)
        sys.modules.pop(f"recipe_{name}", None)


def test_every_file_that_is_named_exists() -> None:
    names = re.findall(r"`((?:dsgp_lab|tests|tools|data|docs|notebooks)/[\w./-]+)`", TEXT)
    assert len(names) > 8
    for name in names:
        assert (ROOT / name).exists() or any(part in name for part in TO_BE_WRITTEN), name
