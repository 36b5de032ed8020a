"""The machine's cost table: what heads and blocks take in milliseconds, over batch and length.

At every point of a grid the time of a run is taken as

    milliseconds = fixed + heads * head + blocks * block + extra * run

where `extra` counts runs of kept units beyond the first in each half of a layer. Between points it is
interpolated. `calibration` measures the points. A table holds for one machine, thread count, number type,
library version and shape of model.
"""

from __future__ import annotations

import json
import os
import platform
from bisect import bisect_right
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dsgp_lab.cost import CostModel
from dsgp_lab.errors import LabError
from dsgp_lab.mask import Mask
from dsgp_lab.report import Report, Reported
from dsgp_lab.runs import runs
from dsgp_lab.whole_files import make_folder, write_text

if TYPE_CHECKING:
    from dsgp_lab.subnetwork import SubNetwork

FORMAT = 3
"""Of the packed weights' layout, whose times a table holds."""


@dataclass(frozen=True)
class Machine:
    """What a table holds for; `device` is the processor's name and number of cores, or the GPU's name."""

    device: str
    threads: int
    dtype: str
    torch: str
    shape: str
    format: int = FORMAT

    @staticmethod
    def of(subnetwork: SubNetwork) -> Machine:
        """The machine at hand, with the threads that torch uses now."""
        weight = subnetwork.packed[0].ffn.out_weight
        shape = CostModel.of(subnetwork.anatomy)
        return Machine(
            device=device_name(weight.device),
            threads=torch.get_num_threads(),
            dtype=str(weight.dtype).removeprefix("torch."),
            torch=torch.__version__,
            shape="x".join(str(value) for value in asdict(shape).values()),
        )

    def differences(self, other: Machine) -> list[str]:
        """Where two machines differ, as sentences.

        >>> Machine("a", 1, "float32", "2.13", "6x12").differences(Machine("a", 2, "float32", "2.13", "6x12"))
        ['threads 1, here 2']
        """
        return [
            f"{field.name} {getattr(self, field.name)}, here {getattr(other, field.name)}"
            for field in fields(self)
            if getattr(self, field.name) != getattr(other, field.name)
        ]


@dataclass(frozen=True)
class CostPoint:
    """Milliseconds at one batch size and length: of a run with no unit, of each head, block and extra run.

    mixed: what a batch takes more if its inputs have different masks (see `execution`).
    """

    batch: int
    tokens: int
    fixed: float
    head: float
    block: float
    run: float
    mixed: float = 0.0

    def time(self, heads: float, blocks: float, extra: float = 0.0) -> float:
        """Milliseconds of a run with so many units.

        >>> CostPoint(1, 25, fixed=1.0, head=0.1, block=0.2, run=0.05).time(heads=10, blocks=5, extra=2)
        3.1
        """
        return self.fixed + heads * self.head + blocks * self.block + extra * self.run


