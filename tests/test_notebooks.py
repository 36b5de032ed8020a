"""The stored notebooks keep the rules; the rules themselves, the runner and nbval's settings work."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
PLOTLY = "application/vnd.plotly.v1+json"


def load_runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_notebooks", ROOT / "tools" / "run_notebooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


runner = load_runner()
OPENING = "# A title\n\n## What you will learn\n\nMuch.\n\n## Time needed\n\nTwo minutes."
CLOSING = "## Summary\n\n" + "".join(f"- Fact {number}.\n" for number in range(1, 6))
FIGURE = (
    "from dsgp_lab.views import cost_bars, show\n"
    "show(cost_bars(160e6, 270e6, scorer=12e6, title='<b>Operations</b> 🎬'))"
)


def notebook(*sources: str) -> Any:
    """Make a notebook with a title, these code cells and a summary."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    return nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell(OPENING), *cells, nbformat.v4.new_markdown_cell(CLOSING)]
    )


def written(folder: Path, content: Any, name: str = "00_made_up.ipynb") -> Path:
    path = folder / name
    path.write_text(nbformat.writes(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("path", runner.course(), ids=lambda path: path.name)
def test_stored_notebook_keeps_the_rules(path: Path) -> None:
    assert runner.problems(path) == []


def good() -> Any:
    content = notebook("print(1)", "2 + 2")
    runner.normalise(content)
    return content


def test_a_good_notebook_has_no_problems(tmp_path: Path) -> None:
    assert runner.problems(written(tmp_path, good())) == []


def add_output(content: Any, **output: Any) -> None:
    content.cells[1].outputs.append(nbformat.v4.new_output(**output))


def make_long(content: Any) -> None:
    content.cells[1].source = "\n".join(["print(1)"] * 13)
    runner.normalise(content)


FAULTS: dict[str, tuple[Callable[[Any], object], str]] = {
    "count": (lambda nb: nb.cells[1].update(execution_count=7), "execution counts [7, 2]"),
    "not run": (lambda nb: nb.cells[2].update(execution_count=None), "execution counts [1, None]"),
    "error": (
        lambda nb: add_output(nb, output_type="error", ename="ValueError", evalue="no", traceback=[]),
        "code cell 1 ends in an error: ValueError: no",
    ),
    "stderr": (
        lambda nb: add_output(nb, output_type="stream", name="stderr", text="a warning"),
        "code cell 1 writes to stderr: a warning",
    ),
    "widgets": (lambda nb: nb.metadata.update(widgets={}), "stores widget state"),
    "size": (
        lambda nb: add_output(nb, output_type="display_data", data={"image/png": "A" * 1_000_000}),
        "allowed: 1,000,000",
    ),
    "path": (
        lambda nb: add_output(nb, output_type="stream", name="stdout", text="saved to /home/ann/x.png"),
        "holds the path /home/ann",
    ),
    "own path": (
        lambda nb: add_output(nb, output_type="display_data", data={"text/plain": f"{ROOT}/data"}),
        f"holds the path {ROOT}",
    ),
    "long cell": (make_long, "code cell 1 has 13 lines"),
    "stale": (lambda nb: nb.cells[1].update(source="print(2)"), "sources changed"),
    "never run": (lambda nb: nb.metadata.pop("dsgp_lab"), "sources changed"),
    "title": (lambda nb: nb.cells[0].update(source="No title"), "not a title"),
    "learn": (lambda nb: nb.cells[0].update(source="# A title\n\n## Time needed"), "'What you will learn'"),
    "time": (lambda nb: nb.cells[0].update(source="# A title\n\n## What you will learn"), "'Time needed'"),
    "summary": (lambda nb: nb.cells[-1].update(source="## Summary\n\n- One.\n"), "1 lines under a heading"),
    "no summary": (lambda nb: nb.cells[-1].update(source="Bye."), "0 lines under a heading"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found(fault: str, tmp_path: Path) -> None:
    spoil, message = FAULTS[fault]
    content = good()
    spoil(content)
    found = runner.problems(written(tmp_path, content))
    assert len(found) == 1, found
    assert message in found[0]


def test_tags_allow_what_is_meant(tmp_path: Path) -> None:
    content = good()
    make_long(content)
    content.cells[1].metadata.tags = ["long-cell", "raises-exception"]
    add_output(content, output_type="error", ename="ValueError", evalue="no", traceback=[])
    assert runner.problems(written(tmp_path, content)) == []


def test_the_next_notebook_must_be_linked(tmp_path: Path) -> None:
    path = written(tmp_path, good())
    linked = good()
    linked.cells.append(nbformat.v4.new_markdown_cell("Next: [cut](02_cut.ipynb)"))
    written(tmp_path, linked, "01_linked.ipynb")
    written(tmp_path, good(), "02_cut.ipynb")
    assert runner.problems(path) == ["no link to the next notebook, 01_linked.ipynb, in the last three cells"]
    assert runner.problems(tmp_path / "01_linked.ipynb") == []
    assert runner.problems(tmp_path / "02_cut.ipynb") == []


def test_solutions_link_back_to_their_exercises(tmp_path: Path) -> None:
    folder = tmp_path / "solutions"
    folder.mkdir()
    content = good()
    content.cells[0].source = "# Solutions to [the first notebook](../00_made_up.ipynb)"
    assert runner.problems(written(folder, content)) == []
    content.cells[0].source = "# Solutions"
    assert runner.problems(written(folder, content)) == ["no link to its exercises (../...)"]


def test_normalising_twice_changes_nothing() -> None:
    content = notebook("print(1)", "print(1)", "print(2)")
    content.cells[1].metadata.update(
        execution={"iopub.execute_input": "2026-01-01T00:00:00"}, tags=["long-cell"]
    )
    runner.normalise(content)
    once = nbformat.writes(content)
    runner.normalise(content)
    assert nbformat.writes(content) == once
    assert "2026" not in once
    assert content.cells[1].metadata == {"tags": ["long-cell"]}
    assert len({cell.id for cell in content.cells}) == len(content.cells)


def test_running_stores_the_same_bytes_and_refuses_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    path = written(tmp_path, notebook("import os\nos.environ['HF_HUB_OFFLINE']", FIGURE))
    assert runner.main([str(path)]) == 0
    first = path.read_bytes()
    assert runner.main([str(path)]) == 0
    assert path.read_bytes() == first
    stored = nbformat.read(path, as_version=4)
    assert stored.cells[1].outputs[0].data["text/plain"] == "'1'"
    (figure,) = stored.cells[2].outputs
    assert set(figure.data) == {PLOTLY, "image/png", "text/plain"}
    assert figure.metadata["image/png"]["alt"].startswith("<b>Operations</b> 🎬. Stacked bars")

    for number, source in enumerate(["1 / 0", "import sys\nprint('hm', file=sys.stderr)"]):
        faulty = written(tmp_path, notebook(source), f"0{number}_faulty.ipynb")
        before = faulty.read_bytes()
        assert runner.main([str(faulty)]) == 1
        assert faulty.read_bytes() == before
    said = capsys.readouterr().out
    assert "ZeroDivisionError" in said
    assert "stderr: hm" in said
    assert runner.main(["--check", str(path)]) == 1  # it does not link to the notebooks that came after it


def nbval(folder: Path) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "notebooks" / "conftest.py", folder / "conftest.py")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval",
        "--nbval-current-env",
        "-q",
        "-p",
        "no:cacheprovider",
        ".",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_nbval_compares_digests_and_explains_a_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    path = written(tmp_path, notebook("a = 1\na", FIGURE))
    assert runner.main([str(path)]) == 0
    content = nbformat.read(path, as_version=4)
    figure = content.cells[2].outputs[0]
    figure.data[PLOTLY]["data"][0]["x"][0] = 123.0
    figure.data["image/png"] = "iVBORw0KGgo="
    written(tmp_path, content)
    passed = nbval(tmp_path)
    assert passed.returncode == 0, passed.stdout

    figure.data["text/plain"] = figure.data["text/plain"].replace("64 %", "63 %")
    content.cells[1].source = "a = 1 / 0"
    written(tmp_path, content)
    failed = nbval(tmp_path).stdout
    assert "2 failed" in failed
    assert "00_made_up.ipynb, code cell 1: Cell execution caused an exception" in failed
    assert "ZeroDivisionError: division by zero" in failed
    assert "00_made_up.ipynb, code cell 2: Cell outputs differ" in failed
    assert "    show(cost_bars(160e6, 270e6, scorer=12e6" in failed
    assert "-Sub-network 59 % of the dense MACs, with the scorer 63 %" in failed
    assert "+Sub-network 59 % of the dense MACs, with the scorer 64 %" in failed
