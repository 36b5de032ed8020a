"""The price of an input: the smallest budget at which the cut model is about as certain as the dense one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dsgp_lab.errors import LabError
from dsgp_lab.mask import Mask
from dsgp_lab.plan import plan_mask
from dsgp_lab.report import Report, Reported
from dsgp_lab.results import Text
from dsgp_lab.router import Router
from dsgp_lab.sensitivity import Scorer, Sensitivity, lengths
from dsgp_lab.sensitivity.targets import margin

if TYPE_CHECKING:
    from dsgp_lab.lab import Lab

BUDGETS = tuple(round(0.05 * step, 2) for step in range(1, 21))
"""0.05, 0.1 and so on to 1."""


def margins_by_budget(
    lab: Lab,
    texts: Sequence[Text],
    budgets: Sequence[float] = BUDGETS,
    scorer: str | Scorer = "first_order",
) -> Tensor:
    """The margin of the dense model's class under each input's own mask [inputs, budgets].

    Below 0 the class has changed. For classification only. Cost: one scoring, and one cut run for every
    input and budget.

    Raises:
        LabError: a regression model, or a router as the scorer.
    """
    if not lab.labels:
        raise LabError(
            got=f"{lab.name!r}, a regression",
            allowed="a model with classes",
            hint="look at its output itself",
        )
    made = lab.scorer(scorer)
    if isinstance(made, Router):
        raise LabError(
            got="a router", allowed="a scorer", hint="a router meets budgets on average, not for every input"
        )
    inputs = lab.encode(texts)
    scores: Sensitivity = made(lab.anatomy, inputs)
    chosen = lab.subnetwork.dense(inputs).argmax(1)
    columns = []
    for keep in budgets:
        mask = plan_mask(scores, lab.cost, lengths(inputs), keep)
        columns.append(margin(lab.subnetwork(inputs, mask).logits, chosen))
    return torch.stack(columns, dim=1)


def prices(margins: Tensor, budgets: Sequence[float] = BUDGETS, share: float = 0.5) -> Tensor:
    """For every input the smallest budget from which on at least `share` of its dense margin stays [inputs].

    margins [inputs, budgets] as `margins_by_budget` gives them, budgets rising to 1, the dense model.

    >>> margins = torch.tensor([[-1.0, 1.5, 0.5, 2.0], [1.0, 1.0, 1.0, 1.0]])
    >>> prices(margins, [0.25, 0.5, 0.75, 1.0]).tolist()
    [1.0, 0.25]

    Raises:
        LabError: budgets that do not end with 1, or as many as there are columns.
    """
    if len(budgets) != margins.shape[1] or budgets[-1] != 1 or list(budgets) != sorted(budgets):
        raise LabError(
            got=f"budgets {list(budgets)} for {margins.shape[1]} columns",
            allowed="one for each column, rising, the last one 1",
            hint="leave budgets out in both calls",
        )
    enough = margins >= share * margins[:, -1:]
    holds = enough.flip(1).long().cumprod(1).flip(1)  # from this budget on, everywhere
    return torch.tensor(budgets)[holds.argmax(1)]


@dataclass(frozen=True, repr=False)
class WordPrices(Reported):
    """What each word adds to a text's price: price of the whole text, and without each word in turn."""

    text: str
    price: float
    words: tuple[str, ...]
    without: tuple[float, ...]
    margins: tuple[float, ...]
    """The dense margin of the text's own class without each word; below 0, the word decides the class."""

    def report(self) -> Report:
        """One row a word."""
        rows = tuple(
            (word, f"{price:.2f}", f"{self.price - price:+.2f}", f"{gap:.1f}")
            for word, price, gap in zip(self.words, self.without, self.margins, strict=True)
        )
        header = ("without", "price", "the word's share", "dense margin")
        return Report(f"Price of the text: {self.price:.2f} of the MACs", rows, header)


def word_prices(lab: Lab, text: str, scorer: str | Scorer = "first_order") -> WordPrices:
    """Leave out the words of a text one by one and see what the rest costs.

    Words are what stands between spaces. Raises LabError for a text of a single word.
    """
    words = text.split()
    if len(words) < 2:
        raise LabError(got=f"{len(words)} words", allowed="at least two", hint="nothing is left without one")
    rest = [" ".join(words[:i] + words[i + 1 :]) for i in range(len(words))]
    margins = margins_by_budget(lab, [text, *rest], scorer=scorer)
    whole, *without = prices(margins).tolist()
    logits = lab.subnetwork.dense(lab.encode([text, *rest]))
    own = margin(logits, logits[:1].argmax(1).expand(len(logits)))
    return WordPrices(text, whole, tuple(words), tuple(without), tuple(own[1:].tolist()))


def without_layer(lab: Lab, layer: int, part: str) -> Mask:
    """The mask under which everything runs but one layer's heads, or its blocks.

    Raises LabError for another part than "heads" or "blocks", or a layer that is not there.
    """
    if part not in ("heads", "blocks") or not 0 <= layer < lab.anatomy.num_layers:
        raise LabError(
            got=f"{part} of layer {layer}",
            allowed=f"heads or blocks of layers 0 to {lab.anatomy.num_layers - 1}",
            hint="count layers from 0",
        )
    mask = Mask.full(lab.anatomy)
    getattr(mask, part)[:, layer] = False
    return mask
