"""A larger encoder, fine-tuned: an ordinary Hugging Face checkpoint, with a card of what made it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dsgp_lab.errors import LabError
from dsgp_lab.models import quiet, sha256, unreadable
from dsgp_lab.whole_files import make_folder, refusals, write_text

TEACHER_CARD = "teacher.json"
"""Not `card.json`, which marks a checkpoint of the base."""


def save_teacher(folder: Path, model: Any, tokenizer: Any, card: dict[str, Any]) -> None:
    """Write weights, tokenizer and card; the card gets the SHA-256 of the weights."""
    make_folder(folder)
    with refusals(folder), quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    weights = {path.name: sha256(path) for path in sorted(folder.glob("*.safetensors"))}
    _write(folder, card | {"encoder": card["settings"]["encoder"], "files": weights})


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
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    return card


def made_by(card: dict[str, Any]) -> dict[str, Any]:
    """What a student's card says of its teacher: how to make it again, and how good it was.

    >>> made_by({"command": "dsgp-lab train rte", "encoder": "e", "held_out": {}, "files": {}, "seed": 0})
    {'command': 'dsgp-lab train rte', 'encoder': 'e', 'held_out': {}, 'files': {}}
    """
    return {name: card[name] for name in ("command", "encoder", "held_out", "files")}


def update_teacher(folder: Path, entries: dict[str, Any]) -> dict[str, Any]:
    """Add entries to a teacher's card and return it."""
    card = teacher_card(folder) | entries
    _write(folder, card)
    return card


def _write(folder: Path, card: dict[str, Any]) -> None:
    write_text(folder / TEACHER_CARD, json.dumps(card, indent=2) + "\n")
