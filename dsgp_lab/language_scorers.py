"""Scorers for prompts: by name, calibrated where they need it, and the means that static masks rest on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from dsgp_lab.anatomy import Anatomy, Inputs
from dsgp_lab.errors import LabError
from dsgp_lab.language_models import LANGUAGE_MODEL
from dsgp_lab.packed_decoder import Means
from dsgp_lab.sensitivity import (
    Constant,
    FirstOrder,
    Flap,
    Probe,
    PromptRouter,
    Scorer,
    Sensitivity,
    make_scorer,
)
from dsgp_lab.tasks import data_folder

if TYPE_CHECKING:
    from dsgp_lab.language import LanguageLab

LANGUAGE_SCORERS = (
    *("griffin", "first_order", "activation_norm", "wanda_sp", "flap", "probe"),
    *("router", "constant", "random"),
)
"""Names of scorers for prompts; `first_order` takes the prompt's own loss."""

DYNAMIC = tuple(name for name in LANGUAGE_SCORERS if name != "constant")
"""Scorers that look at the prompt (and random); the constant one is their static twin."""


def prompt_scorer(
    lab: LanguageLab, scorer: str | Scorer, calibration: Sequence[Inputs] | None = None
) -> Scorer:
    """A scorer by name; those that need calibration get it from these inputs, by default the passages.

    "constant" is the mean of GRIFFIN's scores.
    """
    if isinstance(scorer, Scorer):
        return scorer
    if scorer not in LANGUAGE_SCORERS:
        raise LabError(
            got=f"scorer={scorer!r}",
            allowed=", ".join(LANGUAGE_SCORERS),
            hint="use one of these names, or a Scorer object",
        )
    if scorer == "first_order":
        return FirstOrder("prompt_loss")
    if scorer == "constant":
        return lab.static("griffin")
    if scorer == "router":
        return load_prompt_router(lab.name)
    if scorer in ("flap", "probe"):
        texts = lab.calibration() if calibration is None else calibration
        return Flap.fit(lab.anatomy, texts) if scorer == "flap" else Probe.fit(lab.anatomy, texts)
    return make_scorer(scorer)


def dynamic_scorers(name: str) -> tuple[str, ...]:
    """Scorers of a language model that look at the prompt, and random; the router only where there is one."""
    has_router = name == LANGUAGE_MODEL and router_file().is_file()
    return tuple(each for each in DYNAMIC if each != "router" or has_router)


def load_prompt_router(name: str) -> PromptRouter:
    """The trained router of a language model; LabError where there is none."""
    if name != LANGUAGE_MODEL or not router_file().is_file():
        raise LabError(
            got=f"scorer='router' for {name!r}, which has none",
            allowed=f"the router of {LANGUAGE_MODEL}, once trained, or a PromptRouter of your own model",
            hint="train one with dsgp-lab prompt-router, and pass PromptRouter.load(path)",
        )
    return PromptRouter.load(router_file())


def router_file() -> Path:
    """Where the trained router of the embedded language model lies."""
    return data_folder() / "language" / "router.safetensors"


def mean_scores(scores: Sequence[Sensitivity]) -> Constant:
    """The mean of scores, each text's scaled to the same sum of heads and neurons, so that none outweighs."""
    scaled = [Sensitivity(s.heads / _size(s), s.blocks / _size(s), s.scorer, s.macs) for s in scores]
    return Constant.of(Sensitivity.stack(scaled))


def layer_means(anatomy: Anatomy, batches: Iterable[Inputs]) -> tuple[Means, ...]:
    """Mean inputs of the output projections over calibration batches, a layer each."""
    means = Flap.fit(anatomy, batches).means
    assert means is not None
    neurons = means["neurons"].gather(1, anatomy.order.to(means["neurons"].device))
    return tuple(Means(*both) for both in zip(means["heads"], neurons, strict=True))


def _size(scores: Sensitivity) -> Tensor:
    return scores.flat().abs().sum().clamp(min=1e-30)
