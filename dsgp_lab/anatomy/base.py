"""What the engine needs to know of a model: its layers, its units, and the modules around them.

A *family* is a table of module paths (one file each in this folder); an *anatomy* is one
model read through its family's table. Nothing here runs the model or changes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dsgp_lab.errors import LabError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Inputs = Mapping[str, Tensor]
"""What a tokenizer returns: input_ids and attention_mask [batch, tokens], perhaps token_type_ids."""

LARGEST_BLOCK = 128
"""Default block size: smaller blocks choose more finely, but a matrix product of fewer rows is slow."""


@dataclass(frozen=True)
class Family:
    """One family of models: where its parts are (of encoders; `DecoderFamily` says what language models add).

    `layers` is a path below the base model, the nine module paths are below one layer.
    `embed` takes (base model, inputs) to the first hidden states [batch, tokens, hidden];
    `classify` takes (model, last hidden states) to logits [batch, labels].
    """

    name: str
    model_type: str
    layers: str
    query: str
    key: str
    value: str
    attention_out: str
    attention_norm: str
    ffn_in: str
    activation: str
    ffn_out: str
    ffn_norm: str
    embed: Callable[[Any, Inputs], Tensor]
    classify: Callable[[Any, Tensor], Tensor]

    def check(self, model: PreTrainedModel) -> None:
        """Raise LabError for a model of this family that the lab cannot run."""
        if getattr(model.config, "is_decoder", False):
            raise LabError(
                got=f"a {self.name} model set up as a decoder",
                allowed="encoders (is_decoder=False)",
                hint="load it with AutoModelForSequenceClassification and is_decoder=False",
            )

    def parts(self, layer: nn.Module) -> LayerParts:
        """The modules of one layer."""
        names = LayerParts.__annotations__
        return LayerParts(**{name: layer.get_submodule(getattr(self, name)) for name in names})  # type: ignore[arg-type]

    def sizes(self, model: PreTrainedModel, layer: LayerParts) -> dict[str, int]:
        """The sizes that an Anatomy has, from the model and one of its layers."""
        num_heads = int(model.config.num_attention_heads)
        return {
            "num_heads": num_heads,
            "head_dim": layer.query.out_features // num_heads,
            "hidden_size": layer.query.in_features,
            "num_neurons": layer.ffn_in.out_features,
        }

    def logits(self, model: PreTrainedModel, inputs: Inputs) -> Tensor:
        """The decision of the model as it is, through transformers: [batch, labels]."""
        logits: Tensor = model(**inputs).logits
        return logits


@dataclass(frozen=True)
class LayerParts:
    """The modules of one layer. A gate acts on what enters `attention_out` and `ffn_out`."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    attention_out: nn.Linear
    attention_norm: nn.LayerNorm
    ffn_in: nn.Linear
    activation: nn.Module
    ffn_out: nn.Linear
    ffn_norm: nn.LayerNorm


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A model's units: `num_layers` x `num_heads` heads and `num_layers` x `num_blocks` neuron blocks.

    `order` [layers, neurons] lists the neurons of each layer block by block: block k of a layer
    holds the neurons order[layer, k * block_size : (k + 1) * block_size]. The model's own neuron
    order is left as it is.
    """

    model: PreTrainedModel
    family: Family
    layers: tuple[LayerParts, ...]
    num_heads: int
    head_dim: int
    hidden_size: int
    num_neurons: int
    block_size: int
    order: Tensor
    queries_per_head: int = 1
    """Query heads that share a key and a value: above 1, a unit called head is such a whole KV group."""
    ffn_matrices: int = 2
    """Matrices of the feed-forward part: 2, or 3 where it is gated."""

    @property
    def context_dim(self) -> int:
        """Width of what one head (or KV group) hands to the output projection."""
        return self.queries_per_head * self.head_dim

    @property
    def is_multi_label(self) -> bool:
        """Whether every label is decided on its own, as the model's configuration says."""
        return getattr(self.model.config, "problem_type", None) == "multi_label_classification"

    def logits(self, inputs: Inputs) -> Tensor:
        """The model's decision through transformers: [batch, labels].

        Of a language model: the logits of the token that follows the last real one, [batch, vocabulary].
        """
        return self.family.logits(self.model, inputs)

    @property
    def num_layers(self) -> int:
        """Number of transformer layers."""
        return len(self.layers)

    @property
    def num_blocks(self) -> int:
        """Neuron blocks in each layer."""
        return self.num_neurons // self.block_size

    @property
    def num_units(self) -> int:
        """Heads and blocks of the whole model."""
        return self.num_layers * (self.num_heads + self.num_blocks)

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return self.layers[0].query.weight.device

    def into_blocks(self, neurons: Tensor) -> Tensor:
        """Values per neuron [..., layers, neurons] -> in blocks [..., layers, blocks, block_size]."""
        order = self.order.to(neurons.device).expand(neurons.shape)
        blocks: Tensor = neurons.gather(-1, order).unflatten(-1, (self.num_blocks, self.block_size))
        return blocks

    def to_neurons(self, blocks: Tensor) -> Tensor:
        """Values per block [..., layers, blocks] -> per neuron [..., layers, neurons]."""
        spread = blocks.repeat_interleave(self.block_size, dim=-1)
        inverse = self.order.argsort(dim=-1).to(blocks.device)
        return spread.gather(-1, inverse.expand(spread.shape))

    @staticmethod
    def of(
        model: PreTrainedModel | Anatomy, block_size: int | None = None, order: Tensor | None = None
    ) -> Anatomy:
        """Read a model's anatomy; an Anatomy is returned as it is.

        `block_size` must divide the number of neurons; by default it is the largest divisor up to 128.
        `order` [layers, neurons] holds a permutation of the neurons in each row; by default their own order.
        Raises LabError for an unsupported model and for a block size or an order that does not fit.
        """
        if isinstance(model, Anatomy):
            return model
        from dsgp_lab.anatomy import family_of

        family = family_of(model)
        family.check(model)
        layers = tuple(family.parts(layer) for layer in model.base_model.get_submodule(family.layers))
        sizes = family.sizes(model, layers[0])
        return Anatomy(
            model=model,
            family=family,
            layers=layers,
            block_size=_block_size(sizes["num_neurons"], block_size),
            order=_order(order, len(layers), sizes["num_neurons"]),
            **sizes,
        )


