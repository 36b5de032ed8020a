"""The training loop: one model, one split, resumable at any step."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dsgp_lab.batching import bucketed_batches, collate, encode
from dsgp_lab.evaluate.dense import predict_logits, to_predictions
from dsgp_lab.tasks import Examples, Task, metrics
from dsgp_lab.training.config import FinetuneConfig, computes_in_bf16, learning_rate_at
from dsgp_lab.training.distillation import Lesson, distillation
from dsgp_lab.training.snapshot import load_snapshot, save_snapshot
from dsgp_lab.whole_files import make_folder, refusals

SNAPSHOT = "snapshot.pt"
LOG = "train.log.jsonl"
LOG_EVERY = 50  # steps


def train(
    config: FinetuneConfig,
    model: Any,
    tokenizer: Any,
    examples: Examples,
    held_out: Examples,
    out: Path,
    *,
    save_every: float = 60.0,
    lesson: Lesson | None = None,
    stop_at: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any] | None:
    """Train the parameters of ``model`` that require gradients; leave the best state in it.

    A snapshot in ``out`` every ``save_every`` seconds; called again with the same settings, the run goes on
    from it and ends as an uninterrupted one would. With a ``lesson``, its texts are trained on as well, and
    its logits are the target. ``stop_at`` ends the call after that many steps, to be continued.

    Returns:
        {"step", "epoch", "metrics"} of the state that was kept, or None if the call stopped before the end.
    """
    run = _Run(config, model, tokenizer, examples, held_out, out, lesson, say)
    saved = time.monotonic()
    while run.step < run.total:
        run.advance()
        if stop_at is not None and run.step >= stop_at and run.step < run.total:
            run.save()
            return None
        if time.monotonic() - saved >= save_every:
            run.save()
            saved = time.monotonic()
    run.save()
    return run.finish()


class _Run:
    """State of a run between steps."""

    def __init__(
        self,
        config: FinetuneConfig,
        model: Any,
        tokenizer: Any,
        examples: Examples,
        held_out: Examples,
        out: Path,
        lesson: Lesson | None,
        say: Callable[[str], None],
    ) -> None:
        self.config, self.model, self.tokenizer = config, model, tokenizer
        self.labels, self.held_out, self.out, self.say = examples.labels, held_out, out, say
        self.lesson = lesson
        self.record = config.record()
        if lesson is not None:  # a run does not go on with another teacher than it began with
            said = repr(lesson.more).encode() + lesson.targets.numpy().tobytes()
            self.record["what the teachers said"] = hashlib.sha256(said).hexdigest()
        self.task: Task = examples.task
        self.device = next(model.parameters()).device
        self.bf16 = computes_in_bf16(config.precision, self.device)
        texts = examples.texts + (lesson.more if lesson is not None else ())
        self.encoded = encode(tokenizer, texts, config.max_length)
        self.lengths = [len(item.ids) for item in self.encoded]
        self.trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.optimizer = _optimizer(self.trainable, config)
        self.batches = bucketed_batches(self.lengths, config.batch_size, config.seed, 0)
        self.per_epoch = len(self.batches)
        self.total = self.per_epoch * config.epochs
        self.evaluate_at = {
            round(self.per_epoch * (i + 1) / config.evaluations) + self.per_epoch * epoch
            for epoch in range(config.epochs)
            for i in range(config.evaluations)
        }
        self.step = 0
        self.epoch = 0
        self.best: dict[str, Any] | None = None
        self.averaged = self._weights()
        self.losses: list[Tensor] = []
        self.clock, self.tokens = time.monotonic(), 0
        make_folder(out)
        torch.manual_seed(config.seed)
        self._resume()

    def _resume(self) -> None:
        state = load_snapshot(self.out / SNAPSHOT, self.record)
        if state is None:
            return
        self.step, self.best = state["step"], state["best"]
        self.losses = [torch.tensor(loss) for loss in state["losses"]]
        self._load_weights(state["weights"])
        self.averaged = {name: value.to(self.device) for name, value in state["averaged"].items()}
        self.optimizer.load_state_dict(state["optimizer"])
        self._log({"event": "resumed", "step": self.step})

    def save(self) -> None:
        state = {
            "config": self.record,
            "step": self.step,
            "best": self.best,
            "losses": [float(loss) for loss in self.losses],
            "weights": self._weights(),
            "averaged": self.averaged,
            "optimizer": self.optimizer.state_dict(),
        }
        save_snapshot(self.out / SNAPSHOT, state)

    def advance(self) -> None:
        """One optimizer step, and what is due after it."""
        epoch, position = divmod(self.step, self.per_epoch)
        if epoch != self.epoch:
            self.epoch = epoch
            self.batches = bucketed_batches(self.lengths, self.config.batch_size, self.config.seed, epoch)
        chosen = self.batches[position]
        rate = learning_rate_at(self.step, self.total, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        batch = collate([self.encoded[i] for i in chosen], self.tokenizer.pad_token_id, self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            logits = self.model(**batch).logits
        loss = self._loss(logits.float(), chosen)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trainable.values(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._update_average()
        self.losses.append(loss.detach())  # not read yet: a GPU would be waited for
        self.tokens += sum(self.lengths[i] for i in chosen)
        if self.step % LOG_EVERY == 0 or self.step == self.total:
            self._log_progress(rate)
        if self.step in self.evaluate_at or self.step == self.total:
            self._evaluate()

    def _loss(self, logits: Tensor, chosen: list[int]) -> Tensor:
        """The task's loss of a batch [batch, labels], the distance from the teachers' logits, or both."""
        labelled = [k for k, i in enumerate(chosen) if i < len(self.labels)]
        labels = [self.labels[chosen[k]] for k in labelled]
        if self.lesson is None:
            return task_loss(self.task, logits, labels, self.config)
        share = self.config.teacher_weight
        target = self.lesson.targets[chosen].to(logits.device)
        whole = 2.0 if self.task.is_regression else 1.0  # the task's loss is the whole squared error
        loss = whole * share * distillation(logits, target, self.config.temperature)
        if share < 1 and labelled:
            own = task_loss(self.task, logits[labelled], labels, self.config)
            loss = loss + (1 - share) * own * (len(labelled) / len(chosen))
        return loss

    def finish(self) -> dict[str, Any] | None:
        if self.best is None:
            return None
        self._load_weights(self.best["weights"])
        self.model.eval()
        return {name: self.best[name] for name in ("step", "epoch", "metrics")}

    def _update_average(self) -> None:
        """Move the average towards the weights; at first faster, so that the start is soon forgotten."""
        decay = min(self.config.average, self.step / (self.step + 10))
        with torch.no_grad():
            for name, parameter in self.trainable.items():
                self.averaged[name].lerp_(parameter, 1 - decay)

    def _evaluate(self) -> None:
        """Judge the averaged weights on the held-out part and keep them if they are the best so far."""
        trained = self._weights()
        self._load_weights(self.averaged)
        found: dict[str, float] = {}
        loss: float | None = None
        if len(self.held_out):
            logits = predict_logits(
                self.model, self.tokenizer, self.held_out, max_length=self.config.max_length
            )
            found = metrics(self.task, to_predictions(self.task, logits), self.held_out.labels)
            loss = float(task_loss(self.task, logits, list(self.held_out.labels), self.config))
        headline = self.task.metrics[0]
        epoch = round(self.step / self.per_epoch, 2)
        if self.best is None or not found or found[headline] > self.best["metrics"][headline]:
            self.best = {"step": self.step, "epoch": epoch, "metrics": found, "weights": self._weights()}
        self._load_weights(trained)
        self._log({"event": "held-out", "step": self.step, "epoch": epoch, "loss": loss, **found})

    def _log_progress(self, rate: float) -> None:
        seconds = time.monotonic() - self.clock
        row = {
            "event": "train",
            "step": self.step,
            "of": self.total,
            "epoch": round(self.step / self.per_epoch, 3),
            "loss": round(sum(float(loss) for loss in self.losses) / len(self.losses), 5),
            "learning_rate": rate,
            "tokens_per_second": round(self.tokens / seconds),
        }
        self.losses, self.clock, self.tokens = [], time.monotonic(), 0
        self._log(row)

    def _log(self, row: dict[str, Any]) -> None:
        line = json.dumps(row | {"time": round(time.time(), 1)})
        with refusals(self.out / LOG), (self.out / LOG).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        self.say(line)

    def _weights(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.trainable.items()}

    def _load_weights(self, weights: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.trainable.items():
                parameter.copy_(weights[name])


def task_loss(task: Task, logits: Tensor, labels: list[int | float], config: FinetuneConfig) -> Tensor:
    """Cross-entropy, or squared error for regression, of logits [batch, labels]."""
    if task.is_regression:
        return functional.mse_loss(logits.squeeze(-1), torch.tensor(labels, device=logits.device))
    target = torch.tensor(labels, device=logits.device)
    return functional.cross_entropy(logits, target, label_smoothing=config.label_smoothing)


def _optimizer(trainable: dict[str, torch.nn.Parameter], config: FinetuneConfig) -> torch.optim.Optimizer:
    matrices = [p for p in trainable.values() if p.ndim > 1]
    vectors = [p for p in trainable.values() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
