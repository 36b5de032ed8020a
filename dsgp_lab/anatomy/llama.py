"""Llama (Touvron et al. 2023), and the many models of its shape, SmolLM2 among them."""

from __future__ import annotations

from dsgp_lab.anatomy.decoder import DecoderFamily, embed_tokens, head, rotary

LLAMA = DecoderFamily(
    name="Llama",
    model_type="llama",
    layers="layers",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    attention_out="self_attn.o_proj",
    attention_norm="input_layernorm",
    ffn_gate="mlp.gate_proj",
    ffn_in="mlp.up_proj",
    activation="mlp.act_fn",
    ffn_out="mlp.down_proj",
    ffn_norm="post_attention_layernorm",
    embed=embed_tokens,
    classify=head,
    rotate=rotary,
)
