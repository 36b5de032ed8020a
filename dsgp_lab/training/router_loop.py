"""The router training loop: budgets drawn, gates sampled, the dense model's logits as the target."""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dsgp_lab.anatomy import Anatomy, Inputs
from dsgp_lab.batching import Encoded, bucketed_batches, collate
from dsgp_lab.cost import CostModel
from dsgp_lab.router import GRID, Router, pooled
from dsgp_lab.sensitivity import lengths
from dsgp_lab.tasks import Task
from dsgp_lab.training.config import computes_in_bf16
from dsgp_lab.training.distillation import distillation
from dsgp_lab.training.routed import routed
from dsgp_lab.training.router_config import RouterConfig
from dsgp_lab.training.snapshot import load_snapshot, save_snapshot
from dsgp_lab.whole_files import make_folder, refusals

SNAPSHOT = "snapshot.pt"
LOG = "train.log.jsonl"
LOG_EVERY = 25  # steps


@dataclass(frozen=True, eq=False)
class Source:
    """One task's training examples.

    ``targets`` [examples, labels] are the dense model's logits, ``outputs`` the model's outputs that belong
    to the task, ``weight`` how often the task is drawn.
    """

    task: Task
    encoded: Sequence[Encoded]
    labels: Sequence[int | float]
    targets: Tensor
    outputs: slice = field(default_factory=lambda: slice(None))
    weight: float = 1.0


