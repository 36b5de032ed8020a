"""ELECTRA (Clark et al. 2020): BERT's layers; small ones widen narrow embeddings before the first layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from dsgp_lab.anatomy import bert, roberta
from dsgp_lab.anatomy.base import Inputs


def embed(base: Any, inputs: Inputs) -> Tensor:
    """Token ids -> first hidden states [batch, tokens, hidden]."""
    embedded = bert.embed(base, inputs)
    return base.embeddings_project(embedded) if hasattr(base, "embeddings_project") else embedded


ELECTRA = replace(bert.BERT, name="ELECTRA", model_type="electra", embed=embed, classify=roberta.classify)
