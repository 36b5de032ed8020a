"""Classifier: the model side of the lab. Texts are read, scored, planned, cut and run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, overload

import torch
from torch import Tensor

from dsgp_lab.anatomy import Anatomy, Inputs
from dsgp_lab.batching import collate, encode
from dsgp_lab.cascade import Cascade
from dsgp_lab.cost import CostModel
from dsgp_lab.cost_table import CostTable
from dsgp_lab.devices import check_device, check_dtype
from dsgp_lab.errors import LabError
from dsgp_lab.latency_budget import LatencyBudget
from dsgp_lab.models import TaskModel
from dsgp_lab.plan import Scope
from dsgp_lab.pretrained import positions
from dsgp_lab.pruner import DynamicPruner
from dsgp_lab.regimes import SHARING, Regime, load_model, load_router, router_beside
from dsgp_lab.results import Prediction, PrunedRun, Text
from dsgp_lab.router import Router
from dsgp_lab.sensitivity import Constant, Flap, Scorer, Sensitivity, make_scorer
from dsgp_lab.settled import Settled
from dsgp_lab.subnetwork import SubNetwork
from dsgp_lab.tasks import SHARED, TASKS, Examples, load_teaching

BATCH = 32
"""Texts that are run together where many are given."""

KEEP = 0.6
"""The budget unless another is given."""

CALIBRATION = 128
"""Teaching examples that static scores are averaged over, unless others are given."""


class Classifier:
    """A classifier that is scored, pruned and run, text by text: the model side of a `Lab`."""

    def __init__(
        self,
        task: str | TaskModel = "sst2",
        block_size: int | None = None,
        regime: Regime | None = None,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype = torch.float32,
    ) -> None:
        device, dtype = check_device(device), check_dtype(dtype)
        if task == SHARED:
            if regime not in (None, *SHARING):
                raise LabError(
                    got=f"Lab({SHARED!r}, regime={regime!r})",
                    allowed=f"{SHARED!r} without a regime or with {' or '.join(SHARING)}",
                    hint=f'write Lab("sst2", regime={regime!r})',
                )
            task, regime = "sst2", regime or "shared"
        self.regime: Regime = regime or "frozen"
        source = task if isinstance(task, TaskModel) else load_model(task, self.regime)
        self._folder = source.folder if isinstance(task, TaskModel) else None
        self.task = TASKS.get(source.name) if source.card is not None else None
        self.name, self.card, self.labels = source.name, source.card, source.labels
        self.model, self.tokenizer = source.model.to(device=device, dtype=dtype), source.tokenizer
        self.anatomy = Anatomy.of(self.model, block_size, source.neuron_order)
        self.cost = CostModel.of(self.anatomy)
        self.subnetwork = SubNetwork(self.anatomy)
        self._tables: dict[int, CostTable | None] = {}
        self.max_tokens = positions(self.model, self.tokenizer)

    def __repr__(self) -> str:
        """Model, task and units."""
        a = self.anatomy
        regime = "" if self.regime == "frozen" else f", regime={self.regime!r}"
        return (
            f"{type(self).__name__}({self.name!r}{regime}): {a.family.name}, {a.num_layers} layers"
            f" x ({a.num_heads} heads + {a.num_blocks} blocks of {a.block_size} neurons),"
            f" labels: {', '.join(self.labels) or 'none'}"
        )

    def encode(self, texts: Sequence[Text]) -> Inputs:
        """Texts (or pairs) as a padded batch of model inputs [batch, tokens], cut to the model's length."""
        if isinstance(texts, str) or not isinstance(texts, Iterable):
            raise LabError(
                got=f"{type(texts).__name__} {texts!r:.60}", allowed="a list of texts", hint="pass [text]"
            )
        pieces = [self._checked(text) for text in texts]
        if not pieces:
            raise LabError(got="no text", allowed="at least one text", hint="pass [text]")
        if len({len(piece) for piece in pieces}) > 1:
            raise LabError(
                got="single texts and pairs in one batch",
                allowed="one kind",
                hint="pass them in two calls",
            )
        encoded = encode(self.tokenizer, pieces, self.max_tokens)
        return collate(encoded, self.tokenizer.pad_token_id, self.anatomy.device)

    def tokens(self, text: Text) -> tuple[str, ...]:
        """The tokens the model sees for a text, special ones included."""
        ids = self.encode([text])["input_ids"][0].tolist()
        return tuple(self.tokenizer.convert_ids_to_tokens(ids))

    def predict(self, text: Text) -> Prediction:
        """The dense model's prediction."""
        return self.prediction(self.subnetwork.dense(self.encode([text]))[0])

    def sensitivity(
        self, text: Text | Sequence[Text], scorer: str | Scorer | Router = "first_order"
    ) -> Sensitivity:
        """How much each head and neuron block matters for a text, or for each of a list of texts."""
        texts = [text] if isinstance(text, str | tuple) else text
        made = self.scorer(scorer)
        if isinstance(made, Router | Settled):
            raise LabError(
                got=f"{f'scorer={scorer!r}' if isinstance(scorer, str) else 'a router'} without a budget",
                allowed="a router decides as the model runs, for a budget",
                hint="use lab.prune(text, keep=0.5, scorer=...).sensitivity",
            )
        return made(self.anatomy, self.encode(texts))

    def prune(
        self,
        text: Text,
        keep: float | None = None,
        scorer: str | Scorer | Router | Settled = "first_order",
        scope: Scope = "global",
        floor: int = 0,
        at_most: str | None = None,
    ) -> PrunedRun:
        """Score, plan, cut and run one text within a share `keep` of the encoder's MACs (see `plan_mask`).

        `keep` is 0.6 unless given, of a settled router (`settled`) what it was settled for. `at_most` is a
        budget in time instead, "4 ms" or "0.6 of dense"; it needs `dsgp-lab calibrate`.
        """
        inputs = self.encode([text])
        made = self.scorer(scorer)
        if keep is None:
            keep = made.keep if isinstance(made, Settled) else KEEP
        budget = keep if at_most is None else LatencyBudget.parse(at_most, self.cost_table())
        pruner = DynamicPruner(self.subnetwork, made, budget, scope, floor)
        batch = pruner(inputs)
        table = self._cost_table_or_none()
        return PrunedRun(
            text=text,
            tokens=tuple(self.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0].tolist())),
            keep=pruner.keep,
            prediction=self.prediction(batch.logits[0]),
            dense=self.prediction(batch.dense_logits[0]),
            sensitivity=batch.sensitivity,
            mask=batch.mask,
            macs=batch.macs[0],
            timings=batch.timings,
            notices=self.notices(text, inputs),
            predicted_ms=None if table is None else table.predict(batch.mask, inputs["input_ids"].shape[1]),
        )

    def cost_table(self) -> CostTable:
        """Measured costs of the machine at hand, for torch's threads; LabError says how to get them."""
        return CostTable.load(self.subnetwork)

    def _cost_table_or_none(self) -> CostTable | None:
        threads = torch.get_num_threads()
        if threads not in self._tables:
            try:
                self._tables[threads] = self.cost_table()
            except LabError:
                self._tables[threads] = None
        return self._tables[threads]

    @overload
    def scorer(self, scorer: str | Scorer | Router) -> Scorer | Router: ...

    @overload
    def scorer(self, scorer: str | Scorer | Router | Settled) -> Scorer | Router | Settled: ...

    def scorer(self, scorer: str | Scorer | Router | Settled) -> Scorer | Router | Settled:
        """A scorer by name; "flap" and "constant" are calibrated on the task's teaching set first.

        "router" is the trained router of the lab's task and regime, "twin" its static twin; of a checkpoint
        folder of one's own, the one beside its weights. LabError where none was trained for this model.
        """
        if isinstance(scorer, Router | Settled):
            return scorer
        if scorer in ("router", "twin"):
            if self.task is None:
                raise LabError(
                    got=f"scorer={scorer!r} for {self.name!r}, which is no embedded task",
                    allowed="a Router trained for this model",
                    hint="pass the Router itself",
                )
            router = self._trained(self.task.name, twin=scorer == "twin")
            router.check_fits(self.anatomy)
            return router
        if scorer == "constant":
            return self.calibrate("first_order")
        if scorer == "flap":
            return Flap.fit(self.anatomy, [inputs for inputs, _ in self._calibration(None)])
        return make_scorer(scorer)

    def _trained(self, task: str, twin: bool) -> Router:
        if self._folder is None:
            return load_router(task, self.regime, twin)
        return router_beside(self._folder, task, twin)

    def calibrate(self, scorer: str | Scorer, examples: Examples | None = None) -> Constant:
        """The static scores of a method: its mean over examples (default: the task's teaching set)."""
        return Constant.fit(self.anatomy, make_scorer(scorer), self._calibration(examples))

    def cascade(self, keep: float = 0.35, examples: Examples | None = None) -> Cascade:
        """The static twin's small mask first, unsure inputs again in a larger one (see `Cascade`).

        `examples` are what the threshold is chosen on (default: the task's teaching set); no labels are used.
        """
        twin = self.scorer("twin")
        if not isinstance(twin, Router):
            raise AssertionError("a twin is a router")
        return Cascade.fit(self.subnetwork, twin, [each for each, _ in self._calibration(examples)], keep)

    def settled(
        self, keep: float = 0.35, examples: Examples | None = None, head_price: float = 0.0
    ) -> Settled:
        """The router settled on texts: the budget holds on them, fewer layers are asked (see `Settled`).

        `examples` as for `cascade`; with a `head_price`, say `settled.HEAD_PRICE`, fewer heads run and more
        blocks: less time at equal MACs, and on some tasks less accuracy.
        """
        router = self.scorer("router")
        if not isinstance(router, Router):
            raise AssertionError("the trained router is a router")
        texts = [each for each, _ in self._calibration(examples)]
        return Settled.fit(self.subnetwork, router, texts, keep, head_price=head_price)

    def _calibration(self, examples: Examples | None) -> list[tuple[Inputs, Tensor | None]]:
        if examples is None:
            if self.task is None:
                raise LabError(
                    got=f"no calibration examples for {self.name!r}, which is no embedded task",
                    allowed="Examples of the model's own task",
                    hint="call lab.calibrate(scorer, examples) and pass its result as the scorer",
                )
            examples = load_teaching(self.task.name)
            examples = examples.sample(min(CALIBRATION, len(examples)))
        batches: list[tuple[Inputs, Tensor | None]] = []
        for start in range(0, len(examples), BATCH):
            texts = [t[0] if len(t) == 1 else (t[0], t[1]) for t in examples.texts[start : start + BATCH]]
            labels = torch.tensor(examples.labels[start : start + BATCH], device=self.anatomy.device)
            batches.append((self.encode(texts), labels))
        return batches

    def prediction(self, logits: Tensor) -> Prediction:
        """What logits [labels] of one input mean: a class, a set of labels, or a number."""
        return Prediction.of(logits.float().cpu(), self.labels, self.anatomy.is_multi_label)

    def _checked(self, text: Any) -> tuple[str, ...]:
        """The text's columns, or a LabError for anything a model of this task cannot read."""
        pair = self.task.is_pair if self.task is not None else None
        wanted = {True: "a pair (first, second)", False: "one text", None: "a text, or a pair of texts"}[pair]
        columns = (text,) if isinstance(text, str) else text
        if not isinstance(columns, tuple | list) or not all(isinstance(c, str) for c in columns):
            raise LabError(
                got=f"{type(text).__name__} {text!r:.60}", allowed=wanted, hint="pass text in quotes"
            )
        if len(columns) not in (1, 2) or (pair is not None and len(columns) != 1 + pair):
            count = (
                "a pair" if len(columns) == 2 else f"{len(columns)} text{'s' if len(columns) != 1 else ''}"
            )
            columns_of = f" ({', '.join(self.task.columns)})" if self.task else ""
            raise LabError(
                got=f"{count} for {self.name!r}",
                allowed=f"{wanted}{columns_of}",
                hint='pass ("first text", "second text")' if pair else "pass a single string",
            )
        if any(not column.strip() for column in columns):
            raise LabError(got="an empty text", allowed=wanted, hint="write at least one word")
        return tuple(columns)

    def notices(self, text: Text, inputs: Inputs) -> tuple[str, ...]:
        """What the user should know about how the text was read."""
        notices = []
        full = len(encode(self.tokenizer, [self._checked(text)], 10**9)[0].ids)
        if full > self.max_tokens:
            notices.append(
                f"The text has {full} tokens; the model reads {self.max_tokens}, the rest was cut off."
            )
        ids = inputs["input_ids"][0]
        unknown = (
            int((ids == self.tokenizer.unk_token_id).sum()) if self.tokenizer.unk_token_id is not None else 0
        )
        if unknown:
            notices.append(
                f"{unknown} of {len(ids)} tokens are unknown to the model, which read only the rest."
            )
        if set(ids.tolist()) <= set(self.tokenizer.all_special_ids) and not unknown:
            notices.append("The model reads none of these characters.")
        return tuple(notices)
