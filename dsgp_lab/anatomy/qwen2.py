"""Qwen2 (Yang et al. 2024): Llama's layers with biases on query, key and value; some layers have a window."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dsgp_lab.anatomy.llama import LLAMA


def window(config: Any, layer: int) -> int | None:
    """Layers of the type "sliding_attention" have one."""
    return config.sliding_window if config.layer_types[layer] == "sliding_attention" else None


QWEN2 = replace(LLAMA, name="Qwen2", model_type="qwen2", window=window)
