"""Lab: the two-line way in.

lab = Lab("sst2")
lab.prune("a warm, funny film", keep=0.6)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dsgp_lab.classifier import BATCH, Classifier
from dsgp_lab.errors import LabError
from dsgp_lab.mask import Mask
from dsgp_lab.plan import check_keep
from dsgp_lab.pretrained import load_pretrained
from dsgp_lab.pruner import DynamicPruner
from dsgp_lab.results import Comparison, Prediction, PrunedRun, Text
from dsgp_lab.router import Router
from dsgp_lab.sensitivity import Scorer, lengths

if TYPE_CHECKING:
    from dsgp_lab.gallery import Gallery
    from dsgp_lab.panels import Explorer
    from dsgp_lab.panels.compare_panel import ComparePanel
    from dsgp_lab.panels.sweep_panel import SweepPanel
    from dsgp_lab.snapshot import Snapshot
    from dsgp_lab.views import View


class Lab(Classifier):
    """One classifier, ready to be scored, pruned and compared, text by text.

    `Lab("sst2")` takes the embedded model of a task and works offline. `Lab("sst2", regime="joint")` is the
    model trained for pruning together with its router, `Lab("glue")` the one encoder for all tasks
    (`lab.on("rte")` changes the task), `Lab.from_pretrained` any supported classifier. `lab.model` and
    `lab.tokenizer` are the Hugging Face objects, `lab.anatomy` has the units, `lab.labels` the class names
    (none for regression).
    """

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
        """The lab of another task in the same regime, with units, device and numbers as here."""
        place = {"device": self.anatomy.device, "dtype": self.model.dtype}
        return Lab(task, self.anatomy.block_size, self.regime, **place)

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
            return self.prediction(logits[0])

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

    def curve(
        self, keep: float | None = None, folder: str | Path | None = None, measure: bool = False
    ) -> View:
        """The committed results of the lab's task and regime: loss over operations, a line a method.

        `keep` marks a budget. `folder` holds other results than the project's own (`dsgp-lab results`).
        With `measure`, this machine measures instead (under a minute, on the teaching set): the same model
        without its upper layers beside a static mask, points on the left and time on the right. Committed
        results have neither.

        Raises:
            LabError: no results, or none of this task and regime; with `measure`, no teaching set.
        """
        mark = None if keep is None else check_keep(keep)
        if measure:
            from dsgp_lab.evaluate.measured_curve import measured_curve

            return measured_curve(self).view(mark=mark)
        from dsgp_lab.evaluate.results_curve import results_curve
        from dsgp_lab.evaluate.results_table import Results

        return results_curve(Results.load(folder).rows, self.name, self.regime, mark)

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

        `tags` says what each text is about, for `gallery.view("tag")`. Raises LabError for fewer than two
        texts, too many, or tags that do not go with them.
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
        labels = tuple(self.prediction(row).label for row in logits)
        name = scorer if isinstance(scorer, str) else type(scorer).__name__
        return Gallery(tuple(texts), Mask.stack(masks), tuple(counts), labels, keep, name, tags)

    def explore(self, text: Text, keep: float = 0.6, scorer: str = "first_order") -> Explorer:
        """The live panel of a text: sliders, masks, prediction, operations and measured time.

        Make it the last line of a cell. Needs Jupyter with ipywidgets and anywidget.
        """
        from dsgp_lab.exploration_results import Choice
        from dsgp_lab.panels import Explorer

        check_keep(keep)
        return Explorer(self, Choice(text, self.name, self.regime, scorer, keep))
