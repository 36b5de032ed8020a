"""Mutation run: change one thing in a module, run its tests, and see whether any of them notices.

    python tools/mutation.py                                # mask, cost, plan, gates, subnetwork
    python tools/mutation.py --modules mask,cost --sample 50

A change is an operator or comparison swapped, a number or truth value altered, a condition negated, a keyword
argument left out, or a statement replaced by `pass`. Texts, types and error messages stay as they are. Every
mutant runs in a process of its own, forked from one that has loaded torch, before anything of `dsgp_lab` is
imported; so decorators, properties and module-level values are mutated too, which libraries that switch
mutants at run time cannot do, and loading torch anew for each, as others do, would take hours.
Prints the survivors and their lines; build/mutation.json keeps what is done, so that a stopped run goes on.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import json
import os
import random
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STORE = ROOT / "build" / "mutation.json"
SECONDS = 40
"""Processor time after which a mutant counts as noticed: it loops for ever."""

TESTS = {
    "mask": ("mask", "subnetwork"),
    "cost": ("cost", "plan"),
    "plan": ("plan", "pruner", "calibration"),
    "gates": ("gates", "sensitivity"),
    "subnetwork": ("subnetwork", "families", "together", "execution"),
}
FAMILIES = (
    "bert",
    "roberta",
    "electra",
    "distilbert",
    "albert",
    "gpt2",
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
)
LOADED = (
    "hypothesis",
    "pandas",
    "peft",
    "pytest",
    "tokenizers",
    "torch.utils.flop_counter",
    "transformers.models.auto.modeling_auto",
    *(f"transformers.models.{name}.modeling_{name}" for name in FAMILIES),
)
SIGNATURE = ("annotation", "returns", "decorator_list", "args")
SWAPS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE,
    ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What can be put in a node's place, each with a name.

    >>> [ast.unparse(new) for _, new in changes(ast.parse("a < b", mode="eval").body)]
    ['a <= b']
    >>> [ast.unparse(new) for _, new in changes(ast.parse("f(a, k=1)", mode="eval").body)]
    ['f(a)']
    """
    new: Any = copy.deepcopy(node)
    match new:
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op) if type(op) in SWAPS:
            new.op = SWAPS[type(op)]()
            yield "operator", new
        case ast.Compare():
            for place, op in enumerate(new.ops):
                other = copy.deepcopy(new)
                other.ops[place] = SWAPS[type(op)]()
                yield "comparison", other
        case ast.UnaryOp(op=ast.Not() | ast.Invert() | ast.USub()):
            yield "without its sign", new.operand
        case ast.Constant(value=bool()):
            yield "truth value", ast.Constant(not new.value)
        case ast.Constant(value=int() | float()):
            yield "number", ast.Constant(new.value + 1)
        case ast.If() | ast.IfExp() | ast.While():
            new.test = ast.UnaryOp(ast.Not(), new.test)
            yield "condition", new
        case ast.Call(keywords=[ast.keyword(), *_]):
            for place in range(len(new.keywords)):
                fewer = copy.deepcopy(new)
                del fewer.keywords[place]
                yield f"without {new.keywords[place].arg}", fewer
        case ast.Expr(value=ast.Call()) | ast.Assign() | ast.AugAssign():
            yield "no statement", ast.Pass()


def stays(node: ast.AST) -> bool:
    """Whether a node and what is below it are left alone: errors' words, imports, what is for types only."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom):
        return True
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def places(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None]]:
    """Every node below one that may be changed, as (parent, field, position in it)."""
    for field, value in ast.iter_fields(node):
        if field in SIGNATURE and not isinstance(node, ast.Call):
            continue
        for position, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST) and not stays(child):
                yield node, field, position
                yield from places(child)


def mutants(source: str) -> Iterator[tuple[int, str, str]]:
    """All mutants of a module: line, what was changed, and the whole source.

    >>> [(line, name) for line, name, _ in mutants("x = 1 + y")]
    [(1, 'no statement'), (1, 'operator'), (1, 'number')]
    """
    tree = ast.parse(source)
    for parent, field, position in list(places(tree)):
        value = getattr(parent, field)
        old = value if position is None else value[position]
        for name, new in changes(old):
            put(parent, field, position, new)
            yield old.lineno, name, ast.unparse(ast.fix_missing_locations(tree))
            put(parent, field, position, old)


def put(parent: ast.AST, field: str, position: int | None, node: ast.AST) -> None:
    """Put a node in a place."""
    if position is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[position] = node


class Altered(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from another source."""

    def __init__(self, name: str, source: str) -> None:
        self.name, self.source = name, source

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        """Only for the module that is altered."""
        path = ROOT / (name.replace(".", "/") + ".py")
        if name != self.name:
            return None
        spec = importlib.machinery.ModuleSpec(name, self, origin=str(path))
        spec.has_location = True
        return spec

    def exec_module(self, module: Any) -> None:
        """Run the altered source."""
        exec(compile(self.source, module.__spec__.origin, "exec"), module.__dict__)


OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:nbval", "-m", "not slow")


def is_noticed(module: str, source: str) -> bool:
    """Run the module's doctests and tests on a source, in a fork of this process."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, 1)
            os.dup2(sink, 2)
            import pytest

            sys.meta_path.insert(0, Altered(f"dsgp_lab.{module}", source))
            files = [ROOT / "tests" / f"test_{name}.py" for name in TESTS[module]]
            found = [str(path) for path in (ROOT / "dsgp_lab" / f"{module}.py", *files)]
            os._exit(int(pytest.main([*OPTIONS, "--rootdir", str(ROOT), *found])))
        os._exit(70)
    return os.waitpid(child, 0)[1] != 0


def main(arguments: list[str]) -> int:
    """Run the mutants of the chosen modules and print the survivors."""
    parser = argparse.ArgumentParser(prog="make mutation")
    parser.add_argument("--modules", default=",".join(TESTS), help="names with commas")
    parser.add_argument("--sample", type=int, help="draw this many mutants of each module")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this time")
    chosen = parser.parse_args(arguments)
    import torch

    for name in LOADED:  # once, before the forks
        importlib.import_module(name)
    torch.set_num_threads(1)
    done: dict[str, bool] = json.loads(STORE.read_text("utf-8")) if STORE.exists() else {}
    end = time.monotonic() + chosen.seconds
    for module in chosen.modules.split(","):
        source = (ROOT / "dsgp_lab" / f"{module}.py").read_text("utf-8")
        if is_noticed(module, ast.unparse(ast.parse(source))):
            sys.exit(f"The tests of {module} fail without any change.")
        found = list(mutants(source))
        if chosen.sample is not None:
            found = random.Random(0).sample(found, min(chosen.sample, len(found)))
        survivors, tried = [], 0
        for line, name, mutant in found:
            key = hashlib.sha256(f"{module}{mutant}".encode()).hexdigest()[:16]
            if key not in done and time.monotonic() < end:
                done[key] = is_noticed(module, mutant)
                STORE.parent.mkdir(exist_ok=True)
                STORE.write_text(json.dumps(done), "utf-8")
            tried += key in done
            if done.get(key) is False:
                survivors.append(f"  {module}.py:{line} {name}: {source.splitlines()[line - 1].strip()}")
        print(
            f"{module}: {tried} of {len(found)} mutants tried, {len(survivors)} survived",
            *survivors,
            sep="\n",
        )
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
