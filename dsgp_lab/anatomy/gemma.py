"""Gemma (Gemma Team 2024): Llama's layers with scaled embeddings, norms stored as weight - 1, and GELU.

Gemma 2 and 3 have norms after the two parts as well, which this table has no place for.
"""

from __future__ import annotations

from dataclasses import replace

from dsgp_lab.anatomy.llama import LLAMA

GEMMA = replace(LLAMA, name="Gemma", model_type="gemma", norm_offset=1.0)
