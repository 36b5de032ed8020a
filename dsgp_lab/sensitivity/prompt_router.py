"""PromptRouter: a small learned map from a prompt's embeddings to the neurons of the whole model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dsgp_lab.anatomy import Anatomy, Inputs
from dsgp_lab.anatomy.decoder import placed
from dsgp_lab.cost import CostModel
from dsgp_lab.errors import LabError, cannot_read
from dsgp_lab.sensitivity.base import Scorer, UnitScores, real_tokens
from dsgp_lab.whole_files import whole_file


@dataclass(frozen=True, eq=False)
class PromptRouter(Scorer):
    """relu(mean + (e - centre) A B)^2: the share of its layer's activation that a neuron will have.

    Source: one predictor at the bottom for the whole model, as ShadowLLM (Akhauri et al. 2024, arXiv
    2406.16635), there a perceptron trained on gradients; here a low-rank linear map, trained in closed form
    on what the dense model does with texts that it wrote itself (`training.prompt_router`). e is the mean of
    the prompt's token embeddings, A [hidden, rank], B [rank, layers * neurons], neurons in the model's own
    order. KV groups are not scored: all get 1.
    Cost: the mean, and two products of a vector and a matrix; no layer runs. Limits: a bag of words, without
    their order; knows kinds of text, not contents; made for one model.
    """

    centre: Tensor
    down: Tensor
    up: Tensor
    mean: Tensor
    name: ClassVar[str] = "router"
    oracle: ClassVar[bool] = False

    @property
    def rank(self) -> int:
        """Numbers that a prompt is summed up in."""
        return self.down.shape[1]

    @torch.no_grad()
    def unit_scores(self, anatomy: Anatomy, inputs: Inputs, labels: Tensor | None) -> UnitScores:
        """Predicted shares of neurons and blocks."""
        self._check_fits(anatomy)
        centre, down, up, mean = (t.to(anatomy.device) for t in (self.centre, self.down, self.up, self.mean))
        roots = mean + (mean_embedding(anatomy, inputs) - centre) @ down @ up
        neurons = roots.relu().square().unflatten(-1, (anatomy.num_layers, anatomy.num_neurons))
        heads = torch.ones(len(neurons), anatomy.num_layers, anatomy.num_heads, device=anatomy.device)
        return UnitScores(heads, anatomy.into_blocks(neurons).sum(-1), neurons)

    def macs(self, cost: CostModel, length: int) -> int:
        """The mean counted as one for each value, and the two products."""
        return length * cost.hidden_size + self.rank * (cost.hidden_size + len(self.mean))

    def save(self, path: Path) -> None:
        """Write as float16 safetensors."""
        tensors = {name: getattr(self, name).half().cpu().contiguous() for name in FIELDS}
        with whole_file(path) as scratch:
            save_file(tensors, scratch)
            scratch.chmod(0o644)

    @staticmethod
    def load(path: Path) -> PromptRouter:
        """Read what `save` wrote; LabError for a file that is missing or damaged."""
        try:
            with safe_open(path, framework="pt") as file:
                return PromptRouter(**{name: file.get_tensor(name).float() for name in FIELDS})
        except (SafetensorError, OSError, KeyError) as error:
            allowed, hint = "a router that dsgp-lab prompt-router wrote", "restore or train it anew"
            raise cannot_read(path, error, allowed, hint) from None

    def _check_fits(self, anatomy: Anatomy) -> None:
        got = (len(self.centre), len(self.mean))
        want = (anatomy.hidden_size, anatomy.num_layers * anatomy.num_neurons)
        if got != want:
            raise LabError(
                got=f"a router for hidden size {got[0]} and {got[1]} neurons",
                allowed=f"one for hidden size {want[0]} and {want[1]} neurons, this model's",
                hint="train one with dsgp-lab prompt-router --model ...",
            )


FIELDS = ("centre", "down", "up", "mean")


@torch.no_grad()
def mean_embedding(anatomy: Anatomy, inputs: Inputs) -> Tensor:
    """Mean over real tokens of what enters the first layer [batch, hidden], in float32."""
    real = real_tokens(inputs)
    hidden = anatomy.family.embed(anatomy.model.base_model, placed(inputs)).float()
    return (hidden * real).sum(1) / real.sum(1)
