"""Run the notebooks in place and store their outputs, the same bytes wherever possible; or check them.

    python tools/run_notebooks.py                        # run all of notebooks/ and notebooks/solutions/
    python tools/run_notebooks.py notebooks/00_*.ipynb   # run these
    python tools/run_notebooks.py --check                # run none; list what is stale or against the rules

A notebook with an error or a warning in its output is not written; a cell that must fail on purpose carries
the tag `raises-exception`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (ROOT / "notebooks", ROOT / "notebooks" / "solutions")
LONGEST_CELL = 12
LARGEST_FILE = 1_000_000
SUMMARY_LINES = 5
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
HOME_FOLDERS = r"(?<![\w.:/-])/(?:home|root|tmp|Users|usr|opt|mnt|var|srv|private)/[\w.-]+|[A-Z]:\\\\?Users"

Notebook = Any


def course(folders: tuple[Path, ...] = FOLDERS) -> list[Path]:
    """List the notebooks in reading order."""
    return [path for folder in folders for path in sorted(folder.glob("*.ipynb"))]


def following(path: Path) -> Path | None:
    """Return the next notebook of the same folder, if there is one."""
    return next((other for other in sorted(path.parent.glob("*.ipynb")) if other.name > path.name), None)


def source_sha256(notebook: Notebook) -> str:
    """Hash the sources of all code cells: what the stored outputs were made from."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()


def normalise(notebook: Notebook) -> None:
    """Remove what differs from run to run: times, kernel details, widget state, random cell ids."""
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "dsgp_lab": {"source_sha256": source_sha256(notebook)},
        }
    )
    seen: dict[str, int] = {}
    count = 0
    for cell in notebook.cells:
        name = hashlib.sha256(cell.source.encode()).hexdigest()[:8]
        seen[name] = seen.get(name, 0) + 1
        cell.id = name if seen[name] == 1 else f"{name}-{seen[name]}"
        tags = cell.metadata.get("tags", [])
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            for output in cell.outputs:
                output.get("data", {}).pop(WIDGET_VIEW, None)
                if output.output_type == "execute_result":
                    output.execution_count = count


def output_problems(notebook: Notebook) -> list[str]:
    """List the outputs that must not be stored: errors without the tag for it, and anything on stderr."""
    found = []
    for number, cell in code_cells(notebook):
        allowed = "raises-exception" in cell.metadata.get("tags", [])
        for output in cell.outputs:
            if output.output_type == "error" and not allowed:
                found.append(f"code cell {number} ends in an error: {output.ename}: {output.evalue}")
            if output.output_type == "stream" and output.name == "stderr":
                found.append(f"code cell {number} writes to stderr: {output.text.strip()[:200]}")
    return found


def problems(path: Path) -> list[str]:
    """List everything in a stored notebook that is against the rules; an empty list means that it is fine."""
    notebook = nbformat.read(path, as_version=4)
    found = output_problems(notebook)
    if path.stat().st_size > LARGEST_FILE:
        found.append(f"{path.stat().st_size:,} bytes; allowed: {LARGEST_FILE:,}")
    counts = [cell.execution_count for _, cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        found.append(f"execution counts {counts}; allowed: 1, 2, 3 and so on")
    if notebook.metadata.get("dsgp_lab", {}).get("source_sha256") != source_sha256(notebook):
        found.append("sources changed since the outputs were made: run tools/run_notebooks.py")
    if "widgets" in notebook.metadata:
        found.append("stores widget state")
    for number, cell in code_cells(notebook):
        lines = len(cell.source.splitlines())
        if lines > LONGEST_CELL and "long-cell" not in cell.metadata.get("tags", []):
            found.append(
                f"code cell {number} has {lines} lines; allowed: {LONGEST_CELL}, or the tag long-cell"
            )
    found += path_problems(notebook)
    return found + prose_problems(notebook, path)


def path_problems(notebook: Notebook) -> list[str]:
    """List absolute paths of the machine that ran the notebook."""
    here = "|".join(re.escape(str(place)) + r"\b" for place in (ROOT, Path.home()) if len(str(place)) > 1)
    pattern = re.compile(f"{here}|{HOME_FOLDERS}")
    texts = [cell.source for cell in notebook.cells]
    for _, cell in code_cells(notebook):
        for output in cell.outputs:
            data = {key: value for key, value in output.get("data", {}).items() if key != "image/png"}
            texts += [
                str(value) for value in (output.get("text"), output.get("traceback"), *data.values()) if value
            ]
    return [f"holds the path {match.group()}" for text in texts if (match := pattern.search(text))]


def prose_problems(notebook: Notebook, path: Path) -> list[str]:
    """List what is missing in the first and the last cells: title, sections, summary, link to the next."""
    first = notebook.cells[0] if notebook.cells else None
    if first is None or first.cell_type != "markdown" or not first.source.startswith("# "):
        return ["the first cell is not a title (# ...)"]
    if path.parent.name == "solutions":
        return (
            []
            if re.search(r"\]\(\.\./[\w.-]+\.ipynb", first.source)
            else ["no link to its exercises (../...)"]
        )
    opening = "\n".join(cell.source for cell in notebook.cells[:3] if cell.cell_type == "markdown")
    found = [f"no section '{name}' at the start" for name in ("What you will learn", "Time needed")
             if not re.search(rf"^#+ {name}", opening, re.MULTILINE)]  # fmt: skip
    closing = "\n".join(cell.source for cell in notebook.cells[-3:] if cell.cell_type == "markdown")
    summary = re.search(r"^#+ Summary\n+((?:(?:[-*]|\d\.) .*\n?)*)", closing, re.MULTILINE)
    lines = len(summary.group(1).splitlines()) if summary else 0
    if lines != SUMMARY_LINES:
        found.append(
            f"{lines} lines under a heading 'Summary' in the last three cells; allowed: {SUMMARY_LINES}"
        )
    after = following(path)
    if after is not None and f"]({after.name})" not in closing:
        found.append(f"no link to the next notebook, {after.name}, in the last three cells")
    return found


def code_cells(notebook: Notebook) -> list[tuple[int, Any]]:
    """Number the code cells from 1, as Jupyter does."""
    return list(enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), 1))


def run(path: Path, timeout: int) -> list[str]:
    """Run a notebook in its folder, with this Python; write it back unless there are problems, listed."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        store_widget_state=False,
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute()
    except CellExecutionError as error:
        return [f"not written: {error}"]
    found = output_problems(notebook)
    if found:
        return [f"not written: {problem}" for problem in found]
    normalise(notebook)
    path.write_text(nbformat.writes(notebook).rstrip("\n") + "\n", encoding="utf-8")
    return problems(path)


def main(arguments: list[str] | None = None) -> int:
    """Run or check notebooks; return 1 if any has a problem."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="*", type=Path, help="notebooks; default: all")
    parser.add_argument("--check", action="store_true", help="run nothing, list stale or faulty notebooks")
    parser.add_argument("--timeout", type=int, default=600, help="seconds for one cell")
    options = parser.parse_args(arguments)
    os.environ["HF_HUB_OFFLINE"] = "1"  # what runs here must run without a network
    failed = False
    for path in options.paths or course():
        start = time.perf_counter()
        found = problems(path) if options.check else run(path.resolve(), options.timeout)
        print(f"{path.name}: {'; '.join(found) or 'ok'} ({time.perf_counter() - start:.1f} s)", flush=True)
        failed = failed or bool(found)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
