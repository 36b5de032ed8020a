"""DistilBERT (Sanh et al. 2019): BERT's layers under other names, no token types, no pooler."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dsgp_lab.anatomy.base import Family, Inputs


def embed(base: Any, inputs: Inputs) -> Tensor:
    """Token ids -> first hidden states [batch, tokens, hidden]."""
    hidden: Tensor = base.embeddings(inputs["input_ids"], position_ids=inputs.get("position_ids"))
    return hidden


def classify(model: Any, hidden: Tensor) -> Tensor:
    """Last hidden states -> logits: a ReLU layer on the first token, then the classifier."""
    logits: Tensor = model.classifier(model.dropout(torch.relu(model.pre_classifier(hidden[:, 0]))))
    return logits


DISTILBERT = Family(
    name="DistilBERT",
    model_type="distilbert",
    layers="transformer.layer",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    attention_out="attention.out_lin",
    attention_norm="sa_layer_norm",
    ffn_in="ffn.lin1",
    activation="ffn.activation",
    ffn_out="ffn.lin2",
    ffn_norm="output_layer_norm",
    embed=embed,
    classify=classify,
)
