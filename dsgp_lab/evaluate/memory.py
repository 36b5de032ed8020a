"""Memory of a run, each kind in a process of its own: `python -m dsgp_lab.evaluate.memory TASK KIND REGIME`.

Loading a model takes more than running it. So each process loads, gives back what it no longer needs, forgets
its peak, and then runs: what counts is the peak from there on.
"""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dsgp_lab.errors import LabError
from dsgp_lab.report import Report

if TYPE_CHECKING:
    from dsgp_lab.regimes import Regime

KINDS = ("transformers dense", "lean dense", "pruned")
KEEP = 0.6


@dataclass(frozen=True)
class MemoryTable:
    """Resident memory of a process in MiB, by kind of run: `loaded` before the runs, `peaks` during them.

    after_loading: whether the system lets a process forget the peak of loading (Linux); elsewhere it is in.
    """

    task: str
    loaded: dict[str, float]
    peaks: dict[str, float]
    after_loading: bool = True

    def report(self) -> Report:
        """A row a kind."""
        dense = self.peaks[KINDS[0]]
        rows = tuple(
            (kind, f"{self.loaded[kind]:.0f}", f"{peak:.0f}", f"{peak / dense:.2f}")
            for kind, peak in self.peaks.items()
        )
        header = ("run", "loaded MiB", "peak MiB", f"of {KINDS[0]}")
        since = "after loading" if self.after_loading else "loading included"
        note = f"Of the whole process, Python and torch included; 60 texts each, peak {since}."
        return Report(f"Memory, {self.task}", rows, header, (note,))

    def __str__(self) -> str:
        """A text table."""
        return self.report().text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.report().html()


def measure_memory(task: str = "sst2", regime: Regime = "frozen") -> MemoryTable:
    """Run each kind in a fresh process and ask the system for its peak.

    Raises:
        LabError: a process failed.
    """
    found = {}
    for kind in KINDS:
        command = [sys.executable, "-P", "-m", "dsgp_lab.evaluate.memory", task, kind, regime]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise LabError(
                got=f"a memory run that failed: {done.stderr.strip()[-200:]}",
                allowed="a system with the module resource (Linux, macOS)",
                hint="leave the memory figure out with --no-memory",
            )
        found[kind] = json.loads(done.stdout)
    return MemoryTable(
        task,
        loaded={kind: each["loaded"] for kind, each in found.items()},
        peaks={kind: each["peak"] for kind, each in found.items()},
        after_loading=all(each["forgot"] for each in found.values()),
    )


def main(task: str, kind: str, regime: Regime = "frozen") -> None:
    """Load the model, run 60 texts of the teaching set, print memory in MiB as JSON.

    The pruned kind runs under the task's router, so that copies for its masks are made; without one, under a
    static mask.
    """
    import torch

    from dsgp_lab.evaluate.bench_variants import static_mask
    from dsgp_lab.lab import Lab
    from dsgp_lab.regimes import load_model
    from dsgp_lab.router import Router
    from dsgp_lab.router_planner import Planner
    from dsgp_lab.tasks import load_teaching

    torch.set_num_threads(1)
    texts = [text[0] if len(text) == 1 else (text[0], text[1]) for text in load_teaching(task).texts[:60]]
    if kind == KINDS[0]:
        own = load_model(task, regime)

        @torch.inference_mode()
        def run(text: str | tuple[str, str]) -> None:
            pair = (text,) if isinstance(text, str) else text
            own.model(**own.tokenizer(*pair, return_tensors="pt"))

    else:
        lab = Lab(task, regime=regime)
        try:
            router = lab.scorer("router")
        except LabError:
            router = None
        plan = (
            Planner(router, KEEP)
            if isinstance(router, Router)
            else lab.subnetwork.select(static_mask(lab, KEEP))
        )

        def run(text: str | tuple[str, str]) -> None:
            inputs = lab.encode([text])
            lab.subnetwork.dense(inputs) if kind == KINDS[1] else lab.subnetwork.run(inputs, plan)

    run(texts[0])  # what is made once, at the first run, belongs to loading
    forgot = _forget_peak()
    loaded = _peak_mib()
    for text in texts:
        run(text)
    print(json.dumps({"loaded": loaded, "peak": _peak_mib(), "forgot": forgot}))


def _forget_peak() -> bool:
    """Give free memory back to the system and let the peak start from what is left; False where it cannot."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return False
    return True


def _peak_mib() -> float:
    """The process's peak resident memory, since it was last forgotten."""
    import resource

    status = Path("/proc/self/status")
    if status.is_file():
        lines = dict(line.split(":", 1) for line in status.read_text("ascii", "replace").splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 if sys.platform != "darwin" else 1024**2)


if __name__ == "__main__":
    main(*sys.argv[1:])  # type: ignore[arg-type]
