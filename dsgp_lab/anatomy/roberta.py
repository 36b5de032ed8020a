"""RoBERTa (Liu et al. 2019): BERT's layers, positions counted from the padding id, a deeper classifier."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from dsgp_lab.anatomy.base import Inputs
from dsgp_lab.anatomy.bert import BERT


def embed(base: Any, inputs: Inputs) -> Tensor:
    """Token ids -> first hidden states [batch, tokens, hidden]."""
    embedded: Tensor = base.embeddings(
        input_ids=inputs["input_ids"],
        token_type_ids=inputs.get("token_type_ids"),
        position_ids=inputs.get("position_ids"),
    )
    return embedded


def classify(model: Any, hidden: Tensor) -> Tensor:
    """Last hidden states -> logits; the classifier takes the first token itself."""
    logits: Tensor = model.classifier(hidden)
    return logits


ROBERTA = replace(BERT, name="RoBERTa", model_type="roberta", embed=embed, classify=classify)
