"""BERT (Devlin et al. 2019) and the MiniLM models, which are small BERTs."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dsgp_lab.anatomy.base import Family, Inputs


def embed(base: Any, inputs: Inputs) -> Tensor:
    """Token ids -> first hidden states [batch, tokens, hidden]."""
    return base.embeddings(
        input_ids=inputs["input_ids"],
        token_type_ids=inputs.get("token_type_ids"),
        position_ids=inputs.get("position_ids"),
    )


def classify(model: Any, hidden: Tensor) -> Tensor:
    """Last hidden states -> logits: pooler on the first token, then the classifier."""
    return model.classifier(model.dropout(model.bert.pooler(hidden)))


BERT = Family(
    name="BERT",
    model_type="bert",
    layers="encoder.layer",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_out="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    ffn_in="intermediate.dense",
    activation="intermediate.intermediate_act_fn",
    ffn_out="output.dense",
    ffn_norm="output.LayerNorm",
    embed=embed,
    classify=classify,
)
