"""Router: a small learned network that decides, layer by layer and for every input, which units run.

Before each layer it reads that layer's input, pooled over the tokens, and gives every head and block of the
layer a logit; units above 0 run. So each decision sees more of the input than the one before, and inputs may
differ in how much they cost. A *one-shot* router reads only the embedding output and decides for all layers
at once. A *constant* router (the static twin) has the same parts and the same training, but its input is
switched off.

Sources: per-layer predictors of Deja Vu (Liu et al. 2023), gates trained through a straight-through estimator
as in EBERT (Liu et al. 2021), one predictor before the model as in ShadowLLM (Akhauri et al. 2024).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dsgp_lab.anatomy import Anatomy
from dsgp_lab.cost import CostModel
from dsgp_lab.errors import LabError
from dsgp_lab.models import unreadable
from dsgp_lab.whole_files import whole_file

RouterKind = Literal["layerwise", "oneshot", "constant"]

STEEPNESS = 8.0
"""Logits a unit gains as the budget goes from 0 to 1, before training."""

GRID = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Budgets at which a router is calibrated."""

UNSEEN = ("w1", "centre", "spread")
"""Parts of a router that a constant one does not use."""


@dataclass(frozen=True)
class RouterShape:
    """What a router looks like: its kind, the model's units, and the width of its hidden layer."""

    kind: RouterKind
    num_layers: int
    num_heads: int
    num_blocks: int
    hidden_size: int
    width: int = 64

    def __post_init__(self) -> None:
        """Check the kind."""
        if self.kind not in get_args(RouterKind):
            raise LabError(
                got=f"kind={self.kind!r}", allowed=", ".join(get_args(RouterKind)), hint="choose one of these"
            )

    @staticmethod
    def of(anatomy: Anatomy, kind: RouterKind = "layerwise", width: int = 64) -> RouterShape:
        """The shape for a model."""
        units = (anatomy.num_layers, anatomy.num_heads, anatomy.num_blocks)
        return RouterShape(kind, *units, anatomy.hidden_size, width)

    @property
    def num_units(self) -> int:
        """Units of one layer."""
        return self.num_heads + self.num_blocks

    @property
    def num_features(self) -> int:
        """Length of the pooled layer input: first token and mean."""
        return 2 * self.hidden_size


