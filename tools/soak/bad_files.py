"""Files that are not what they should be: how each is spoiled, and what then reads it."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from dsgp_lab import Lab
from dsgp_lab.checkpoints import load_checkpoint
from dsgp_lab.checksums import differing
from dsgp_lab.evaluate.cell_files import read_cell, read_cells
from dsgp_lab.evaluate.language_table import LanguageTable
from dsgp_lab.evaluate.results_table import Results
from dsgp_lab.own_data import read_own
from dsgp_lab.router import Router
from dsgp_lab.rows import parse_rows, read_jsonl
from dsgp_lab.sensitivity.prompt_router import PromptRouter
from dsgp_lab.tasks import data_folder, get_task
from dsgp_lab.training.snapshot import load_snapshot

TABLES: dict[str, tuple[str, str | bytes]] = {
    "empty": ("a.csv", ""),
    "no rows": ("a.csv", "sentence,label\n"),
    "other columns": ("a.csv", "text,label\na,1\n"),
    "a column twice": ("a.csv", "sentence,label,label\na,1,0\n"),
    "other delimiter": ("a.csv", "sentence;label\na;1\n"),
    "too many fields": ("a.csv", "sentence,label\nwarm, funny,1\n"),
    "too few fields": ("a.csv", "sentence,label\na\n"),
    "open quote": ("a.csv", 'sentence,label\n"a,1\n'),
    "empty text": ("a.csv", "sentence,label\n ,1\n"),
    "unknown label": ("a.csv", "sentence,label\na,great\n"),
    "label out of range": ("a.csv", "sentence,label\na,2\n"),
    "hidden label": ("a.tsv", "sentence\tlabel\na\t-1\n"),
    "no label": ("a.csv", "sentence,label\na,\n"),
    "another encoding": ("a.csv", "sentence,label\ncaf\u00e9,1\n".encode("latin-1")),
    "UTF-16": ("a.csv", "sentence,label\na,1\n".encode("utf-16")),
    "a NUL": ("a.csv", b"sentence,label\na\0,1\n"),
    "broken JSON": ("a.jsonl", '{"sentence"\n'),
    "a list": ("a.jsonl", '["a", 1]\n'),
    "a key twice": ("a.jsonl", '{"sentence": "a", "label": 1, "label": 0}\n'),
    "a number as text": ("a.jsonl", '{"sentence": 7, "label": 1}\n'),
    "half a surrogate": ("a.jsonl", '{"sentence": "a\\ud800", "label": 1}\n'),
    "unknown ending": ("a.txt", "sentence,label\na,1\n"),
    "no gzip": ("a.csv.gz", b"sentence,label\na,1\n"),
    "half a gzip": ("a.csv.gz", gzip.compress(b"sentence,label\na,1\n", mtime=0)[:-9]),
}

Spoil = Callable[[Path], object]


def cut(path: Path) -> None:
    """Leave about half of a file, not up to the end of a line."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2].rstrip()[:-3])


def folders(at: str, names: list[str]) -> list[str]:
    """Which of these names are folders."""
    return [name for name in names if (Path(at) / name).is_dir()]


def spoiled_files(folder: Path) -> dict[str, Callable[[], Any]]:
    """Calls that read a spoiled file and must end in a LabError; everything is made below `folder`."""
    place, data, sst2 = iter(range(1_000)), data_folder(), get_task("sst2")

    def table(name: str, content: str | bytes) -> Callable[[], Any]:
        path = folder / str(next(place)) / name
        path.parent.mkdir(parents=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return lambda: read_own(path, "sst2")

    def spoiled(source: Path, name: str, spoil: Spoil, read: Callable[[Path], Any]) -> Callable[[], Any]:
        copy = folder / str(next(place)) / source.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, ignore=folders)
        else:
            shutil.copy(source, copy)
        spoil(copy / name if name else copy)
        return lambda: read(copy)

    def absent(path: Path) -> None:
        path.unlink()

    def text(content: str) -> Spoil:
        return lambda path: path.write_text(content, "utf-8")

    def tensors(path: Path) -> None:
        save_file({"x": torch.zeros(2)}, path)

    def rows(path: Path) -> Any:
        return parse_rows(sst2, read_jsonl(path), str(path))

    dense, trained = data / "checkpoints" / "sst2", data / "checkpoints" / "sst2" / "adaptive"
    router, results = trained / "router.safetensors", data / "results"
    teaching, language = data / "teaching" / "sst2.jsonl", results / "language" / "table.json"
    card = json.loads((dense / "card.json").read_text("utf-8"))
    found = {f"own data: {name}": table(*given) for name, given in TABLES.items()}
    found |= {
        f"checkpoint: {name}": spoiled(dense, file, spoil, load_checkpoint)
        for name, (file, spoil) in {
            "no card": ("card.json", absent),
            "half a card": ("card.json", cut),
            "card of another kind": ("card.json", text("[]")),
            "card of another base": ("card.json", text(json.dumps(card | {"base_sha256": "0" * 64}))),
            "card of another task": ("card.json", text(json.dumps(card | {"task": "imdb"}))),
            "no weights": ("adapter_model.safetensors", absent),
            "half the weights": ("adapter_model.safetensors", cut),
            "other weights": ("adapter_model.safetensors", tensors),
            "other settings": ("adapter_config.json", text("{}")),
            "half an order": ("neuron_order.safetensors", cut),
        }.items()
    }
    return found | {
        "router: half": spoiled(router, "", cut, Router.load),
        "router: other tensors": spoiled(router, "", tensors, Router.load),
        "router: absent": spoiled(router, "", absent, Router.load),
        "prompt router: other tensors": spoiled(router, "", tensors, PromptRouter.load),
        "results: half a table": spoiled(results, "results.parquet", cut, Results.load),
        "results: no averages": spoiled(results, "averages.parquet", absent, Results.load),
        "results: another kind": spoiled(results, "results.parquet", text("a,b\n"), Results.load),
        "sweep: no cell": spoiled(results, "results.parquet", absent, lambda path: read_cells(path)),
        "sweep: half a cell": spoiled(results / "results.parquet", "", cut, read_cell),
        "language table: half": spoiled(language, "", cut, LanguageTable.load),
        "language table: another kind": spoiled(language, "", text("[]"), LanguageTable.load),
        "teaching set: half a line": spoiled(teaching, "", cut, rows),
        "teaching set: other columns": spoiled(teaching, "", text('{"text": "a", "label": 1}\n'), rows),
        "teaching set: empty": spoiled(teaching, "", text(""), rows),
        "state: half": spoiled(language, "", cut, Lab.restore),
        "state: another kind": spoiled(language, "", text("[]"), Lab.restore),
        "state: another format": spoiled(language, "", text('{"format": "x"}'), Lab.restore),
        "snapshot: half": spoiled(teaching, "", cut, lambda path: load_snapshot(path, {})),
        "sums: another kind": spoiled(results, "README.md", absent, differing),
    }
