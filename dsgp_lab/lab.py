"""Lab: the two-line way in.

lab = Lab("sst2")
lab.prune("a warm, funny film", keep=0.6)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dsgp_lab.anatomy import Anatomy, Inputs
from dsgp_lab.batching import collate, encode
from dsgp_lab.calibration import CostTable
from dsgp_lab.cost import CostModel
from dsgp_lab.devices import check_device, check_dtype
from dsgp_lab.errors import LabError
from dsgp_lab.latency_budget import LatencyBudget
from dsgp_lab.mask import Mask
from dsgp_lab.models import TaskModel, load_pretrained
from dsgp_lab.plan import Scope, check_keep
from dsgp_lab.pruner import DynamicPruner
from dsgp_lab.regimes import Regime, load_model, load_router
from dsgp_lab.results import Comparison, Prediction, PrunedRun, Text
from dsgp_lab.router import Router
from dsgp_lab.sensitivity import Constant, Flap, Scorer, Sensitivity, lengths, make_scorer
from dsgp_lab.subnetwork import SubNetwork
from dsgp_lab.tasks import SHARED, TASKS, Examples, load_teaching

if TYPE_CHECKING:
    from dsgp_lab.gallery import Gallery
    from dsgp_lab.panels import Explorer
    from dsgp_lab.panels.compare_panel import ComparePanel
    from dsgp_lab.panels.sweep_panel import SweepPanel
    from dsgp_lab.snapshot import Snapshot
    from dsgp_lab.views import View

BATCH = 32
"""Texts that are run together where many are given."""

CALIBRATION = 128
"""Teaching examples that static scores are averaged over, unless others are given."""


class Lab:
    """One classifier, ready to be scored, pruned and compared, text by text.

    `Lab("sst2")` takes the embedded model of a task and works offline. `Lab("sst2", regime="joint")` is the
    model trained for pruning together with its router, `Lab("glue")` the one encoder for all tasks
    (`lab.on("rte")` changes the task), `Lab.from_pretrained` any supported classifier. `lab.model` and
    `lab.tokenizer` are the Hugging Face objects, `lab.anatomy` has the units, `lab.labels` the class names
    (none for regression).
    """

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
            task, regime = "sst2", "shared"
        self.regime: Regime = regime or "frozen"
        source = task if isinstance(task, TaskModel) else load_model(task, self.regime)
        self.task = TASKS.get(source.name) if source.card is not None else None
        self.name, self.card, self.labels = source.name, source.card, source.labels
        self.model, self.tokenizer = source.model.to(device=device, dtype=dtype), source.tokenizer
        self.anatomy = Anatomy.of(self.model, block_size, source.neuron_order)
        self.cost = CostModel.of(self.anatomy)
        self.subnetwork = SubNetwork(self.anatomy)
        self._tables: dict[int, CostTable | None] = {}
        self.max_tokens = _max_tokens(self.model, self.tokenizer)

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | Path,
        *,
        trust_remote_code: bool = False,
        block_size: int | None = None,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype = torch.float32,
    ) -> Lab:
        """A lab on your own checkpoint folder or a hub id; the tokenizer is found with it.

        Single-label, multi-label and regression models are told apart by their configuration.
        """
        source = load_pretrained(path_or_id, trust_remote_code=trust_remote_code)
        return cls(source, block_size, device=device, dtype=dtype)

    @staticmethod
    def restore(path: str | Path) -> Snapshot:
        """What the explorer exported (.json or .html): the same scores and mask; `.explore()` opens it."""
        from dsgp_lab.snapshot import Snapshot

        return Snapshot.load(path)

    def on(self, task: str) -> Lab:
        """The lab of another task in the same regime."""
        return Lab(task, regime=self.regime)

    def __repr__(self) -> str:
        """Model, task and units."""
        a = self.anatomy
        regime = "" if self.regime == "frozen" else f", regime={self.regime!r}"
        return (
            f"Lab({self.name!r}{regime}): {a.family.name}, {a.num_layers} layers x ({a.num_heads} heads +"
            f" {a.num_blocks} blocks of {a.block_size} neurons), labels: {', '.join(self.labels) or 'none'}"
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
        return self._prediction(self.subnetwork.dense(self.encode([text]))[0])

    def sensitivity(
        self, text: Text | Sequence[Text], scorer: str | Scorer | Router = "first_order"
    ) -> Sensitivity:
        """How much each head and neuron block matters for a text, or for each of a list of texts."""
        texts = [text] if isinstance(text, str | tuple) else text
        made = self.scorer(scorer)
        if isinstance(made, Router):
            raise LabError(
                got=f"scorer={scorer!r} without a budget",
                allowed="a router decides as the model runs, for a budget",
                hint="use lab.prune(text, keep=0.5, scorer=...).sensitivity",
            )
        return made(self.anatomy, self.encode(texts))

    def prune(
        self,
        text: Text,
        keep: float = 0.6,
        scorer: str | Scorer | Router = "first_order",
        scope: Scope = "global",
        floor: int = 0,
        at_most: str | None = None,
    ) -> PrunedRun:
        """Score, plan, cut and run one text within a share `keep` of the encoder's MACs (see `plan_mask`).

        `at_most` is a budget in time instead, "4 ms" or "0.6 of dense"; it needs `dsgp-lab calibrate`.
        """
        inputs = self.encode([text])
        budget = keep if at_most is None else LatencyBudget.parse(at_most, self.cost_table())
        pruner = DynamicPruner(self.subnetwork, self.scorer(scorer), budget, scope, floor)
        batch = pruner(inputs)
        table = self._cost_table_or_none()
        return PrunedRun(
            text=text,
            tokens=tuple(self.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0].tolist())),
            keep=pruner.keep,
            prediction=self._prediction(batch.logits[0]),
            dense=self._prediction(batch.dense_logits[0]),
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

    def heatmap(
        self,
        text: Text,
        scorer: str | Scorer | Router = "first_order",
        keep: float | None = None,
        title: str = "",
    ) -> View:
        """The scores of a text as a heat map; with `keep`, pruned units are crossed out."""
        from dsgp_lab.views import sensitivity_heatmap

        if keep is None:
            scores = self.sensitivity([text], scorer)
            heads, blocks = None, None
        else:
            run = self.prune(text, keep, scorer)
            scores, heads, blocks = run.sensitivity, run.mask.heads[0], run.mask.blocks[0]
        words = text if isinstance(text, str) else " / ".join(text)
        return sensitivity_heatmap(
            scores.heads[0],
            scores.blocks[0],
            mask_heads=heads,
            mask_blocks=blocks,
            title=title or words,
            signed=bool((scores.heads < 0).any() or (scores.blocks < 0).any()),
        )

    def compare(
        self, a: Text, b: Text, keep: float = 0.6, scorer: str | Scorer | Router = "first_order"
    ) -> Comparison:
        """Two texts under one budget, and each of them under the other's mask."""
        from scipy.stats import spearmanr

        made = self.scorer(scorer)
        first, second = self.prune(a, keep, made), self.prune(b, keep, made)
        scores = [run.sensitivity.flat()[0].tolist() for run in (first, second)]

        def under(text: Text, run: PrunedRun) -> Prediction:
            logits = self.subnetwork(self.encode([text]), run.mask).logits
            return self._prediction(logits[0])

        return Comparison(
            a=first,
            b=second,
            overlap=float(first.mask.overlap(second.mask)[0]),
            rank_correlation=float(spearmanr(*scores).statistic),
            swapped_a=under(a, second),
            swapped_b=under(b, first),
        )

    def compare_panel(self, a: Text, b: Text, keep: float = 0.6, scorer: str = "first_order") -> ComparePanel:
        """`compare`, live: both texts can be changed, the budget dragged, the masks swapped."""
        from dsgp_lab.panels.compare_panel import ComparePanel, Question

        return ComparePanel(self, Question(a, b, check_keep(keep), scorer))

    def curve(self, keep: float | None = None, folder: str | Path | None = None) -> View:
        """The committed results of the lab's task and regime: loss over operations, a line a method.

        `keep` marks a budget. `folder` holds other results than the project's own (`dsgp-lab results`).

        Raises:
            LabError: no results, or none of this task and regime.
        """
        from dsgp_lab.evaluate.results_curve import results_curve
        from dsgp_lab.evaluate.results_table import Results

        rows = Results.load(folder).rows
        return results_curve(rows, self.name, self.regime, None if keep is None else check_keep(keep))

    def sweep_panel(self, folder: str | Path | None = None) -> SweepPanel:
        """A sweep of this task with a progress bar: methods x budgets, the curve growing as results come in.

        Results go to `folder`, from which a later sweep goes on; by default to one that ends with the panel.
        """
        from dsgp_lab.panels.sweep_panel import SweepPanel

        return SweepPanel(self, folder)

    def gallery(
        self,
        texts: Sequence[Text],
        keep: float = 0.5,
        scorer: str | Scorer | Router = "first_order",
        tags: Sequence[str] = (),
    ) -> Gallery:
        """The masks of many texts under one budget: which units all of them run, none, or some.

        `tags` says what each text is about, for `gallery.view("tag")`.
        """
        from dsgp_lab.gallery import MOST, Gallery

        texts, tags = list(texts), tuple(tags)
        if not 2 <= len(texts) <= MOST or len(tags) not in (0, len(texts)):
            raise LabError(
                got=f"{len(texts)} texts and {len(tags)} tags",
                allowed=f"2 to {MOST} texts, and a tag for each or none at all",
                hint="take a sample, for example load_teaching('sst2').sample(60)",
            )
        pruner = DynamicPruner(self.subnetwork, self.scorer(scorer), keep)
        masks, logits, counts = [], [], []
        for start in range(0, len(texts), BATCH):
            inputs = self.encode(texts[start : start + BATCH])
            batch = pruner(inputs)
            masks.append(batch.mask)
            logits += list(batch.dense_logits)
            counts += lengths(inputs).tolist()
        labels = tuple(Prediction.of(row, self.labels).label for row in logits)
        name = scorer if isinstance(scorer, str) else type(scorer).__name__
        return Gallery(tuple(texts), Mask.stack(masks), tuple(counts), labels, keep, name, tags)

    def explore(self, text: Text, keep: float = 0.6, scorer: str = "first_order") -> Explorer:
        """The live panel of a text: sliders, masks, prediction, operations and measured time.

        Make it the last line of a cell. Needs Jupyter with ipywidgets and anywidget.
        """
        from dsgp_lab.exploration import Choice
        from dsgp_lab.panels import Explorer

        check_keep(keep)
        return Explorer(self, Choice(text, self.name, self.regime, scorer, keep))

    def scorer(self, scorer: str | Scorer | Router) -> Scorer | Router:
        """A scorer by name; "flap" and "constant" are calibrated on the task's teaching set first.

        "router" is the trained router of the lab's task and regime, "twin" its static twin.
        """
        if isinstance(scorer, Router):
            return scorer
        if scorer in ("router", "twin"):
            if self.task is None:
                raise LabError(
                    got=f"scorer={scorer!r} for {self.name!r}, which is no embedded task",
                    allowed="a Router trained for this model",
                    hint="pass the Router itself",
                )
            return load_router(self.task.name, self.regime, twin=scorer == "twin")
        if scorer == "constant":
            return self.calibrate("first_order")
        if scorer == "flap":
            return Flap.fit(self.anatomy, [inputs for inputs, _ in self._calibration(None)])
        return make_scorer(scorer)

    def calibrate(self, scorer: str | Scorer, examples: Examples | None = None) -> Constant:
        """The static scores of a method: its mean over examples (default: the task's teaching set)."""
        return Constant.fit(self.anatomy, make_scorer(scorer), self._calibration(examples))

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

    def _prediction(self, logits: Tensor) -> Prediction:
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


def _max_tokens(model: Any, tokenizer: Any) -> int:
    """Positions the model has, or the tokenizer's limit where that is smaller."""
    config = model.config
    positions = int(config.max_position_embeddings)
    if config.model_type == "roberta":  # its positions start after the padding id
        positions -= int(config.pad_token_id) + 1
    return min(positions, int(tokenizer.model_max_length))
