"""Instruments: gates that multiply units, and captures of what enters them.

A gate sits on what enters the output projections of a layer: the heads' context vectors and the
activated neurons (METHOD: where gates attach). A gated run costs as much as a dense one; it exists
to look inside and to check the compacted run.

Both instruments are context managers made of forward hooks. They restore the model, also after an
exception, and act only in the thread that opened them, so that several threads may share a model.
Nested gates multiply.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dsgp_lab.anatomy import Anatomy
from dsgp_lab.errors import LabError
from dsgp_lab.mask import Mask

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, eq=False)
class Gates:
    """Multipliers on units, 1 = kept: heads [batch, layers, heads], neurons [batch, layers, neurons].

    `neurons` is in the model's own neuron order; `Gates.of` spreads gates on blocks over it.
    A batch of 1 applies to every input.
    """

    heads: Tensor
    neurons: Tensor

    @staticmethod
    def of(anatomy: Anatomy, heads: Tensor, blocks: Tensor) -> Gates:
        """Gates from values on heads and on neuron blocks [batch, layers, blocks]; differentiable in both."""
        return Gates(heads, anatomy.to_neurons(blocks))

    @staticmethod
    def ones(anatomy: Anatomy, batch: int) -> Gates:
        """Gates that change nothing, ready for a gradient."""

        def leaf(units: int) -> Tensor:
            shape = (batch, anatomy.num_layers, units)
            return torch.ones(shape, device=anatomy.device, requires_grad=True)

        return Gates(leaf(anatomy.num_heads), leaf(anatomy.num_neurons))


@contextmanager
def gated(model: PreTrainedModel | Anatomy, gates: Gates | Mask) -> Iterator[None]:
    """Inside the context, the model runs with its units multiplied by the gates (or by a mask's 0 and 1).

    Pass the Anatomy where the mask was planned with a block size or neuron order of its own.
    Raises LabError if shapes do not fit the model, or (as the model runs) the batch.
    """
    anatomy = Anatomy.of(model)
    if isinstance(gates, Mask):
        gates.check_fits(anatomy)
        dtype = anatomy.layers[0].query.weight.dtype
        gates = Gates.of(
            anatomy, gates.heads.to(anatomy.device, dtype), gates.blocks.to(anatomy.device, dtype)
        )
    _check_fits(gates, anatomy)
    with input_hooks() as on_input:
        for index, layer in enumerate(anatomy.layers):
            heads, neurons = gates.heads[:, index], gates.neurons[:, index]
            on_input(layer.attention_out, partial(multiply, gate=heads, width=anatomy.context_dim))
            on_input(layer.ffn_out, partial(multiply, gate=neurons, width=1))
        yield


@dataclass(eq=False)
class Captures:
    """What one forward pass let through, one tensor a layer, in the order of the layers.

    contexts: [batch, tokens, heads, context_dim]; activations: [batch, tokens, neurons];
    hidden: what enters the layer's projections [batch, tokens, hidden].
    """

    contexts: list[Tensor] = field(default_factory=list)
    activations: list[Tensor] = field(default_factory=list)
    hidden: list[Tensor] = field(default_factory=list)


@contextmanager
def captured(model: PreTrainedModel | Anatomy) -> Iterator[Captures]:
    """Inside the context, forward passes leave their contexts, activations and layer inputs in the result."""
    anatomy = Anatomy.of(model)
    captures = Captures()

    def keep(store: list[Tensor]) -> Callable[[Tensor], Tensor]:
        def act(tensor: Tensor) -> Tensor:
            store.append(tensor.detach())
            return tensor

        return act

    def keep_heads(tensor: Tensor) -> Tensor:
        captures.contexts.append(tensor.detach().unflatten(-1, (anatomy.num_heads, anatomy.context_dim)))
        return tensor

    with input_hooks() as on_input:
        for layer in anatomy.layers:
            on_input(layer.query, keep(captures.hidden))
            on_input(layer.attention_out, keep_heads)
            on_input(layer.ffn_out, keep(captures.activations))
        yield captures


def _check_fits(gates: Gates, anatomy: Anatomy) -> None:
    got = (tuple(gates.heads.shape[1:]), tuple(gates.neurons.shape[1:]))
    want = ((anatomy.num_layers, anatomy.num_heads), (anatomy.num_layers, anatomy.num_neurons))
    if got != want:
        raise LabError(
            got=f"gates on heads {list(got[0])} and neurons {list(got[1])} [layers, units]",
            allowed=f"heads {list(want[0])} and neurons {list(want[1])} for this model",
            hint="use Gates.of(anatomy, heads, blocks) to spread gates on blocks over neurons",
        )


def multiply(tensor: Tensor, gate: Tensor, width: int) -> Tensor:
    """Multiply [batch, tokens, units * width] by gate [batch, units] (or one row for all)."""
    if len(gate) not in (1, len(tensor)):
        raise LabError(
            got=f"gates for {len(gate)} inputs and a batch of {len(tensor)}",
            allowed="one row of gates for all inputs, or one for each",
            hint="make the gates for this batch",
        )
    return tensor * gate.to(tensor.dtype).repeat_interleave(width, dim=-1)[:, None, :]


@contextmanager
def input_hooks() -> Iterator[Callable[[nn.Module, Callable[[Tensor], Tensor]], None]]:
    """A way to act on modules' inputs that ends with the context and keeps to the opening thread."""
    owner = threading.get_ident()

    with ExitStack() as stack:

        def on_input(module: nn.Module, act: Callable[[Tensor], Tensor]) -> None:
            def hook(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
                return (act(args[0]), *args[1:]) if threading.get_ident() == owner else None

            stack.callback(module.register_forward_pre_hook(hook).remove)

        yield on_input
