"""A larger encoder, fine-tuned: an ordinary Hugging Face checkpoint, with a card of what made it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dsgp_lab.errors import LabError
from dsgp_lab.models import quiet, sha256, unreadable
from dsgp_lab.training.config import FinetuneConfig
from dsgp_lab.whole_files import make_folder, refusals, write_text

TEACHER_CARD = "teacher.json"
"""Not `card.json`, which marks a checkpoint of the base."""

NEEDED = frozenset({"task", "settings", "command", "encoder", "held_out", "files"})
HELD_OUT_BY = ("held_out", "seed")
"""Settings that decide which examples are held out."""


def save_teacher(folder: Path, model: Any, tokenizer: Any, card: dict[str, Any]) -> None:
    """Write weights, tokenizer and card; the card gets the SHA-256 of the weights."""
    make_folder(folder)
    with refusals(folder), quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    own = {"encoder": card["settings"]["encoder"], "files": weight_digests(folder)}
    if (Path(own["encoder"]) / TEACHER_CARD).is_file():
        own["begun_by"] = made_by(teacher_card(Path(own["encoder"])))
    _write(folder, card | own)


def teacher_card(folder: Path) -> dict[str, Any]:
    """The card of a teacher.

    Raises:
        LabError: there is none, or it is damaged.
    """
    path = folder / TEACHER_CARD
    if not path.is_file():
        raise LabError(
            got=f"teacher {folder}, without {TEACHER_CARD}",
            allowed="the folder checkpoint/ of a run with --encoder",
            hint="train a teacher with dsgp-lab train TASK --encoder NAME --update full",
        )
    try:
        card: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if not card.keys() >= NEEDED:
            raise ValueError(f"without {', '.join(sorted(NEEDED - card.keys()))}")
    except (OSError, ValueError, AttributeError) as error:
        raise unreadable(path, error) from None
    return card


def check_teacher(folder: Path, config: FinetuneConfig) -> dict[str, Any]:
    """The card of a teacher that fits a run: same task, same held-out part, weights as they were written.

    Raises:
        LabError: it does not fit. A teacher that was trained on what the run holds out would make the run
            look better than it is.
    """
    card = teacher_card(folder)
    if card["task"] != config.task:
        raise LabError(
            got=f"teacher {folder}, a model of {card['task']}",
            allowed=f"a model of {config.task}: the order of classes differs between tasks",
            hint=f"train one with dsgp-lab train {config.task} --encoder NAME --update full",
        )
    given = tuple(card["settings"][name] for name in HELD_OUT_BY)
    if given != tuple(getattr(config, name) for name in HELD_OUT_BY):
        raise LabError(
            got=f"teacher {folder} with held_out={given[0]}, seed={given[1]}",
            allowed=f"held_out={config.held_out}, seed={config.seed}, as this run's",
            hint="use the same two in both runs, so that both hold out the same examples",
        )
    if weight_digests(folder) != card["files"]:
        raise LabError(
            got=f"{folder}, with other weights than {TEACHER_CARD} names",
            allowed="the weights as they were written",
            hint="train the teacher again",
        )
    return card


def weight_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of weights."""
    return {path.name: sha256(path) for path in sorted(folder.glob("*.safetensors"))}


def made_by(card: dict[str, Any]) -> dict[str, Any]:
    """What a student's card says of its teacher: how to make it again, and how good it was.

    >>> made_by({"command": "dsgp-lab train rte", "encoder": "e", "held_out": {}, "files": {}, "seed": 0})
    {'command': 'dsgp-lab train rte', 'encoder': 'e', 'held_out': {}, 'files': {}}
    """
    names = ("command", "encoder", "held_out", "files", "begun_by")
    return {name: card[name] for name in names if name in card}


def update_teacher(folder: Path, entries: dict[str, Any]) -> dict[str, Any]:
    """Add entries to a teacher's card and return it."""
    card = teacher_card(folder) | entries
    _write(folder, card)
    return card


def _write(folder: Path, card: dict[str, Any]) -> None:
    write_text(folder / TEACHER_CARD, json.dumps(card, indent=2) + "\n")
