"""Qwen3 (Yang et al. 2025): Qwen2 without biases, queries and keys normalised head by head."""

from __future__ import annotations

from dataclasses import replace

from dsgp_lab.anatomy.qwen2 import QWEN2

QWEN3 = replace(
    QWEN2, name="Qwen3", model_type="qwen3", query_norm="self_attn.q_norm", key_norm="self_attn.k_norm"
)
