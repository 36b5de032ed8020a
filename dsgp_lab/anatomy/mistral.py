"""Mistral (Jiang et al. 2023): Llama's layers; every layer may look back on a window of tokens only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dsgp_lab.anatomy.llama import LLAMA


def window(config: Any, layer: int) -> int | None:
    """The same for all layers."""
    return getattr(config, "sliding_window", None)


MISTRAL = replace(LLAMA, name="Mistral", model_type="mistral", window=window)
