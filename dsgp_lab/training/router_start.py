"""What a router training run begins with: the model, its static ranking, and the data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dsgp_lab.anatomy import Anatomy, Inputs
from dsgp_lab.checkpoints import load_checkpoint, verified_card
from dsgp_lab.cost import CostModel
from dsgp_lab.errors import LabError
from dsgp_lab.models import load_base, load_tokenizer, quiet
from dsgp_lab.ordering import by_importance
from dsgp_lab.regimes import ROUTER
from dsgp_lab.router import Router, RouterShape
from dsgp_lab.sensitivity import Fisher, Sensitivity
from dsgp_lab.tasks import SHARED, data_folder, get_task, shared_outputs, task_folder
from dsgp_lab.training.low_rank import (
    FOR_TRAINING,
    adapter_of,
    in_one_product,
    low_rank_adapter,
    train_matrices,
)
from dsgp_lab.training.overlap import dev_texts
from dsgp_lab.training.router_config import RouterConfig
from dsgp_lab.training.router_data import CPU, labelled_batches, long_sample, task_source
from dsgp_lab.training.router_groups import learn_rankings
from dsgp_lab.training.router_loop import Source, layer_features

SHARED_LIMIT = 12_000
"""Training examples of each task that the shared encoder sees."""


@dataclass(frozen=True, eq=False)
class Start:
    """`trained` is `dense`, its adapter still apart where that is trained; `fisher` has static scores.

    `groups` [calibration inputs] says which source each of them, and each row of `fisher`, comes from.
    `adapter` is the peft model around `trained`, None where weights stay as they are or whole matrices are
    trained.
    """

    dense: Anatomy
    trained: Anatomy
    sources: list[Source]
    held_out: list[Inputs]
    calibration: list[Inputs]
    fisher: Sensitivity
    groups: Tensor
    adapter: Any = None


def task_start(config: RouterConfig, dense: Path | None, cache: Path, device: torch.device = CPU) -> Start:
    """One task, from its dense checkpoint, on a device."""
    folder = dense or task_folder(config.task)
    own = load_checkpoint(folder)
    own.model.set_attn_implementation(FOR_TRAINING["attn_implementation"])
    own.model.to(device)
    limit = config.steps * config.batch_size
    source, examples, held_out = task_source(config.task, folder, config, cache, limit, device=device)
    if not len(held_out) and config.lowest < 1:
        raise LabError(
            got=f"{folder}, from whose training nothing was held out",
            allowed="a dense checkpoint with a held-out part: budgets are calibrated on it",
            hint=f"train it with dsgp-lab train {config.task} --held-out 400",
        )
    anatomy = Anatomy.of(own.model, order=own.neuron_order)
    trained, adapter = anatomy, None
    if config.regime == "joint":
        begin = Path(config.start_from) if config.start_from else folder
        model, adapter = trainable(config, begin, own.model.config.num_labels, device)
        trained = Anatomy.of(model, order=own.neuron_order)
    calibration, held = (
        labelled_batches(own.tokenizer, some, config.max_length, device=device)
        for some in (long_sample(examples), held_out)
    )
    fisher = _fisher(anatomy, calibration)
    return Start(
        dense=anatomy,
        trained=trained,
        sources=[source],
        held_out=[inputs for inputs, _ in held],
        calibration=[inputs for inputs, _ in calibration],
        fisher=fisher,
        groups=torch.zeros(len(fisher), dtype=torch.long),
        adapter=adapter,
    )


def shared_start(config: RouterConfig, dense: Path | None, cache: Path, device: torch.device = CPU) -> Start:
    """All tasks but WNLI in one encoder: fresh, from a checkpoint of the shared encoder, or from the adapter
    of one task's checkpoint; in the regime "frozen" the shared encoder as it is.

    Every task's targets are the logits of its own dense checkpoint, in the regime "frozen" those of the
    shared encoder, and nothing without distillation. Of each task's training split, examples with a text of
    another task's dev set are left out.

    Raises:
        LabError: "frozen", and `dense` is no checkpoint of the shared encoder.
    """
    frozen = config.regime == "frozen"
    if frozen and dense is None:
        dense = task_folder(SHARED)
    shared = dense if dense is not None and _is_shared(dense) else None
    if frozen and shared is None:
        raise LabError(
            got=f"{dense}, no checkpoint of the shared encoder",
            allowed="one of all tasks, where its weights stay as they are",
            hint="train one first with --regime joint --lowest 1, or name its folder with --dense",
        )
    home = data_folder() / "checkpoints" if config.distillation else None
    sources, held_out, calibration, scores = [], [], [], []
    dev = {task: dev_texts([task]) for task in shared_outputs()}
    for task, outputs in shared_outputs().items():
        judged = frozenset().union(*(texts for other, texts in dev.items() if other != task))
        folder = shared if frozen else home and home / task
        source, examples, held = task_source(
            task, folder, config, cache, SHARED_LIMIT, outputs, judged, device
        )
        sources.append(source)
        some = held.sample(min(len(held), 128))
        held_out += labelled_batches(load_tokenizer(), some, device=device)
        batches = labelled_batches(load_tokenizer(), long_sample(examples, 128), device=device)
        calibration += batches
        scores.append(_fisher(Anatomy.of(_task_model(task, shared, home).to(device)), batches))
    groups = torch.arange(len(scores)).repeat_interleave(torch.tensor([len(score) for score in scores]))
    # one task's gradients may be many times another's: each counts by its own mean
    fisher = Sensitivity.stack([_unit_mean(score) for score in scores])
    if fisher.neurons is None:
        raise AssertionError("Fisher scores every neuron")
    order = by_importance(fisher.neurons.mean(0))
    total = max(outputs.stop for outputs in shared_outputs().values())
    model, adapter = trainable(config, dense, total, device)
    if frozen and shared is not None:  # as it will be loaded: weights in one, blocks in the stored order
        model, adapter = adapter.merge_and_unload().requires_grad_(False), None
        stored = load_checkpoint(shared, next(iter(shared_outputs()))).neuron_order
        order = order if stored is None else stored
    trained = Anatomy.of(model, order=order)
    return Start(
        dense=trained,
        trained=trained,
        sources=sources,
        held_out=[inputs for inputs, _ in held_out],
        calibration=[inputs for inputs, _ in calibration],
        fisher=_in_blocks(fisher, trained),
        groups=groups,
        adapter=adapter,
    )


def _task_model(task: str, shared: Path | None, home: Path | None) -> Any:
    """A task's model: of the shared encoder, else its own, else untrained."""
    if shared is not None:
        return load_checkpoint(shared, task).model
    return load_checkpoint(home / task).model if home else load_base(get_task(task).num_labels)


