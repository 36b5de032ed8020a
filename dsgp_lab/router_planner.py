"""A router's decisions while a model runs, under one budget: for one input at a time, or for a batch.

A planner is asked before each layer, with that layer's input, and says which heads and blocks of it run. It
is the plan that a `SubNetwork` takes in place of a mask that is known before.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor

from dsgp_lab.devices import now
from dsgp_lab.mask import Mask
from dsgp_lab.packed import LayerSelection, PackedLayer
from dsgp_lab.router import Router
from dsgp_lab.runs import Kept
from dsgp_lab.together import Tokens

Settlements = Sequence[tuple[Kept, Kept] | None]
"""For each layer the heads and blocks that run for every input; None where the router is asked."""

CERTAIN = 100.0
"""The logit of a unit that runs whatever the input is; with a minus, of one that does not."""

ABOVE_0 = (0.0).__lt__
"""Whether a number is above 0; `map` with it takes less time than a comparison in a loop."""


class Planner:
    """A router's decisions under one budget, for one input at a time: the `Decide` of a `SubNetwork`.

    `budget` is the router's own input, if not what its calibration gives for `keep`; `settled` has the layers
    that are decided beforehand (see `settled`), where the router is not asked. With `packed`, the layers of
    the `SubNetwork` that it is for, what these run is copied together here, not selected in every run.
    The budget and the standardisation are folded into the weights once, so that a decision is two small
    products. At batch 1 the number of operations counts, not their size: pooling is one product, and the
    comparison with 0 is Python's. Decisions are made in float32, on the device of what the model runs on.
    `logits` and `seconds` are those of the last run.
    """

    @torch.no_grad()
    def __init__(
        self,
        router: Router,
        keep: float,
        budget: float | None = None,
        settled: Settlements = (),
        packed: Sequence[PackedLayer] = (),
    ) -> None:
        shape, budget = router.shape, router.calibrated(keep) if budget is None else budget
        self.kind, self.num_heads = shape.kind, shape.num_heads
        inner = router.b1 + budget * router.w_keep
        if router.sees_input:
            scaled = router.w1 / router.spread[:, :, None]
            inner = inner - (router.centre[:, None, :] @ scaled).squeeze(1)
            self._w1 = tuple(scaled.transpose(1, 2).contiguous())
        self._b1 = tuple(inner)
        self._w2 = tuple(router.w2.detach().transpose(1, 2).contiguous())
        self._b2 = tuple(router.bias + budget * router.slope)
        self.seconds = 0.0
        self._pools: dict[int, Tensor] = {}
        self._logits: list[list[float]] = [[]] * shape.num_layers
        self._decided = [self._decision(layer, None) for layer in range(shape.num_layers)]
        self._asked = [shape.kind == "layerwise"] * shape.num_layers
        for layer, kept in enumerate(settled):
            if kept is not None:
                self._decided[layer], self._asked[layer] = kept, False
                self._logits[layer] = [CERTAIN if keep else -CERTAIN for keep in kept[0] + kept[1]]
        self._selected: list[LayerSelection | None] = [None] * shape.num_layers
        for layer, (part, kept) in enumerate(zip(packed, settled, strict=False)):
            self._selected[layer] = None if kept is None else part.cut(*kept)

    def __call__(self, layer: int, rows: Tensor) -> tuple[Kept, Kept] | LayerSelection:
        """Which heads and which blocks of a layer run, from its input [tokens, hidden].

        For a layer that is decided beforehand, with `packed`, what it runs.
        """
        if layer == 0:
            self.seconds = 0.0
        selected = self._selected[layer]
        if selected is not None:
            return selected
        start = now(rows.device)
        if self._asked[layer]:
            self._decided[layer] = self._decision(layer, self._pool(rows))
        elif self.kind == "oneshot" and layer == 0:
            features = self._pool(rows)
            self._decided = [self._decision(index, features) for index in range(len(self._decided))]
        self.seconds += time.perf_counter() - start  # decisions are numbers: a GPU is done with them
        return self._decided[layer]

    @property
    def logits(self) -> Tensor:
        """The logits of the last run [layers, units]."""
        return torch.tensor(self._logits)

    @property
    def mask(self) -> Mask:
        """The mask of the last run, batch of 1."""
        heads, blocks = zip(*self._decided, strict=True)
        return Mask(torch.tensor([heads]), torch.tensor([blocks]))

    def _decision(self, layer: int, features: Tensor | None) -> tuple[Kept, Kept]:
        inner = self._b1[layer]
        inner = inner.clone() if features is None else torch.addmv(inner, self._w1[layer], features)
        logits: list[float] = torch.addmv(self._b2[layer], self._w2[layer], torch.relu_(inner)).tolist()
        self._logits[layer] = logits
        kept = tuple(map(ABOVE_0, logits))
        return kept[: self.num_heads], kept[self.num_heads :]

    def _pool(self, rows: Tensor) -> Tensor:
        """First token and mean [2 hidden] of one unpadded input [tokens, hidden]."""
        length = len(rows)
        if rows.dtype is not torch.float32:
            rows = rows.float()
        if length not in self._pools:
            pool = torch.full((2, length), 1 / length, device=rows.device)
            pool[0] = torch.eye(1, length)[0]
            self._pools[length] = pool
            self._move(rows.device)
        return torch.mm(self._pools[length], rows).view(-1)

    def _move(self, device: torch.device) -> None:
        """Put the folded weights where the model is."""
        self._w1, self._b1, self._w2, self._b2 = (
            tuple(each.to(device) for each in part) for part in (self._w1, self._b1, self._w2, self._b2)
        )


class BatchPlanner:
    """A router's decisions under one budget for a whole batch, layer by layer: the plan of `run_together`.

    `budget` and `settled` as for `Planner`; `asked` is the number of layers that the router decides for.
    `logits` [batch, layers, units], `mask` and `seconds` are those of the last run.
    """

    def __init__(
        self, router: Router, keep: float, budget: float | None = None, settled: Settlements = ()
    ) -> None:
        self.router, self.budget = router, router.calibrated(keep) if budget is None else budget
        self._settled = tuple(settled) or (None,) * router.shape.num_layers
        self.asked = sum(kept is None for kept in self._settled)
        self.seconds = 0.0
        self._logits: list[Tensor] = []
        self._first: Tensor | None = None

    @torch.inference_mode()
    def __call__(self, layer: int, rows: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Kept heads [batch, heads] and blocks [batch, blocks] of a layer from its input [tokens, hidden]."""
        start = now(rows.device)
        if layer == 0:
            self._logits, self.seconds = [], 0.0
            if self.router.b1.device != rows.device:
                self.router = deepcopy(self.router).to(rows.device)
        router, features, settled = self.router, self._first, self._settled[layer]
        if settled is not None:
            certain = torch.tensor([CERTAIN if keep else -CERTAIN for keep in settled[0] + settled[1]])
            self._logits.append(certain.to(rows.device).expand(tokens.batch, -1))
            return self._last()
        if router.shape.kind == "layerwise" or layer == 0:
            features = self._first = self._pool(rows.float(), tokens)
        assert features is not None
        keep = features.new_full((tokens.batch,), self.budget)
        self._logits.append(router.logits(layer, features, keep))
        self.seconds += now(rows.device) - start
        return self._last()

    def _last(self) -> tuple[Tensor, Tensor]:
        """Kept heads and blocks of the layer that was decided last."""
        kept, heads = self._logits[-1] > 0, self.router.shape.num_heads
        return kept[:, :heads], kept[:, heads:]

    @property
    def logits(self) -> Tensor:
        """The logits of the last run [batch, layers, units]."""
        return torch.stack(self._logits, dim=1)

    @property
    def mask(self) -> Mask:
        """The masks of the last run."""
        kept, heads = self.logits > 0, self.router.shape.num_heads
        return Mask(kept[..., :heads].contiguous(), kept[..., heads:].contiguous())

    @staticmethod
    def _pool(rows: Tensor, tokens: Tokens) -> Tensor:
        """First token and mean [batch, 2 hidden]."""
        real = tokens.real.to(rows.dtype)[:, None]
        sums = rows.new_zeros(tokens.batch, rows.shape[1]).index_add_(0, tokens.owners, rows * real)
        mean = sums / sums.new_zeros(tokens.batch, 1).index_add_(0, tokens.owners, real)
        return torch.cat([rows[tokens.starts], mean], dim=-1)
