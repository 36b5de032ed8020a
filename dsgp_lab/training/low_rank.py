"""What fine-tuning trains: low-rank adapters, or whole matrices whose change is made low-rank at the end.

Both end as a peft adapter on every linear layer of the encoder, W + B A alpha / rank (LoRA, Hu et al. 2021),
and a classification head in full. Embeddings, biases and norms stay the base's.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dsgp_lab.checkpoints import ADAPTER, ADAPTER_CONFIG
from dsgp_lab.errors import LabError
from dsgp_lab.models import load_base, quiet
from dsgp_lab.tasks import Examples
from dsgp_lab.training.config import FinetuneConfig

CLASSIFIER = "classifier"

FOR_TRAINING: dict[str, Any] = {"attention_probs_dropout_prob": 0.0, "attn_implementation": "eager"}
"""Settings of a model that is trained: on CPUs the backward pass of torch's fused attention takes several
times as long as that of the plain one at these lengths, a third of a whole training step."""


def adapted_model(config: FinetuneConfig, examples: Examples) -> Any:
    """The base with fresh adapters, or those of ``config.start_from``; for regression the head's bias starts
    at the mean label.
    """
    model = low_rank_adapter(_base(config, examples), config.rank, config.alpha)
    if config.start_from:
        _start_from(model, Path(config.start_from))
    return model


def whole_model(config: FinetuneConfig, examples: Examples) -> Any:
    """The base, or the base with the adapter of ``config.start_from`` merged in; its matrices require
    gradients.
    """
    model = _base(config, examples)
    if config.start_from:
        with quiet():
            model = adapter_of(model, Path(config.start_from)).merge_and_unload()
    return train_matrices(model)


def adapter_of(base: Any, folder: Path) -> Any:
    """A peft model around a base with the adapter of a checkpoint, but not its head."""
    adapted = low_rank_adapter(base, *_rank_and_alpha(folder))
    _start_from(adapted, folder)
    return adapted


def train_matrices(model: Any) -> Any:
    """Let every matrix of the encoder, and the head, require gradients, and nothing else."""
    matrices = {id(module.weight) for module in model.base_model.modules() if isinstance(module, nn.Linear)}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(id(parameter) in matrices or name.startswith(CLASSIFIER))
    return model


@torch.no_grad()
def to_low_rank(model: Any, rank: int, alpha: int) -> Any:
    """A model whose matrices were trained, as the base with adapters.

    Of each matrix's change the ``rank`` largest singular values are kept: the nearest matrix of that
    rank (Eckart and Young 1936).
    """
    base = load_base(model.config.num_labels)
    adapted = low_rank_adapter(base, rank, alpha)
    scaling = alpha / rank
    trained = dict(model.named_modules())
    for name, module in adapted.get_base_model().named_modules():
        if not hasattr(module, "lora_A"):
            continue
        change = trained[name].weight - module.get_base_layer().weight.to(trained[name].weight.device)
        left, values, right = torch.linalg.svd(change.float(), full_matrices=False)
        module.lora_A["default"].weight.copy_(right[:rank])
        module.lora_B["default"].weight.copy_(left[:, :rank] * values[:rank] / scaling)
    adapted.get_base_model().classifier.modules_to_save["default"].load_state_dict(
        model.classifier.state_dict()
    )
    return adapted


def low_rank_adapter(base: Any, rank: int, alpha: int) -> Any:
    """Untrained adapters on all linear layers of a classifier, its head to be trained in full."""
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(
        task_type="SEQ_CLS",
        r=rank,
        lora_alpha=alpha,
        target_modules=["query", "key", "value", "dense"],
        modules_to_save=[CLASSIFIER],
    )
    with quiet():
        return in_one_product(get_peft_model(base, lora))


def in_one_product(adapted: Any) -> Any:
    """Let every adapted layer of a peft model run as one product with W + B A alpha / rank.

    The sum is the same as peft's of two products; at this encoder's size, what peft does to the activations
    takes longer than adding up the matrices.
    """
    for module in adapted.modules():
        if hasattr(module, "lora_A"):
            module.forward = partial(_sum_first, module)
    return adapted


def _sum_first(layer: Any, x: Tensor) -> Tensor:
    plain = layer.get_base_layer()
    left, right = layer.lora_B["default"].weight, layer.lora_A["default"].weight
    given = (x, plain.weight, plain.bias, left, right, layer.scaling["default"])
    changed: Tensor = _Adapted.apply(*given)  # type: ignore[no-untyped-call]
    return changed


class _Adapted(torch.autograd.Function):
    """x -> x (W + s B A)^T + bias, where B and A alone get gradients.

    Left to autograd, the gradient of the sum would be a full matrix, a product as large as the forward one;
    those of B and A need only products of the adapter's rank.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, plain: Tensor, bias: Tensor, left: Tensor, right: Tensor, scaling: float
    ) -> Tensor:
        # small, and exact: only the product with the activations may run in bf16
        with torch.autocast(x.device.type, enabled=False):
            weight = torch.addmm(plain, left, right, alpha=scaling)
        out = functional.linear(x, weight, bias)
        ctx.save_for_backward(x.to(out.dtype), weight.to(out.dtype), left, right)
        ctx.scaling = scaling
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, left, right = ctx.saved_tensors
        rows, gradient = x.flatten(0, -2), gradients[0].flatten(0, -2)
        of_x = (gradient @ weight).view_as(x) if ctx.needs_input_grad[0] else None
        of_left = gradient.T @ (rows @ right.T.to(x.dtype))
        of_right = (gradient @ left.to(x.dtype)).T @ rows
        return of_x, None, None, of_left.float() * ctx.scaling, of_right.float() * ctx.scaling, None


def _base(config: FinetuneConfig, examples: Examples) -> Any:
    base = load_base(examples.task.num_labels, hidden_dropout_prob=config.dropout, **FOR_TRAINING)
    if examples.task.is_regression:
        nn.init.constant_(base.classifier.bias, sum(examples.labels) / len(examples))
    return base


def _rank_and_alpha(folder: Path) -> tuple[int, int]:
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        raise _no_checkpoint(folder, ADAPTER_CONFIG)
    settings = json.loads(path.read_text("utf-8"))
    return settings["r"], settings["lora_alpha"]


def _no_checkpoint(folder: Path, missing: str) -> LabError:
    return LabError(
        got=f"start_from={str(folder)!r}, without {missing}",
        allowed="the folder of a task checkpoint",
        hint="train that checkpoint first",
    )


def _start_from(model: Any, folder: Path) -> None:
    """Copy another task's adapter, but not its head, into a peft model of the same rank."""
    from safetensors.torch import load_file

    path = folder / ADAPTER
    if not path.is_file():
        raise _no_checkpoint(folder, ADAPTER)
    own, mine = dict(model.named_parameters()), model.peft_config["default"]
    theirs = _rank_and_alpha(folder)
    if theirs != (mine.r, mine.lora_alpha):
        raise LabError(
            got=f"start_from with adapters of rank {theirs[0]} and alpha {theirs[1]}",
            allowed=f"rank {mine.r} and alpha {mine.lora_alpha}, as this run's",
            hint="use the same rank and alpha in both runs",
        )
    with torch.no_grad():
        for key, value in load_file(path).items():
            if ".lora_" in key:
                own[key.removesuffix(".weight") + ".default.weight"].copy_(value)
