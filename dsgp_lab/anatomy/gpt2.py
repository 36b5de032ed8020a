"""GPT-2 (Radford et al. 2019): learned positions, layer norms, query, key and value joined in one Conv1D."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dsgp_lab.anatomy.base import Inputs
from dsgp_lab.anatomy.decoder import DecoderFamily, head


def embed(base: Any, inputs: Inputs) -> Tensor:
    """Token ids and positions -> first hidden states [batch, tokens, hidden]."""
    hidden: Tensor = base.wte(inputs["input_ids"]) + base.wpe(inputs["position_ids"])
    return hidden


GPT2 = DecoderFamily(
    name="GPT-2",
    model_type="gpt2",
    layers="h",
    attention="attn",
    query="attn.c_attn",
    key="attn.c_attn",
    value="attn.c_attn",
    joined=True,
    attention_out="attn.c_proj",
    attention_norm="ln_1",
    ffn_in="mlp.c_fc",
    activation="mlp.act",
    ffn_out="mlp.c_proj",
    ffn_norm="ln_2",
    final_norm="ln_f",
    embed=embed,
    classify=head,
)
