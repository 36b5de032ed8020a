"""How nbval checks the notebooks: figures by their digest, and failures that say where and what.

Run with `pytest --nbval --nbval-current-env notebooks`.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Generator
from typing import Any

import pytest

# A figure's numbers differ in the last digit between machines; its digest (text/plain) does not.
NOT_COMPARED = ("application/vnd.plotly.v1+json",)


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Let nbval pass over the interactive figures, and keep notebooks off the network."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += NOT_COMPARED
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Replace the report of a failing cell by one that names notebook, cell, source and difference."""
    report = yield
    if call.excinfo is not None and report.failed and hasattr(item, "cell_num"):
        report.longrepr = describe(item, call.excinfo.value)
    return report


def describe(item: Any, error: BaseException) -> str:
    """Say which cell failed, what it contains and how its output differs from the stored one."""
    stored, fresh = text_of(item.cell.outputs), text_of(item.test_outputs or [])
    difference = list(difflib.unified_diff(stored, fresh, "stored output", "output now", lineterm="", n=1))
    traceback = [] if difference else plain(getattr(error, "inner_traceback", None) or "").splitlines()
    return "\n".join(
        [
            f"{item.path.name}, code cell {item.cell_num + 1}: {plain(str(error))}",
            *(f"    {line}" for line in item.cell.source.splitlines()),
            *(difference or traceback),
            f"If the new output is right, store it: python tools/run_notebooks.py notebooks/{item.path.name}",
        ]
    )


def text_of(outputs: list[Any]) -> list[str]:
    """Return the lines of text in a cell's outputs, as nbval compares them."""
    lines: list[str] = []
    for output in outputs:
        if "text" in output:
            lines += [f"[{output.get('name', 'stream')}] {line}" for line in output["text"].splitlines()]
        elif "ename" in output:
            lines += plain(f"{output['ename']}: {output['evalue']}").splitlines()
        else:
            lines += output.get("data", {}).get("text/plain", "").splitlines()
    return lines


def plain(text: str) -> str:
    """Remove terminal colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
