"""BERT (Devlin et al. 2019) and the MiniLM models, which are small BERTs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from dsgp_lab.anatomy.base import Family, Inputs


def embed(base: Any, inputs: Inputs) -> Tensor:
    """Token ids -> first hidden states [batch, tokens, hidden].

    What the module `embeddings` computes; calling the modules in it takes longer than their arithmetic.
    """
    parts, ids = base.embeddings, inputs["input_ids"]
    types, positions = inputs.get("token_type_ids"), inputs.get("position_ids")
    type_weight, position_weight = parts.token_type_embeddings.weight, parts.position_embeddings.weight
    hidden = torch.embedding(parts.word_embeddings.weight, ids)
    hidden = hidden + (type_weight[0] if types is None else torch.embedding(type_weight, types))
    hidden += (
        position_weight[: ids.shape[1]] if positions is None else torch.embedding(position_weight, positions)
    )
    norm = parts.LayerNorm
    return torch.layer_norm(hidden, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def classify(model: Any, hidden: Tensor) -> Tensor:
    """Last hidden states -> logits: pooler on the first token, then the classifier."""
    pooler, classifier = model.bert.pooler.dense, model.classifier
    pooled = torch.tanh(linear(hidden[:, 0], pooler.weight, pooler.bias))
    return linear(pooled, classifier.weight, classifier.bias)


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
