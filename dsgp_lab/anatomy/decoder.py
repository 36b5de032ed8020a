"""What language models add to a family: pre-norms, KV groups, gated feed-forward parts, positions, causality.

A layer is hidden += attention_out(attend(attention_norm(hidden))), then
hidden += ffn_out(active(ffn_norm(hidden))). `DecoderSubNetwork` runs it from this table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dsgp_lab.anatomy.base import Family, Inputs, LayerParts, matrix
from dsgp_lab.errors import LabError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Rotation = tuple[Tensor, Tensor]
"""Cosine and sine [batch, tokens, head_dim] of rotary positions."""


def no_window(config: Any, layer: int) -> int | None:
    """Every token may look at all tokens before it."""
    return None


@dataclass(frozen=True)
class DecoderFamily(Family):
    """One family of language models; module paths as in Family, "" where the family has no such module.

    `embed` takes (base model, input_ids and position_ids) to hidden states; `classify` takes (model, hidden
    states after the final norm) to logits over the vocabulary. `joined` says that `query`, `key` and `value`
    name one module with all three, one after the other. `rotate` takes (base model, hidden states,
    position_ids) to the rotation of queries and keys. `window` gives the number of tokens that a layer may
    look back on (None: all). `norm_offset` is added to the weight of RMS norms.
    """

    attention: str = "self_attn"
    ffn_gate: str = ""
    query_norm: str = ""
    key_norm: str = ""
    final_norm: str = "norm"
    joined: bool = False
    rotate: Callable[[Any, Tensor, Tensor], Rotation] | None = None
    window: Callable[[Any, int], int | None] = no_window
    norm_offset: float = 0.0

    def check(self, model: PreTrainedModel) -> None:
        """Refuse what is no causal language model."""
        config = model.config
        if model.get_output_embeddings() is None:
            raise LabError(
                got=f"{type(model).__name__}, a {self.name} model without a language-model head",
                allowed="causal language models",
                hint="load it with AutoModelForCausalLM",
            )
        for flag in ("add_cross_attention", "use_bidirectional_attention"):
            if getattr(config, flag, None):
                raise LabError(
                    got=f"a {self.name} model with {flag}=True",
                    allowed="causal self-attention only",
                    hint=f"use a model with {flag}=False",
                )

    def parts(self, layer: nn.Module) -> DecoderParts:
        """The modules of one layer."""
        paths = {name: getattr(self, name) for name in (*LayerParts.__annotations__, *OWN_PARTS)}
        found = {name: layer.get_submodule(path) if path else None for name, path in paths.items()}
        return DecoderParts(**found)  # type: ignore[arg-type]

    def sizes(self, model: PreTrainedModel, layer: LayerParts) -> dict[str, int]:
        """Heads are KV groups."""
        config = model.config
        queries = int(config.num_attention_heads)
        groups = int(getattr(config, "num_key_value_heads", None) or queries)
        hidden, context = matrix(layer.attention_out).shape
        return {
            "num_heads": groups,
            "queries_per_head": queries // groups,
            "head_dim": context // queries,
            "hidden_size": hidden,
            "num_neurons": len(matrix(layer.ffn_in)),
            "ffn_matrices": 3 if self.ffn_gate else 2,
        }

    def logits(self, model: PreTrainedModel, inputs: Inputs) -> Tensor:
        """Logits of the token after the last real one [batch, vocabulary]."""
        rows = torch.arange(len(inputs["input_ids"]), device=inputs["input_ids"].device)
        hidden = model.base_model(**placed(inputs)).last_hidden_state
        logits: Tensor = model.get_output_embeddings()(hidden[rows, last_real(inputs)])
        return logits

    def all_logits(self, model: PreTrainedModel, inputs: Inputs) -> Tensor:
        """Logits after every token [batch, tokens, vocabulary]; those on padding mean nothing."""
        logits: Tensor = model(**placed(inputs)).logits
        return logits


@dataclass(frozen=True)
class DecoderParts(LayerParts):
    """The modules of one layer of a language model; `ffn_in` is the up projection where the FFN is gated."""

    attention: nn.Module
    ffn_gate: nn.Module | None
    query_norm: nn.Module | None
    key_norm: nn.Module | None


OWN_PARTS = tuple(DecoderParts.__annotations__)


def placed(inputs: Inputs) -> dict[str, Tensor]:
    """The inputs with `position_ids` that count real tokens only, so that padding changes nothing.

    >>> left = {"input_ids": torch.tensor([[0, 7, 8]]), "attention_mask": torch.tensor([[0, 1, 1]])}
    >>> placed(left)["position_ids"].tolist()
    [[0, 0, 1]]
    """
    positions = (inputs["attention_mask"].long().cumsum(1) - 1).clamp(min=0)
    return {**inputs, "position_ids": positions}


def last_real(inputs: Inputs) -> Tensor:
    """Column of the last real token of each input [batch].

    >>> last_real({"attention_mask": torch.tensor([[1, 1, 0], [0, 1, 1]])}).tolist()
    [1, 2]
    """
    real = inputs["attention_mask"].long()
    columns = torch.arange(real.shape[1], device=real.device)
    return (real * columns).argmax(1)


def rotary(base: Any, hidden: Tensor, positions: Tensor) -> Rotation:
    """Rotary positions of the Llama-like families, by the model's own module."""
    rotation: Rotation = base.rotary_emb(hidden, positions)
    return rotation


def embed_tokens(base: Any, inputs: Inputs) -> Tensor:
    """Token ids -> first hidden states [batch, tokens, hidden]; positions enter in the attention."""
    hidden: Tensor = base.embed_tokens(inputs["input_ids"])
    return hidden


def head(model: Any, hidden: Tensor) -> Tensor:
    """Hidden states after the final norm -> logits over the vocabulary."""
    logits: Tensor = model.get_output_embeddings()(hidden)
    return logits
