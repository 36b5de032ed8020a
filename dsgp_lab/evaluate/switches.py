"""Which words switch which units: a router's decisions for a text, and for the text with a part changed."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from dsgp_lab.anatomy import Inputs
from dsgp_lab.errors import LabError
from dsgp_lab.mask import Mask
from dsgp_lab.plan import check_keep
from dsgp_lab.report import Report, Reported
from dsgp_lab.results import Prediction, Text
from dsgp_lab.router import Router
from dsgp_lab.router_planner import Planner
from dsgp_lab.sensitivity import lengths

if TYPE_CHECKING:
    from dsgp_lab.lab import Lab

How = Literal["hide", "remove"]


@dataclass(frozen=True, eq=False, repr=False)
class Switches(Reported):
    """A text under a router, and variants of it: what the change of each variant switches.

    names [variants]; mask is the text's own, a batch of 1, masks [variants] those of the variants; change
    [variants, layers, heads + blocks] is the router's logit for the variant minus that for the text; shares
    are parts of the dense MACs at each one's own length, the router's own cost left out.
    """

    text: Text
    keep: float
    names: tuple[str, ...]
    mask: Mask
    masks: Mask
    change: Tensor
    share: float
    shares: tuple[float, ...]
    prediction: Prediction
    predictions: tuple[Prediction, ...]

    @property
    def off(self) -> Mask:
        """Units that run for the text and not for the variant [variants]."""
        return self._own & ~self.masks

    @property
    def on(self) -> Mask:
        """Units that run for the variant and not for the text [variants]."""
        return self.masks & ~self._own

    @property
    def switched(self) -> Mask:
        """Units whose state differs [variants]."""
        return self.off | self.on

    @property
    def counts(self) -> Tensor:
        """How many units each variant switches [variants]."""
        return _per_input(self.switched)

    def report(self) -> Report:
        """A row a variant."""
        off, on = _per_input(self.off).tolist(), _per_input(self.on).tolist()
        size = self.change.abs().flatten(1).mean(1).tolist()
        rows = [("(the text)", "", "", "", f"{self.share:.3f}", repr(self.prediction))]
        for i, name in enumerate(self.names):
            predicted = repr(self.predictions[i])
            rows.append((name, str(off[i]), str(on[i]), f"{size[i]:.2f}", f"{self.shares[i]:.3f}", predicted))
        header = ("changed", "switched off", "switched on", "logit change", "share of MACs", "prediction")
        note = f"Budget {self.keep:g}; logit change: mean size over all units."
        return Report("What each change switches", tuple(rows), header, (note,))

    @property
    def _own(self) -> Mask:
        return self.mask[[0] * len(self.names)]


@dataclass(frozen=True, repr=False)
class WordEffects(Reported):
    """How many units each word switches when it is left out, over many texts.

    switched: word in lower case -> a number for each time it occurs; punctuation is among the words.
    """

    switched: dict[str, tuple[int, ...]]

    def mean(self, words: Collection[str] | None = None) -> float:
        """Mean number of units over all occurrences, of some words or of all; NaN if there is none."""
        numbers = [n for word, each in self.switched.items() if words is None or word in words for n in each]
        return sum(numbers) / len(numbers) if numbers else math.nan

    def report(self, least: int = 3, most: int = 15) -> Report:
        """The words that switch most, of those that occur at least `least` times, then the mean of all."""
        often = [(self.mean({w}), w, len(each)) for w, each in self.switched.items() if len(each) >= least]
        top = sorted(often, key=lambda row: (-row[0], row[1]))[:most]
        total = sum(map(len, self.switched.values()))
        rows = [(word, str(count), f"{mean:.1f}") for mean, word, count in top]
        rows.append(("(all words)", str(total), f"{self.mean():.1f}"))
        note = f"Words that occur at least {least} times, the {len(top)} strongest."
        return Report("Units that a word switches", tuple(rows), ("word", "times", "mean units"), (note,))


def word_effects(found: Sequence[Switches]) -> WordEffects:
    """Gather the results of `word_switches` for many texts, word by word."""
    switched: dict[str, list[int]] = {}
    for each in found:
        for word, count in zip(each.names, each.counts.tolist(), strict=True):
            switched.setdefault(word.lower(), []).append(count)
    return WordEffects({word: tuple(counts) for word, counts in switched.items()})


def word_switches(
    lab: Lab, text: Text, keep: float = 0.5, scorer: str | Router = "router", how: How = "hide"
) -> Switches:
    """Leave out one word after the other, and see what the router decides without it.

    "hide" puts the tokenizer's mask token in the word's place: length and positions stay, and part of what is
    seen is the reaction to a token that the model never met in its task. "remove" takes the word out: what
    follows moves up. Words are those of the tokenizer: a punctuation mark is one.
    Cost: one pruned run a word. Limits: a single text shows what happens, not what usually happens.

    Raises:
        LabError: a scorer that is no router, a text without words, another `how`.
    """
    if how not in get_args(How):
        raise LabError(got=f"how={how!r}", allowed=" or ".join(get_args(How)), hint="leave it out for hide")
    inputs = lab.encode([text])
    words = _words(lab, text, inputs)
    variants = [_without(lab, inputs, places, how) for _, places in words]
    return _switches(lab, text, inputs, [word for word, _ in words], variants, keep, scorer)


def text_switches(
    lab: Lab, text: Text, others: Mapping[str, Text], keep: float = 0.5, scorer: str | Router = "router"
) -> Switches:
    """Compare the router's decisions for a text with those for other texts, each under its name.

    Raises:
        LabError: a scorer that is no router, no other text.
    """
    if not others:
        raise LabError(got="no other text", allowed="at least one", hint='pass {"name": "another text"}')
    variants = [lab.encode([other]) for other in others.values()]
    return _switches(lab, text, lab.encode([text]), list(others), variants, keep, scorer)


def _switches(
    lab: Lab,
    text: Text,
    inputs: Inputs,
    names: Sequence[str],
    variants: Sequence[Inputs],
    keep: float,
    scorer: str | Router,
) -> Switches:
    router = lab.scorer(scorer)
    if not isinstance(router, Router):
        raise LabError(
            got=f"scorer={scorer!r}",
            allowed="router, twin, or a Router",
            hint="compare masks of other scorers with lab.compare",
        )
    router.check_fits(lab.anatomy)
    planner = Planner(router, check_keep(keep))
    logits, masks, decided, shares = [], [], [], []
    for each in (inputs, *variants):
        real = lengths(each).cpu()
        logits.append(lab.subnetwork.run(each, planner)[0])
        masks.append(planner.mask)
        decided.append(planner.logits)
        shares.append(float(lab.cost.masked(planner.mask, real) / lab.cost.dense(real)))
    own, *predictions = map(lab.prediction, logits)
    return Switches(
        text=text,
        keep=keep,
        names=tuple(names),
        mask=masks[0],
        masks=Mask.stack(masks[1:]),
        change=torch.stack(decided[1:]) - decided[0],
        share=shares[0],
        shares=tuple(shares[1:]),
        prediction=own,
        predictions=tuple(predictions),
    )


def _words(lab: Lab, text: Text, inputs: Inputs) -> list[tuple[str, list[int]]]:
    """Each word of a text (or pair) with the positions of its tokens among the inputs."""
    columns = (text,) if isinstance(text, str) else text
    encoded: Any = lab.tokenizer(*columns, truncation=True, max_length=lab.max_tokens)
    places: dict[tuple[int, int], list[int]] = {}
    owners = zip(encoded.sequence_ids(), encoded.word_ids(), strict=True)
    for place, (column, word) in enumerate(owners):
        if column is not None and word is not None:
            places.setdefault((column, word), []).append(place)
    if not places:
        raise LabError(got=f"{text!r:.60}, without a word", allowed="a text with words", hint="write some")
    if len(encoded["input_ids"]) != inputs["input_ids"].shape[1]:
        raise AssertionError("the lab and its tokenizer read the text differently")
    spans = {key: encoded.word_to_chars(key[1], sequence_index=key[0]) for key in places}
    return [(columns[key[0]][spans[key].start : spans[key].end], at) for key, at in places.items()]


def _without(lab: Lab, inputs: Inputs, places: list[int], how: How) -> dict[str, Tensor]:
    """The inputs with the tokens at these places hidden or removed."""
    if how == "remove":
        left = [i for i in range(inputs["input_ids"].shape[1]) if i not in places]
        return {name: values[:, left] for name, values in inputs.items()}
    mask_id = lab.tokenizer.mask_token_id
    hidden = inputs["input_ids"].clone()
    hidden[:, places] = lab.tokenizer.unk_token_id if mask_id is None else mask_id
    return {**inputs, "input_ids": hidden}


def _per_input(mask: Mask) -> Tensor:
    return mask.heads.flatten(1).sum(1) + mask.blocks.flatten(1).sum(1)