class Router(nn.Module):
    """One two-layer perceptron a layer: pooled input and budget -> a logit for each unit of the layer.

    logit = bias + slope * keep + W2 relu(W1 features + b1 + w_keep * keep). Bias and slope start from a
    static ranking (`start_from_ranking`), W2 from 0, so that an untrained router is that static plan.
    Cost: below 0.2 % of the encoder's MACs at 25 tokens (see `macs`). Limits: the budget is met on average
    over the data it was calibrated on, not for every single input.
    """

    centre: Tensor
    spread: Tensor
    asked: Tensor

    def __init__(self, shape: RouterShape) -> None:
        super().__init__()
        self.shape = shape
        layers, features, width, units = (
            shape.num_layers,
            shape.num_features,
            shape.width,
            shape.num_units,
        )
        self.w1 = nn.Parameter(torch.randn(layers, features, width) * features**-0.5)
        self.b1 = nn.Parameter(torch.zeros(layers, width))
        self.w_keep = nn.Parameter(torch.randn(layers, width))
        self.w2 = nn.Parameter(torch.zeros(layers, width, units))
        self.bias = nn.Parameter(torch.zeros(layers, units))
        self.slope = nn.Parameter(torch.full((layers, units), STEEPNESS))
        self.register_buffer("centre", torch.zeros(layers, features))
        self.register_buffer("spread", torch.ones(layers, features))
        self.register_buffer("asked", torch.tensor(GRID))

    @property
    def sees_input(self) -> bool:
        """Whether decisions depend on the input."""
        return self.shape.kind != "constant"

    def start_from_ranking(self, ranks: Tensor) -> None:
        """Start as a static plan: ranks [layers, units], the budget at which each unit begins to run."""
        with torch.no_grad():
            self.bias.copy_(-STEEPNESS * ranks)

    def start_from_router(self, other: Router) -> None:
        """Start with another router's decisions; from a constant one, no input makes a difference yet.

        Raises:
            LabError: the other one is of another size.
        """
        if replace(other.shape, kind=self.shape.kind) != self.shape:
            raise LabError(
                got=f"a router for {_units(other.shape)}, width {other.shape.width}",
                allowed=f"one for {_units(self.shape)}, width {self.shape.width}",
                hint="start from a router of this model, or leave start_from out",
            )
        self.load_state_dict(
            {
                name: value
                for name, value in other.state_dict().items()
                if other.sees_input or name not in UNSEEN
            },
            strict=False,
        )
        if not other.sees_input:
            nn.init.zeros_(self.w1)

    def check_fits(self, anatomy: Anatomy) -> None:
        """Raise LabError unless the router was made for a model of this shape."""
        want = RouterShape.of(anatomy, self.shape.kind, self.shape.width)
        if self.shape != want:
            raise LabError(
                got=f"a router for {_units(self.shape)}",
                allowed=f"one for {_units(want)}",
                hint="use the model and block size that the router was trained with",
            )

    def standardise(self, centre: Tensor, spread: Tensor) -> None:
        """Set the features' mean and standard deviation, each [layers, features]."""
        self.centre.copy_(centre)
        self.spread.copy_(spread.clamp(min=1e-4))

    def logits(self, layer: int, features: Tensor, keep: Tensor) -> Tensor:
        """Logits [batch, units] of a layer: heads, then blocks.

        features [batch, 2 hidden] as `pooled` gives them, keep [batch] the router's own budget input.
        """
        inner = self.b1[layer] + keep[:, None] * self.w_keep[layer]
        if self.sees_input:
            inner = inner + ((features - self.centre[layer]) / self.spread[layer]) @ self.w1[layer]
        constant = self.bias[layer] + keep[:, None] * self.slope[layer]
        return constant + torch.relu(inner) @ self.w2[layer]

    def calibrated(self, keep: float) -> float:
        """The budget input with which the share that runs is `keep` on average.

        It is looked up between the points of `GRID`, where `calibrate` measured it.
        """
        grid = torch.tensor(GRID)
        right = int(torch.searchsorted(grid, keep).clamp(1, len(grid) - 1))
        weight = (keep - grid[right - 1]) / (grid[right] - grid[right - 1])
        return float(torch.lerp(self.asked[right - 1].cpu(), self.asked[right].cpu(), weight))

    def macs(self, cost: CostModel, length: int, asked: int | None = None) -> int:
        """The router's own MACs for one input of `length` tokens, pooling counted as one for each value.

        `asked` is how many layers it decides for, if not all.
        """
        shape = self.shape
        if not self.sees_input:
            return 0
        layers = shape.num_layers if asked is None else asked
        decisions = layers * (shape.num_features * shape.width + shape.width * shape.num_units)
        pools = 1 if shape.kind == "oneshot" else layers
        return decisions + pools * length * shape.hidden_size

    def save(self, path: Path) -> None:
        """Write as float16 safetensors, the shape in its metadata; a constant router without W1."""
        tensors = {
            name: value.detach().half().cpu().contiguous() for name, value in self.state_dict().items()
        }
        if not self.sees_input:
            for name in UNSEEN:
                del tensors[name]
        with whole_file(path) as scratch:
            save_file(tensors, scratch, {key: str(value) for key, value in asdict(self.shape).items()})
            scratch.chmod(0o644)

    @staticmethod
    def load(path: Path) -> Router:
        """Read what `save` wrote; LabError for a file that is missing or damaged."""
        try:
            with safe_open(path, framework="pt") as file:
                written: dict[str, Any] = dict(file.metadata() or {})
                tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
            kind = written.pop("kind")
            router = Router(RouterShape(kind, **{key: int(value) for key, value in written.items()}))
            router.load_state_dict(router.state_dict() | tensors)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise unreadable(path, error) from None
        return router.eval()


def _units(shape: RouterShape) -> str:
    units = f"{shape.num_layers} layers of {shape.num_heads} heads and {shape.num_blocks} blocks"
    return f"{units}, hidden size {shape.hidden_size}"


def pooled(hidden: Tensor, real: Tensor) -> Tensor:
    """First token and mean over real tokens [batch, 2 hidden] of a layer's input [batch, tokens, hidden].

    real [batch, tokens] is 1 on real tokens.

    >>> hidden = torch.tensor([[[1.0], [3.0], [9.0]]])
    >>> pooled(hidden, torch.tensor([[1, 1, 0]])).tolist()
    [[1.0, 2.0]]
    """
    weight = real.to(hidden.dtype)[:, :, None]
    mean = (hidden * weight).sum(1) / weight.sum(1)
    return torch.cat([hidden[:, 0], mean], dim=-1)