@dataclass(frozen=True, repr=False)
class CostTable(Reported):
    """Measured costs of one model's units on one machine, over batch x length."""

    machine: Machine
    points: tuple[CostPoint, ...]
    units: tuple[int, int]
    """Heads and blocks of the whole model."""
    seconds: float
    """How long measuring took."""

    def at(self, batch: int, tokens: int) -> CostPoint:
        """The costs at a batch size and length, interpolated between the nearest points of the grid."""
        rows = [self._at_length(size, tokens) for size in sorted({point.batch for point in self.points})]
        return _between(rows, batch, "batch")

    def dense(self, tokens: int, batch: int = 1) -> float:
        """Predicted milliseconds of the lean dense run."""
        return self.at(batch, tokens).time(*self.units)

    def predict(self, mask: Mask, tokens: int, batch: int = 1) -> float:
        """Predicted milliseconds of a run of `batch` inputs of `tokens` tokens, all under one mask."""
        return self.at(batch, tokens).time(*counts(mask))

    def report(self) -> Report:
        """A row for each point."""
        rows = tuple(
            (
                str(p.batch),
                str(p.tokens),
                f"{p.time(*self.units):.2f}",
                f"{p.fixed:.2f}",
                *(f"{1e3 * value:.1f}" for value in (p.head, p.block, p.run)),
                f"{p.mixed:.2f}",
            )
            for p in self.points
        )
        header = (
            "batch",
            "tokens",
            "dense ms",
            "fixed ms",
            "head µs",
            "block µs",
            "extra run µs",
            "mixed ms",
        )
        m = self.machine
        notes = (
            f"{m.device}, {m.threads} thread{'s' * (m.threads > 1)}, {m.dtype}, torch {m.torch};"
            f" measured in {self.seconds:.0f} s.",
        )
        return Report("Cost table of this machine", rows, header, notes)

    def save(self, path: Path | None = None) -> Path:
        """Write as JSON, by default into the user's cache folder, and return where."""
        path = path or table_path(self.machine)
        make_folder(path.parent)
        write_text(path, json.dumps(asdict(self), indent=1))
        return path

    @staticmethod
    def load(subnetwork: SubNetwork, path: Path | None = None) -> CostTable:
        """The table of this machine and model.

        Raises:
            LabError: there is none, it is damaged, or it was measured on another machine, with other threads,
                versions or model.
        """
        here = Machine.of(subnetwork)
        path = path or table_path(here)
        hint = "measure this machine with dsgp-lab calibrate"
        if not path.is_file():
            raise LabError(got=f"no cost table for this machine in {path.parent}", allowed="one", hint=hint)
        try:
            raw: dict[str, Any] = json.loads(path.read_text("utf-8"))
            table = CostTable(
                machine=Machine(**raw["machine"]),
                points=tuple(CostPoint(**point) for point in raw["points"]),
                units=(int(raw["units"][0]), int(raw["units"][1])),
                seconds=float(raw["seconds"]),
            )
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise LabError(got=f"a damaged cost table {path} ({error})", allowed="one", hint=hint) from None
        other = table.machine.differences(here)
        if other:
            got = f"a cost table measured elsewhere: {'; '.join(other)}"
            raise LabError(got=got, allowed="one of this machine", hint=hint)
        return table

    def _at_length(self, batch: int, tokens: int) -> CostPoint:
        return _between([point for point in self.points if point.batch == batch], tokens, "tokens")


def counts(mask: Mask) -> tuple[int, int, int]:
    """Heads, blocks and extra runs of one input's mask."""
    return int(mask.heads.sum()), int(mask.blocks.sum()), extra_runs(mask)


def extra_runs(mask: Mask) -> int:
    """Runs of kept units beyond the first, over all heads and all blocks of each layer of one input's mask.

    >>> heads = torch.tensor([[[True, False, True]]])
    >>> extra_runs(Mask(heads, torch.ones(1, 1, 4, dtype=torch.bool)))
    1
    """
    parts = [*mask.heads[0].tolist(), *mask.blocks[0].tolist()]
    return sum(max(0, len(runs(tuple(kept))) - 1) for kept in parts)


def table_path(machine: Machine) -> Path:
    """Where a machine's table lies: one file for each model shape and thread count."""
    from platformdirs import user_cache_path

    return user_cache_path("dsgp_lab") / "costs" / f"{machine.shape}_{machine.threads}.json"


def device_name(device: torch.device) -> str:
    """The processor's name and cores, or the GPU's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text("utf-8", errors="replace").splitlines()
        found = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        name = found[0] if found else name
    return f"{name}, {os.cpu_count()} cores"


def _between(points: list[CostPoint], value: int, axis: str) -> CostPoint:
    """The costs at `value` on the line through the two nearest points; none below 0."""
    if len(points) == 1:
        return points[0]
    places = [getattr(point, axis) for point in points]
    right = min(max(bisect_right(places, value), 1), len(points) - 1)
    low, high = points[right - 1], points[right]
    weight = (value - places[right - 1]) / (places[right] - places[right - 1])
    costs = {
        name: max(0.0, getattr(low, name) + weight * (getattr(high, name) - getattr(low, name)))
        for name in ("fixed", "head", "block", "run", "mixed")
    }
    where = {"batch": low.batch, "tokens": low.tokens} | {axis: value}
    return CostPoint(**where, **costs)
