"""Snapshots: an explorer's state as JSON, and back to the same scores and mask.

The file holds what was set and what came out; no path, no user name, no code.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dsgp_lab.edits import Unit
from dsgp_lab.errors import LabError
from dsgp_lab.exploration import shown_name
from dsgp_lab.exploration_results import Choice, Planned
from dsgp_lab.mask import Mask
from dsgp_lab.report import Report, Reported
from dsgp_lab.results import Prediction
from dsgp_lab.sensitivity import Sensitivity

if TYPE_CHECKING:
    from dsgp_lab.lab import Lab
    from dsgp_lab.panels import Explorer

FORMAT = "dsgp-lab explorer 1"
SCRIPT_ID = "dsgp-lab-state"


@dataclass(frozen=True, eq=False, repr=False)
class Snapshot(Reported):
    """A saved state: what was set, the scores and the mask, both predictions.

    model: SHA-256 of the checkpoint's files by name, {} for a model of one's own. `explore()` opens it again.
    """

    choice: Choice
    sensitivity: Sensitivity
    mask: Mask
    dense: Prediction
    prediction: Prediction
    model: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; scores in full precision."""
        scores = self.sensitivity
        return {
            "format": FORMAT,
            "choice": asdict(self.choice),
            "sensitivity": {
                "scorer": scores.scorer,
                "oracle": scores.oracle,
                "macs": scores.macs.tolist(),
                "heads": scores.heads.tolist(),
                "blocks": scores.blocks.tolist(),
            },
            "mask": self.mask.to_dict(),
            "dense": asdict(self.dense),
            "prediction": asdict(self.prediction),
            "model": self.model,
        }

    @staticmethod
    def from_dict(values: Any) -> Snapshot:
        """Read what `to_dict` gave; LabError for anything else."""
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            got = values.get("format") if isinstance(values, dict) else type(values).__name__
            raise LabError(
                got=f"a file of format {got!r}",
                allowed=repr(FORMAT),
                hint="save one with the explorer's export",
            )
        try:
            return _read(values)
        except (KeyError, TypeError, ValueError) as error:
            raise LabError(
                got=f"a damaged state ({type(error).__name__}: {error})",
                allowed="a file as the explorer's export wrote it",
                hint="export it again",
            ) from None

    @staticmethod
    def load(path: str | Path) -> Snapshot:
        """Read a .json file, or the state inside an exported .html page."""
        path = Path(path)
        try:
            text = path.read_text("utf-8")
            if path.suffix.lower() == ".html":
                start = text.index(">", text.index(f'id="{SCRIPT_ID}"')) + 1
                text = text[start : text.index("</script>", start)]
            values = json.loads(text)
        except (OSError, ValueError) as error:
            raise LabError(
                got=f"{path.name}, which cannot be read ({type(error).__name__})",
                allowed="a .json or .html file that the explorer's export wrote",
                hint="check the path",
            ) from None
        return Snapshot.from_dict(values)

    @property
    def lab(self) -> Lab:
        """A lab on the same embedded model.

        Raises:
            LabError: a model of one's own, which has to be loaded as before, or one whose files have changed.
        """
        from dsgp_lab.lab import Lab
        from dsgp_lab.tasks import TASKS

        if self.choice.task not in TASKS or not self.model:
            raise LabError(
                got=f"a state of the model {self.choice.task!r}",
                allowed=", ".join(TASKS),
                hint="load the model with Lab.from_pretrained and call snapshot.explore(lab)",
            )
        lab = Lab(self.choice.task, regime=self.choice.regime)
        if self.model != _files(lab):
            raise LabError(
                got=f"a state of other weights than {self.choice.task!r}, {self.choice.regime}, now has",
                allowed="the checkpoint that it was saved with",
                hint="fetch that checkpoint again, or call snapshot.explore(lab) to see the text in this one",
            )
        return lab

    def explore(self, lab: Lab | None = None) -> Explorer:
        """The explorer in this state, computed anew."""
        from dataclasses import replace

        from dsgp_lab.panels import Explorer

        lab = lab or self.lab
        return Explorer(lab, replace(self.choice, task=lab.name, regime=lab.regime))

    def report(self) -> Report:
        """What was saved, in one table."""
        choice, text = self.choice, self.choice.text
        heads, blocks = self.mask.heads, self.mask.blocks
        rows = (
            ("text", text if isinstance(text, str) else " / ".join(text)),
            ("task, regime", f"{choice.task}, {choice.regime}"),
            ("scorer, budget", f"{choice.scorer}, {choice.keep:g}"),
            ("changed by hand", "yes" if choice.edited else "no"),
            ("heads that ran", f"{int(heads.sum())} of {heads.numel()}"),
            ("neuron blocks that ran", f"{int(blocks.sum())} of {blocks.numel()}"),
            ("dense prediction", repr(self.dense)),
            ("pruned prediction", repr(self.prediction)),
        )
        return Report("Saved state", rows)


def snapshot_of(lab: Lab, choice: Choice, planned: Planned, dense: Prediction, cut: Prediction) -> Snapshot:
    """A snapshot of an exploration's state, without any path of this machine."""
    shown = Choice(**{**choice.__dict__, "task": shown_name(choice.task)})
    return Snapshot(shown, planned.sensitivity, planned.mask, dense, cut, _files(lab))


def _files(lab: Lab) -> dict[str, str]:
    """SHA-256 of the checkpoint's files by name; none for a model of one's own."""
    files = (lab.card or {}).get("files", {})
    return {name: str(entry["sha256"]) for name, entry in files.items()}


def _read(values: dict[str, Any]) -> Snapshot:
    chosen = dict(values["choice"])
    text = chosen["text"]
    chosen["text"] = text if isinstance(text, str) else tuple(text)
    chosen["heads"], chosen["blocks"] = tuple(chosen["heads"]), tuple(chosen["blocks"])
    chosen["flipped"] = tuple(Unit(*unit) for unit in chosen["flipped"])
    scores = values["sensitivity"]
    sensitivity = Sensitivity(
        heads=torch.tensor(scores["heads"]),
        blocks=torch.tensor(scores["blocks"]),
        scorer=scores["scorer"],
        macs=torch.tensor(scores["macs"]),
        oracle=bool(scores["oracle"]),
    )
    predictions = (_prediction(values["dense"]), _prediction(values["prediction"]))
    mask = Mask.from_dict(values["mask"])
    if mask.heads.shape != sensitivity.heads.shape or mask.blocks.shape != sensitivity.blocks.shape:
        raise ValueError("mask and scores are of different shapes")
    return Snapshot(Choice(**chosen), sensitivity, mask, *predictions, dict(values["model"]))


def _prediction(values: dict[str, Any]) -> Prediction:
    return Prediction(
        label=str(values["label"]),
        index=int(values["index"]),
        probabilities=tuple(values["probabilities"]),
        margin=float(values["margin"]),
        logits=tuple(values["logits"]),
        chosen=None if values.get("chosen") is None else tuple(values["chosen"]),
    )
