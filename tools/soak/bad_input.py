"""Bad input at every entrance: a clear error each time, and what was there before still works."""

from __future__ import annotations

import contextlib
import io
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import bad_commands
import bad_files
import bad_panels
import bad_python
import torch
from figures import Figure

from dsgp_lab import Lab, LabError, Mask, cli

AT_LEAST = 30
BAR = f"at least {AT_LEAST} kinds, each a clear error, nothing lost"


def figure(entrance: str, kinds: int, wrong: list[str]) -> Figure:
    """The figure of one entrance."""
    found = f"{kinds - len(wrong)} of {kinds} kinds" + (f"; not: {'; '.join(wrong)}" if wrong else "")
    return Figure(f"bad input, {entrance}", found, BAR, kinds >= AT_LEAST and not wrong)


def is_clear(error: LabError) -> bool:
    """Whether an error says all three things."""
    return all((error.got, error.allowed, error.hint))


def outcome(call: Callable[[], Any]) -> str:
    """Empty where a call ends in a LabError, else what came instead."""
    try:
        call()
    except LabError as error:
        return "" if is_clear(error) else "an error without words"
    except Exception as error:
        return type(error).__name__
    return "no error"


def same(a: Mask | None, b: Mask | None) -> bool:
    """Whether two masks are equal."""
    return (
        a is not None and b is not None and torch.equal(a.heads, b.heads) and torch.equal(a.blocks, b.blocks)
    )


def python(lab: Lab) -> Figure:
    """In Python: afterwards the same text gives the same logits, and no hook is left."""
    before, wrong = lab.prune(bad_python.TEXT), []
    with TemporaryDirectory() as nowhere:
        calls = bad_python.mistakes(lab, Path(nowhere))
        for name, call in calls.items():
            found = outcome(call)
            if any(m._forward_hooks or m._forward_pre_hooks for m in lab.model.modules()):
                found += " a hook is left"
            wrong += [f"{name} ({found})"] if found else []
    after = lab.prune(bad_python.TEXT)
    if not same(after.mask, before.mask) or lab.model.training:
        wrong.append("the lab is not what it was")
    return figure("Python", len(calls), wrong)


def files() -> Figure:
    """In files: reading changes none of them."""
    with TemporaryDirectory() as folder:
        calls = bad_files.spoiled_files(Path(folder))
        before = {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
        wrong = [f"{name} ({found})" for name, call in calls.items() if (found := outcome(call))]
        after = {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
        wrong += ["a file was changed"] if before != after else []
    return figure("file", len(calls), wrong)


def panel(lab: Lab) -> Figure:
    """In panels: after each mistake the next good text gives what it gave before."""
    wrong = []
    openings = bad_panels.openings(lab)
    for name, call in openings.items():
        if found := outcome(call):
            wrong.append(f"{name} ({found})")
    explorer = lab.explore(bad_panels.TEXT)
    explorer.wait()
    mask = explorer.mask
    with TemporaryDirectory() as nowhere:
        settings = bad_panels.settings(Path(nowhere))
        for name, act in settings.items():
            found = outcome(lambda act=act: act(explorer))  # type: ignore[misc]
            explorer.wait()
            if found == "no error" and explorer.face.shows_error:
                found = "" if "Traceback" not in explorer.face.html["status"].value else "a traceback"
            try:
                explorer.set(text="the film is not good", keep=0.4)
                explorer.set(text=bad_panels.TEXT, keep=0.6)
                explorer.wait()
                found += "" if same(explorer.mask, mask) and not explorer.face.shows_error else " state lost"
            except Exception as error:
                found += f" then {type(error).__name__}"
            wrong += [f"{name} ({found})"] if found else []
    explorer.close()
    return figure("panel", len(openings) + len(settings), wrong)


def command(words: list[str]) -> tuple[int, str]:
    """Run a command line in this process; exit code (99: an exception came through) and standard error."""
    said, kept = io.StringIO(), sys.argv
    sys.argv = ["dsgp-lab", *words]
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            cli.main()
    except SystemExit as ended:
        return int(ended.code or 0), said.getvalue()
    except BaseException as error:
        return 99, type(error).__name__
    finally:
        sys.argv = kept
    return 0, said.getvalue()


def command_line(toy: str) -> Figure:
    """On the command line: exit code 2 and words, no traceback, no file where none was asked for."""
    wrong = []
    with TemporaryDirectory() as nowhere, contextlib.chdir(nowhere):
        lines = bad_commands.command_lines(toy, Path(nowhere))
        for line in lines:
            code, said = command(shlex.split(line))
            if code != 2 or not said.strip() or "Traceback" in said:
                wrong.append(f"{line.split(' --model ')[0]} (exit code {code}, {said.strip()[-60:]!r})")
        wrong += [f"left {path.name}" for path in Path(nowhere).rglob("*")]
    return figure("command line", len(lines), wrong)
