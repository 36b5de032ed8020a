"""Published predictions: what the cells of a results table predicted, small enough to be shipped with it.

From them every value, interval and test of the table can be computed again without a model or GLUE's texts,
and a new cell can be compared example by example with one whose sweep is long gone. Left out are logits,
lengths and the share of MACs of each example, of which the mean is kept.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.cell import FORMAT, Cell, CellResult
from dsgp_lab.evaluate.cell_files import RECORD, cell_of
from dsgp_lab.whole_files import whole_file

PREDICTIONS = "predictions.parquet"


def write_published(cells: Sequence[CellResult], path: Path) -> None:
    """Write cells' predictions to one file, a row each; the same cells give the same bytes.

    Cells of one task and split lie together, in a row group of their own, so that classes take a bit or two.
    Where several lie on the same examples, labels and positions stand in the first of them.
    """
    import pyarrow as pa

    schema = pa.schema(
        [
            ("record", pa.string()),
            ("share", pa.float64()),
            ("idx", pa.list_(pa.int32())),
            ("label", pa.list_(pa.float64())),
            ("prediction", pa.list_(pa.float32())),
        ],
        metadata={RECORD: json.dumps({"cells": len(cells)}).encode()},
    )
    ordered = sorted(cells, key=lambda result: _place(result.cell))
    with whole_file(path) as scratch, _writer(scratch, schema) as file:
        for _, group in groupby(ordered, key=lambda result: _setting(result.cell)):
            rows, before = [], None
            for result in group:
                table = result.predictions
                examples = table[["idx", "label"]]
                new = before is None or not examples.equals(before)
                row = {name: examples[name].tolist() if new else None for name in examples}
                row["record"] = json.dumps(result.record | {"metrics": result.metrics}, sort_keys=True)
                row |= {"share": float(table["share"].mean()), "prediction": table["prediction"].tolist()}
                rows.append(row)
                before = examples
            file.write_table(pa.Table.from_pylist(rows, schema=schema))


def read_published(path: Path) -> list[CellResult]:
    """Cells as `write_published` wrote them; `share` is the mean in every row, and there are no logits.

    Raises:
        LabError: the file is missing, damaged or another kind.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, page_checksum_verification=True)
        expected = json.loads((table.schema.metadata or {})[RECORD])["cells"]
        found, examples = [], pd.DataFrame()
        for row in table.to_pylist():
            record = json.loads(row["record"])
            if record["configuration"]["format"] != FORMAT:
                raise ValueError(f"cells of another format than {FORMAT}")
            if row["label"] is not None:
                examples = pd.DataFrame({"idx": row["idx"], "label": row["label"]})
            predictions = examples.assign(prediction=row["prediction"], share=row["share"])
            cell = cell_of(record["configuration"], record["root"])
            found.append(CellResult(cell, predictions, record.pop("metrics"), record))
        if len(found) != expected:
            raise ValueError(f"{len(found)} of {expected} cells")
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise LabError(
            got=f"{path}, which {f'cannot be read ({reason})' if path.exists() else 'does not exist'}",
            allowed="predictions as dsgp-lab results --write leaves them",
            hint="fetch the project's data/results again, or sweep into a folder and write the table from it",
        ) from None
    return found


def _writer(path: Path, schema: Any) -> Any:
    import pyarrow.parquet as pq

    options = {"compression": "zstd", "compression_level": 19}  # a tenth smaller than by the default level
    return pq.ParquetWriter(path, schema, write_page_checksum=True, **options)


def _setting(cell: Cell) -> tuple[str, str, int]:
    return cell.task, cell.split, cell.limit or 0


def _place(cell: Cell) -> tuple[Any, ...]:
    return *_setting(cell), cell.regime, cell.method, cell.keep, cell.seed, str(cell.root or "")
