"""Train a PromptRouter: the model writes texts, its own activations on them are the teacher.

Closed form: ridge regression from the mean embedding of a text's first half to the roots of the neurons'
shares in the whole text (see `Griffin`), cut to a low rank by the singular values of what it predicts. The
strength of the penalty is chosen on texts left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dsgp_lab.anatomy import Inputs
from dsgp_lab.decoder import DecoderSubNetwork
from dsgp_lab.errors import LabError
from dsgp_lab.generation import generate
from dsgp_lab.language import LanguageLab
from dsgp_lab.language_data import load_openers
from dsgp_lab.sensitivity import ReadShares
from dsgp_lab.sensitivity.prompt_router import PromptRouter, mean_embedding
from dsgp_lab.whole_files import make_folder, write_text

PENALTIES = (0.1, 1.0, 10.0, 100.0, 1000.0)
BATCH = 32


@dataclass(frozen=True)
class Fit:
    """A router, and how well it predicts texts left out.

    explained: share of the variance between texts that it explains there, by penalty.
    penalty: the chosen one.
    """

    router: PromptRouter
    explained: dict[float, float]
    penalty: float


def train_prompt_router(
    lab: LanguageLab,
    texts: int = 320,
    new_tokens: int = 96,
    rank: int = 16,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Fit, dict[str, object]]:
    """Let the model write, run it over what it wrote, fit a router; also what a card should say of it.

    Raises LabError for fewer than 10 texts or a rank below 1.
    """
    if texts < 10 or rank < 1:
        raise LabError(
            got=f"texts={texts}, rank={rank}",
            allowed="at least 10 texts, and a rank of at least 1",
            hint="leave them out",
        )
    written = write_texts(lab, texts, new_tokens, seed, say)
    features, roots = [], []
    for number, ids in enumerate(written):
        features.append(mean_embedding(lab.anatomy, lab.as_inputs(ids[: max(1, len(ids) // 2)])))
        roots.append(text_shares(lab, ids).sqrt())
        if (number + 1) % BATCH == 0:
            say(f"read {number + 1} of {len(written)} texts")
    fit = fit_router(torch.cat(features), torch.stack(roots), rank)
    card: dict[str, object] = {
        "model": lab.name,
        "texts": len(written),
        "new_tokens": new_tokens,
        "rank": rank,
        "seed": seed,
        "penalty": fit.penalty,
        "explained": {f"{penalty:g}": round(value, 3) for penalty, value in fit.explained.items()},
    }
    return fit, card


def write_texts(
    lab: LanguageLab, count: int, new_tokens: int, seed: int, say: Callable[[str], None] = lambda line: None
) -> list[list[int]]:
    """Openers continued by the whole model at temperature 0.8, each as often as it takes; token ids."""
    openers = load_openers()
    ids = [list(lab.tokenizer(openers[i % len(openers)].text)["input_ids"]) for i in range(count)]
    written: list[list[int]] = []
    for start in range(0, count, BATCH):
        batch = ids[start : start + BATCH]
        made = generate(lab.subnetwork, _padded(batch, lab), None, new_tokens, lab.end_ids, 0.8, seed + start)
        written += [[*given, *more] for given, more in zip(batch, made.tokens, strict=True)]
        say(f"wrote {len(written)} of {count} texts")
    return written


@torch.inference_mode()
def text_shares(lab: LanguageLab, ids: Sequence[int]) -> Tensor:
    """Each neuron's mean share of its layer's activation [layers * neurons], in the model's own order."""
    watch, sub = ReadShares(), lab.subnetwork
    assert isinstance(sub, DecoderSubNetwork)
    sub.prefill(lab.as_inputs(ids), sub.whole, watch=watch)
    inverse = lab.anatomy.order.argsort(-1).to(lab.anatomy.device)
    return (watch.neurons().gather(1, inverse) / len(ids)).flatten()


def fit_router(features: Tensor, roots: Tensor, rank: int) -> Fit:
    """Ridge regression of roots [texts, neurons] on features [texts, hidden], cut to a rank.

    Every fifth text is left out to choose the penalty; the router is then fitted on all.
    """
    held = torch.arange(len(features)) % 5 == 0
    explained = {}
    for penalty in PENALTIES:
        made = _ridge(features[~held], roots[~held], penalty, rank)
        error = roots[held] - _predict(made, features[held])
        spread = roots[held] - roots[~held].mean(0)
        explained[penalty] = 1 - float(error.square().sum() / spread.square().sum())
    penalty = max(explained, key=lambda key: explained[key])
    return Fit(_ridge(features, roots, penalty, rank), explained, penalty)


def _ridge(features: Tensor, roots: Tensor, penalty: float, rank: int) -> PromptRouter:
    """The penalty is in units of the features' mean variance, so that their scale does not matter."""
    centre, mean = features.mean(0), roots.mean(0)
    x, y = (features - centre).double(), (roots - mean).double()
    gram = x @ x.T
    strength = penalty * gram.diagonal().mean()
    dual = torch.linalg.solve(gram + strength * torch.eye(len(x), dtype=x.dtype, device=x.device), y)
    fitted = gram @ dual  # [texts, neurons]; its main directions are the map's
    values, vectors = torch.linalg.eigh(fitted @ fitted.T)
    main = vectors[:, values.argsort(descending=True)[:rank]]
    directions = torch.linalg.qr((main.T @ fitted).T).Q.T  # orthonormal rows [rank, neurons]
    down = x.T @ (dual @ directions.T)
    return PromptRouter(centre.float(), down.float(), directions.float(), mean.float())


def _predict(router: PromptRouter, features: Tensor) -> Tensor:
    return router.mean + (features - router.centre) @ router.down @ router.up


def _padded(rows: Sequence[Sequence[int]], lab: LanguageLab) -> Inputs:
    width = max(len(row) for row in rows)
    ids = [[*[0] * (width - len(row)), *row] for row in rows]
    real = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    device = lab.anatomy.device
    return {
        "input_ids": torch.tensor(ids, device=device),
        "attention_mask": torch.tensor(real, device=device),
    }


def save_router(fit: Fit, card: dict[str, object], folder: Path) -> Path:
    """Write router.safetensors and card.json into a folder."""
    fit.router.save(make_folder(folder) / "router.safetensors")
    write_text(folder / "card.json", json.dumps(card, indent=2) + "\n")
    return folder