def _fisher(anatomy: Anatomy, batches: list[tuple[Inputs, Tensor]]) -> Sensitivity:
    scores = Sensitivity.stack([Fisher()(anatomy, inputs, labels) for inputs, labels in batches])
    parts = {name: getattr(scores, name).cpu() for name in ("heads", "blocks", "neurons", "macs")}
    return replace(scores, **parts)


def _unit_mean(scores: Sensitivity) -> Sensitivity:
    """Scores divided by the mean over all heads and neurons."""
    if scores.neurons is None:
        raise AssertionError("Fisher scores every neuron")
    scale = torch.cat([scores.heads.flatten(), scores.neurons.flatten()]).mean().clamp(min=1e-12)
    parts = {name: getattr(scores, name) / scale for name in ("heads", "blocks", "neurons")}
    return replace(scores, **parts)


def _in_blocks(scores: Sensitivity, anatomy: Anatomy) -> Sensitivity:
    """Scores of blocks made anew from those of neurons, in the anatomy's order."""
    if scores.neurons is None:
        raise AssertionError("Fisher scores every neuron")
    return replace(scores, blocks=anatomy.into_blocks(scores.neurons).sum(-1))


def fresh_router(config: RouterConfig, start: Start) -> Router:
    """A router that decides as the one in ``config.start_from``, or is the model's static Fisher plan."""
    torch.manual_seed(config.seed)
    router = Router(RouterShape.of(start.dense, config.kind, config.width))
    features = layer_features(start.dense, start.calibration).cpu()
    router.standardise(features.mean(0), features.std(0))
    if config.start_from:
        folder = Path(config.start_from)
        verified_card(folder, (ROUTER,))
        router.start_from_router(Router.load(folder / ROUTER))
        return router.to(start.dense.device)
    cost = CostModel.of(start.dense)
    router.start_from_ranking(static_ranks(start.fisher, cost))
    if config.rank_by_task:
        ranks = torch.stack(
            [static_ranks(start.fisher[start.groups == group], cost) for group in start.groups.unique()]
        )
        learn_rankings(router, features, ranks[start.groups], config.seed)
    return router.to(start.dense.device)


def static_ranks(sensitivity: Sensitivity, cost: CostModel, length: int = 25) -> Tensor:
    """The budget at which each unit joins the static plan of a batch's mean scores [layers, units].

    Units are ordered by score per MAC; a unit's rank is the share of all MACs up to its middle.
    """
    scores = torch.cat([sensitivity.heads, sensitivity.blocks], dim=-1).mean(0)
    macs = torch.tensor([cost.head(length)] * cost.num_heads + [cost.block(length)] * cost.num_blocks)
    macs = macs.double().expand(cost.num_layers, -1).flatten()
    order = (scores.flatten().double() / macs).argsort(descending=True)
    ends = macs[order].cumsum(0)
    ranks = torch.empty_like(ends)
    ranks[order] = (ends - macs[order] / 2) / macs.sum()
    return ranks.float().view_as(scores)


def trainable(
    config: RouterConfig, folder: Path | None, num_labels: int, device: torch.device = CPU
) -> tuple[Any, Any]:
    """A model ready to train on, and the peft model around it where adapters are trained (else None).

    It is the base, or the checkpoint in `folder`; of a single task's checkpoint the shared encoder takes the
    adapter without the head.
    """
    from peft import PeftModel

    # no dropout: sampled masks are noise enough, and a fifth of the time is saved
    model = load_base(num_labels, hidden_dropout_prob=0.0, **FOR_TRAINING)
    if folder is None:
        adapter = low_rank_adapter(model, config.rank, 2 * config.rank)
    elif config.task == SHARED and not _is_shared(folder):
        adapter = adapter_of(model, folder)
    else:
        with quiet():
            adapter = in_one_product(PeftModel.from_pretrained(model, str(folder), is_trainable=True))
    adapter.to(device)
    if config.update == "low-rank":
        return adapter.get_base_model(), adapter
    with quiet():
        return train_matrices(adapter.merge_and_unload()), None


def _is_shared(folder: Path) -> bool:
    return bool(verified_card(folder)["task"] == SHARED)
