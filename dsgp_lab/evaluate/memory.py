"""Peak memory of a run, each kind in a process of its own: `python -m dsgp_lab.evaluate.memory TASK KIND`."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

from dsgp_lab.errors import LabError
from dsgp_lab.report import Report

KINDS = ("transformers dense", "lean dense", "pruned")


@dataclass(frozen=True)
class MemoryTable:
    """Peak resident memory of a whole process in MiB, by kind of run."""

    task: str
    peaks: dict[str, float]

    def report(self) -> Report:
        """A row a kind."""
        dense = self.peaks[KINDS[0]]
        rows = tuple((kind, f"{peak:.0f}", f"{peak / dense:.2f}") for kind, peak in self.peaks.items())
        note = "Of the whole process, Python and torch included; 60 texts each."
        return Report(f"Peak memory, {self.task}", rows, ("run", "MiB", f"of {KINDS[0]}"), (note,))

    def __str__(self) -> str:
        """A text table."""
        return self.report().text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.report().html()


def measure_memory(task: str = "sst2") -> MemoryTable:
    """Run each kind in a fresh process and ask the system for its peak.

    Raises:
        LabError: a process failed.
    """
    peaks = {}
    for kind in KINDS:
        command = [sys.executable, "-P", "-m", "dsgp_lab.evaluate.memory", task, kind]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise LabError(
                got=f"a memory run that failed: {done.stderr.strip()[-200:]}",
                allowed="a system with the module resource (Linux, macOS)",
                hint="leave the memory figure out with --no-memory",
            )
        peaks[kind] = float(done.stdout)
    return MemoryTable(task, peaks)


def main(task: str, kind: str) -> None:
    """Load the model, run 60 texts of the teaching set, print the peak in MiB."""
    import resource

    import torch

    from dsgp_lab.evaluate.bench_variants import static_mask
    from dsgp_lab.lab import Lab
    from dsgp_lab.models import load_task_model
    from dsgp_lab.tasks import load_teaching

    torch.set_num_threads(1)
    texts = [text[0] if len(text) == 1 else (text[0], text[1]) for text in load_teaching(task).texts[:60]]
    if kind == KINDS[0]:
        own = load_task_model(task)
        with torch.inference_mode():
            for text in texts:
                pair = (text,) if isinstance(text, str) else text
                own.model(**own.tokenizer(*pair, return_tensors="pt"))
    else:
        lab = Lab(task)
        mask = static_mask(lab, 0.6)
        for text in texts:
            inputs = lab.encode([text])
            lab.subnetwork.dense(inputs) if kind == KINDS[1] else lab.subnetwork(inputs, mask)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(peak / (1024 if sys.platform != "darwin" else 1024**2))


if __name__ == "__main__":
    main(*sys.argv[1:])