class RouterTraining:
    """State of one run: a router, perhaps the weights, and the optimizer, resumable at any step.

    Each batch comes from one source. `begun` has the SHA-256 of what the run begins with, by name: a run that
    begins with something else does not go on from this one's snapshot.
    """

    def __init__(
        self,
        config: RouterConfig,
        anatomy: Anatomy,
        router: Router,
        sources: Sequence[Source],
        out: Path,
        say: Callable[[str], None] = lambda line: None,
        begun: dict[str, str] | None = None,
    ) -> None:
        self.config, self.anatomy, self.router, self.sources = config, anatomy, router, sources
        self.out, self.say = out, say
        self.record = config.record() | {"checkpoint to begin with": begun or {}}
        self.model = anatomy.model
        self.cost = CostModel.of(anatomy)
        self.bf16 = computes_in_bf16("auto", anatomy.device)
        self.named = dict(router.named_parameters(prefix="router"))
        if config.regime == "joint":
            weights = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
            self.named |= {f"model.{name}": parameter for name, parameter in weights.items()}
        self.optimizer = torch.optim.AdamW(self._groups(), weight_decay=0.0, fused=True)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.step = 0
        self.sums: dict[str, Tensor] = {}
        self.noted = 0
        self.clock, self.tokens = time.monotonic(), 0
        make_folder(out)
        torch.manual_seed(config.seed)
        state = load_snapshot(out / SNAPSHOT, self.record)
        if state is not None:
            self.step = state["step"]
            with torch.no_grad():
                for name, parameter in self.named.items():
                    parameter.copy_(state["parameters"][name])
            self.optimizer.load_state_dict(state["optimizer"])
        self.batches = _draw_batches(sources, config)
        for _ in range(self.step):
            next(self.batches)

    def _groups(self) -> list[dict[str, Any]]:
        bias = [p for n, p in self.named.items() if n in ("router.bias", "router.slope")]
        network = [p for n, p in self.named.items() if n.startswith("router.") and not _is_in(p, bias)]
        weights = [p for n, p in self.named.items() if n.startswith("model.")]
        groups = [
            {"params": bias, "lr": self.config.bias_learning_rate},
            {"params": network, "lr": self.config.learning_rate},
            {"params": weights, "lr": self.config.weights_learning_rate},
        ]
        return [group for group in groups if group["params"]]

    def run(self, save_every: float = 60.0, stop_at: int | None = None) -> bool:
        """Train to the end, or to a step; whether the end was reached."""
        saved = time.monotonic()
        while self.step < self.config.steps:
            self.advance()
            if stop_at is not None and self.step >= stop_at and self.step < self.config.steps:
                self.save()
                return False
            if time.monotonic() - saved >= save_every:
                self.save()
                saved = time.monotonic()
        self.save()
        self.model.eval()
        self.router.eval()
        return True

    def save(self) -> None:
        """Write the snapshot."""
        parameters = {name: parameter.detach().clone() for name, parameter in self.named.items()}
        state = {"config": self.record, "step": self.step, "parameters": parameters}
        save_snapshot(self.out / SNAPSHOT, state | {"optimizer": self.optimizer.state_dict()})

    def advance(self) -> None:
        """One optimizer step."""
        config = self.config
        source, chosen = next(self.batches)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * rate_at(self.step, config.steps)
        self.model.train(config.regime == "joint")
        inputs = collate([source.encoded[i] for i in chosen], self._pad_id, self.anatomy.device)
        budget = random.Random(f"{config.seed}/{self.step}").uniform(config.lowest, 1.0)
        keep = torch.full((len(chosen),), budget, device=self.anatomy.device)
        logits, shares = self._forward(inputs, keep)
        own = logits.float()[:, source.outputs]
        distance = distillation(own, source.targets[chosen].to(own.device), config.temperature)
        gap = (shares.mean() - budget).square() if config.adaptive else (shares - budget).square().mean()
        loss = config.distillation * distance + config.budget_weight * gap
        if config.labels:
            loss = loss + config.labels * _task_loss(source.task, own, [source.labels[i] for i in chosen])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.named.values(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens += sum(len(source.encoded[i].ids) for i in chosen)
        self._note(
            loss=loss,
            distance=distance,
            gap=(shares.mean() - budget).abs(),
            spread=shares.std(unbiased=False),
        )
        if self.step % LOG_EVERY == 0 or self.step == config.steps:
            self._log()

    def _forward(self, inputs: Inputs, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and the share of MACs of each input, of one batch under the router."""
        bf16 = torch.autocast(self.anatomy.device.type, dtype=torch.bfloat16, enabled=self.bf16)
        if self.config.lowest == 1:
            with bf16:
                return self.model(**inputs).logits, keep
        with routed(self.anatomy, self.router, inputs, keep, self.config.noise_at(self.step)) as run, bf16:
            logits = self.model(**inputs).logits
        return logits, run.shares(self.cost, inputs)

    @property
    def _pad_id(self) -> int | None:
        return getattr(self.model.config, "pad_token_id", 0)

    def _note(self, **values: Tensor) -> None:
        self.noted += 1
        for name, value in values.items():
            value = value.detach().double()  # not read yet: a GPU would be waited for
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def _log(self) -> None:
        row: dict[str, Any] = {"step": self.step, "of": self.config.steps}
        row |= {name: round(float(total) / self.noted, 4) for name, total in self.sums.items()}
        row["tokens_per_second"] = round(self.tokens / (time.monotonic() - self.clock))
        self.sums, self.noted, self.clock, self.tokens = {}, 0, time.monotonic(), 0
        line = json.dumps(row | {"time": round(time.time(), 1)})
        with refusals(self.out / LOG), (self.out / LOG).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        self.say(line)


def rate_at(step: int, total: int) -> float:
    """Factor on the learning rates: a rise over the first 5 % of the steps, then a linear fall to 0.

    >>> [round(rate_at(step, 100), 2) for step in (0, 4, 5, 99)]
    [0.2, 1.0, 1.0, 0.01]
    """
    rise = max(1, total // 20)
    return (step + 1) / rise if step < rise else (total - step) / (total - rise)


@torch.no_grad()
def layer_features(anatomy: Anatomy, batches: Sequence[Inputs]) -> Tensor:
    """Pooled layer inputs of the dense model [inputs, layers, features]."""
    from dsgp_lab.gates import captured

    found = []
    for inputs in batches:
        with captured(anatomy) as captures:
            anatomy.model(**inputs)
        found.append(torch.stack([pooled(h.float(), inputs["attention_mask"]) for h in captures.hidden], 1))
    return torch.cat(found)


@torch.no_grad()
def calibrate(anatomy: Anatomy, router: Router, batches: Sequence[Inputs]) -> dict[float, float]:
    """Find the budget inputs with which the mean share of MACs equals each budget of the grid; store them.

    The router's own MACs are part of the share.

    Returns the share that ran for each budget input of `GRID` before calibration. Cost: one gated run of the
    batches for each point of the grid.
    """
    cost = CostModel.of(anatomy)
    measured = []
    for point in GRID:
        total, count = 0.0, 0
        for inputs in batches:
            keep = torch.full((len(inputs["input_ids"]),), point, device=anatomy.device)
            with routed(anatomy, router, inputs, keep) as run:
                anatomy.model(**inputs)
            real = lengths(inputs)
            own = torch.tensor([router.macs(cost, int(n)) for n in real]) / cost.dense(real).cpu()
            total += float(run.shares(cost, inputs).sum()) + float(own.sum())
            count += len(keep)
        measured.append(total / count)
    rising = torch.tensor(measured).cummax(0).values + torch.arange(len(GRID)) * 1e-6
    for index, wanted in enumerate(GRID):
        router.asked[index] = _interpolate(wanted, rising.tolist(), GRID)
    return dict(zip(GRID, measured, strict=True))


def _interpolate(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """Linear between points, and along the last segment beyond them."""
    right = next((i for i, known in enumerate(xs) if known >= x), len(xs) - 1)
    right = max(1, right)
    slope = (ys[right] - ys[right - 1]) / max(1e-9, xs[right] - xs[right - 1])
    return min(1.5, max(-0.5, ys[right] + slope * (x - xs[right])))


def _task_loss(task: Task, logits: Tensor, labels: list[int | float]) -> Tensor:
    target = torch.tensor(labels, device=logits.device)
    if task.is_regression:
        return 0.5 * functional.mse_loss(logits.squeeze(-1), target.float())
    return functional.cross_entropy(logits, target)


def _draw_batches(sources: Sequence[Source], config: RouterConfig) -> Iterator[tuple[Source, list[int]]]:
    """Batches of like length, each from a source drawn by weight, without end."""
    streams = [_endless([len(item.ids) for item in source.encoded], config) for source in sources]
    weights = [source.weight for source in sources]
    drawn = random.Random(config.seed)
    while True:
        index = drawn.choices(range(len(sources)), weights)[0]
        yield sources[index], next(streams[index])


def _endless(lengths: Sequence[int], config: RouterConfig) -> Iterator[list[int]]:
    for epoch in itertools.count():
        yield from bucketed_batches(lengths, config.batch_size, config.seed, epoch)


def _is_in(parameter: Tensor, group: list[torch.nn.Parameter]) -> bool:
    return any(parameter is other for other in group)