def matrix(module: nn.Module) -> Tensor:
    """A linear layer's weight [out, in], also of GPT-2's Conv1D, which stores [in, out]."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight if isinstance(module, nn.Linear) else weight.T


def divisors(number: int) -> list[int]:
    """All divisors, ascending.

    >>> divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    return [d for d in range(1, number + 1) if number % d == 0]


def _block_size(num_neurons: int, wanted: int | None) -> int:
    if wanted is None:
        return max(d for d in divisors(num_neurons) if d <= LARGEST_BLOCK)
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1 or num_neurons % wanted:
        raise LabError(
            got=f"block_size={wanted!r} for {num_neurons} neurons",
            allowed=f"a divisor of {num_neurons}: {', '.join(map(str, divisors(num_neurons)))}",
            hint="leave block_size out to get the largest one up to 128",
        )
    return wanted


def _order(order: Tensor | None, num_layers: int, num_neurons: int) -> Tensor:
    identity = torch.arange(num_neurons).expand(num_layers, num_neurons)
    if order is None:
        return identity.contiguous()
    if tuple(order.shape) != (num_layers, num_neurons) or not torch.equal(order.long().sort(-1)[0], identity):
        raise LabError(
            got=f"a neuron order of shape {list(order.shape)}",
            allowed=f"[{num_layers}, {num_neurons}] with each row a permutation of 0 to {num_neurons - 1}",
            hint="use an order that was made for this model, or leave it out",
        )
    return order.long().cpu().contiguous()
