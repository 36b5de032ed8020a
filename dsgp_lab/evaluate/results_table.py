"""The results table: made from the cells of a sweep, kept in `data/results`, printed as reports."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsgp_lab.errors import LabError, shown_path
from dsgp_lab.evaluate.cell import CellResult
from dsgp_lab.evaluate.cell_files import RECORD, read_cells
from dsgp_lab.evaluate.methods import DENSE
from dsgp_lab.evaluate.published import PREDICTIONS, read_published, write_published
from dsgp_lab.evaluate.results_report import average_report, knowledge_report, readme, reports, task_report
from dsgp_lab.evaluate.results_rows import RECORD_KEYS, average, current_cells, table_of
from dsgp_lab.evaluate.results_update import BASE, joined, updated, without_successor
from dsgp_lab.report import Report
from dsgp_lab.tasks import data_folder
from dsgp_lab.whole_files import make_folder, whole_file, write_text

if TYPE_CHECKING:
    import pandas as pd

ROWS, AVERAGES, README = "results.parquet", "averages.parquet", "README.md"


@dataclass(frozen=True, eq=False)
class Results:
    """A results table.

    rows: one a cell, columns as `table_of` says, values and losses in points of 100; averages: one for each
    regime, method and budget, as `average` says; machines: where the cells were made; cells: those that the
    rows were made from, if they were not read from a table.
    """

    rows: pd.DataFrame
    averages: pd.DataFrame
    machines: tuple[str, ...]
    cells: tuple[CellResult, ...] = ()

    @staticmethod
    def of(
        source: Path | str, say: Callable[[str], None] = print, update: Path | str | None = None
    ) -> Results:
        """Judge all cells of a sweep's folder, or of a file of published predictions.

        With `update`, the folder of a table, cells of the tasks and regimes that `source` has take the place
        of that table's; the others are judged from its published predictions, and regimes that it has no
        predictions of are kept as they are. Rows that get lost by that are named.

        Raises:
            LabError: no cells, damaged ones, or cells that do not belong into one table.
        """
        path = Path(source)
        cells = current_cells(read_published(path) if path.is_file() else read_cells(path), say)
        before = None if update is None else Results.load(update)
        if update is not None and (Path(update) / PREDICTIONS).exists():
            cells = current_cells(joined(cells, read_published(Path(update) / PREDICTIONS)), say)
        rows, draws = table_of(cells)
        means = average(rows, draws)
        machines = {cell.record["machine"] for cell in cells}
        if before is not None:
            rows, means = updated((before.rows, before.averages), (rows, means))
            machines |= set(before.machines)
            if lost := without_successor(before.rows, rows):
                say(lost)
        return Results(rows, means, tuple(sorted(machines)), tuple(cells))

    @staticmethod
    def load(folder: Path | str | None = None) -> Results:
        """Read what `write` wrote, by default the project's own table in data/results.

        Raises:
            LabError: there is none, or it cannot be read.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        home = results_folder() if folder is None else Path(folder)
        try:
            rows, averages = (pq.read_table(home / name) for name in (ROWS, AVERAGES))
            machines = json.loads((rows.schema.metadata or {})[RECORD])["machines"]
        except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
            reason = (
                "which does not exist" if not (home / ROWS).exists() else f"which cannot be read ({error})"
            )
            raise LabError(
                got=f"{shown_path(home / ROWS) if folder else f'data/results/{ROWS}'}, {reason}",
                allowed="a results table and its averages",
                hint="run dsgp-lab sweep --out runs/sweep, then dsgp-lab results --from runs/sweep --write",
            ) from None
        return Results(_frame(rows), _frame(averages), tuple(machines))

    def write(self, folder: Path | str | None = None) -> Path:
        """Write tables, README and predictions into a folder (default: data/results) and return it.

        The same results give the same bytes. Results that were read from a table leave its predictions.
        """
        home = results_folder() if folder is None else Path(folder)
        make_folder(home)
        _write_table(self.rows, home / ROWS, {"machines": self.machines})
        _write_table(self.averages, home / AVERAGES, {})
        cells = self.cells
        if cells:
            write_published(cells, home / PREDICTIONS)
        elif (home / PREDICTIONS).exists():
            cells = tuple(read_published(home / PREDICTIONS))
        pruned = {each.cell.regime for each in cells if (each.cell.regime, each.cell.method) != BASE}
        predicted = [regime for regime in dict.fromkeys(self.rows["regime"]) if regime in pruned]
        write_text(home / README, readme(self.rows, self.averages, self.machines, predicted))
        return home

    def records(self) -> list[dict[str, Any]]:
        """The rows as plain values for JSON, with the keys in `RECORD_KEYS`."""
        records: list[dict[str, Any]] = json.loads(self.rows[list(RECORD_KEYS)].to_json(orient="records"))
        return records

    def reports(self) -> tuple[Report, ...]:
        """For each regime and budget a table of losses; for each regime one of the router's gains."""
        return reports(self.rows, self.averages)

    def task_report(self, task: str) -> Report:
        """One task's losses: a row each regime and method, a column each budget."""
        return task_report(self.rows, task)

    def average_report(self) -> Report:
        """The mean losses over tasks, likewise."""
        return average_report(self.averages)

    def knowledge_report(self, regime: str) -> Report:
        """A regime's losses from static scores to oracles, on the tasks that all of these methods have."""
        return knowledge_report(self.rows, regime)

    def complete_averages(self) -> pd.DataFrame:
        """Pruned methods' averages that compare within a regime: over as many tasks as any of it has."""
        pruned = self.averages[self.averages["method"] != DENSE]
        most = pruned.groupby("regime")["tasks"].transform("max")
        return pruned[pruned["tasks"] == most]

    def __str__(self) -> str:
        """All reports as text."""
        return "\n\n".join(report.text() for report in self.reports())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return "".join(report.html() for report in self.reports())


def results_folder() -> Path:
    """Where the project's own table lies."""
    return data_folder() / "results"


def write_results(
    source: Path | str, target: Path | str | None = None, say: Callable[[str], None] = print
) -> Results:
    """Make the results table from a sweep's folder and write it, by default to data/results."""
    results = Results.of(source, say)
    results.write(target)
    return results


def _write_table(frame: pd.DataFrame, path: Path, record: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({RECORD: json.dumps(record).encode()})
    with whole_file(path) as scratch:
        pq.write_table(table, scratch, compression="zstd")


def _frame(table: Any) -> pd.DataFrame:
    frame = table.to_pandas()
    return frame.astype({"limit": "Int64"}) if "limit" in frame else frame
