"""Mask: which heads and neuron blocks run, for each input of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dsgp_lab.errors import LabError

if TYPE_CHECKING:
    from dsgp_lab.anatomy import Anatomy


@dataclass(frozen=True, eq=False)
class Mask:
    """heads [batch, layers, heads] and blocks [batch, layers, blocks], bool; True = the unit runs.

    >>> a = Mask(torch.tensor([[[True, False]]]), torch.tensor([[[True, True, False]]]))
    >>> a
    Mask of 1 input: 1 of 2 heads, 2 of 3 blocks run
    >>> (a | ~a).keep_share.tolist()
    [1.0]
    >>> a.overlap(~a).tolist()
    [0.0]
    """

    heads: Tensor
    blocks: Tensor

    def __post_init__(self) -> None:
        """Check that both parts are boolean and of the same batch and layers."""
        for name, part in (("heads", self.heads), ("blocks", self.blocks)):
            if part.dtype != torch.bool or part.dim() != 3:
                raise LabError(
                    got=f"{name} of type {part.dtype} and shape {list(part.shape)}",
                    allowed=f"a bool tensor [batch, layers, {name}]",
                    hint="compare scores with a threshold, e.g. heads=scores > 0",
                )
        if self.heads.shape[:2] != self.blocks.shape[:2]:
            raise LabError(
                got=f"heads {list(self.heads.shape)} and blocks {list(self.blocks.shape)}",
                allowed="the same batch and layers in both",
                hint="build both from the same Sensitivity",
            )

    @staticmethod
    def full(anatomy: Anatomy, batch: int = 1) -> Mask:
        """The mask under which every unit runs."""
        return Mask(
            torch.ones(batch, anatomy.num_layers, anatomy.num_heads, dtype=torch.bool),
            torch.ones(batch, anatomy.num_layers, anatomy.num_blocks, dtype=torch.bool),
        )

    @staticmethod
    def stack(masks: Sequence[Mask]) -> Mask:
        """Masks of several inputs as one batch."""
        return Mask(torch.cat([m.heads for m in masks]), torch.cat([m.blocks for m in masks]))

    def __len__(self) -> int:
        """Number of inputs."""
        return len(self.heads)

    def __getitem__(self, rows: int | slice | Sequence[int] | Tensor) -> Mask:
        """The masks of some inputs, still as a batch."""
        if isinstance(rows, int):
            rows = [rows]
        return Mask(self.heads[rows], self.blocks[rows])

    def __or__(self, other: Mask) -> Mask:
        """Units that run under either mask."""
        return Mask(self.heads | other.heads, self.blocks | other.blocks)

    def __and__(self, other: Mask) -> Mask:
        """Units that run under both masks."""
        return Mask(self.heads & other.heads, self.blocks & other.blocks)

    def __invert__(self) -> Mask:
        """Units that do not run."""
        return Mask(~self.heads, ~self.blocks)

    def __repr__(self) -> str:
        """One line, rounded means over the batch."""
        inputs = f"{len(self)} input{'s' if len(self) != 1 else ''}"
        heads, blocks = (part.flatten(1) for part in (self.heads, self.blocks))

        def mean(part: Tensor) -> str:
            return f"{part.float().sum(1).mean():.4g} of {part.shape[1]}"

        return f"Mask of {inputs}: {mean(heads)} heads, {mean(blocks)} blocks run"

    @property
    def keep_share(self) -> Tensor:
        """Share of units that run, heads and blocks counted alike [batch]."""
        return self._flat().float().mean(1)

    def overlap(self, other: Mask) -> Tensor:
        """Units that run under both masks / units that run under either (Jaccard index) [batch]."""
        either = (self | other)._flat().sum(1)
        return (self & other)._flat().sum(1) / either.clamp(min=1)

    def groups(self) -> list[tuple[Mask, list[int]]]:
        """Inputs that share a mask: (mask of batch 1, positions in the batch), in order of first position."""
        if len(self) == 1:
            return [(self, [0])]
        positions: dict[bytes, list[int]] = {}
        for row, key in enumerate(self._flat().to(torch.uint8).cpu().numpy()):
            positions.setdefault(key.tobytes(), []).append(row)
        return [(self[rows[0]], rows) for rows in positions.values()]

    def check_fits(self, anatomy: Anatomy, batch: int | None = None) -> None:
        """Raise LabError unless the mask has the shape of this model (and of this batch, or batch 1)."""
        got = (tuple(self.heads.shape[1:]), tuple(self.blocks.shape[1:]))
        want = ((anatomy.num_layers, anatomy.num_heads), (anatomy.num_layers, anatomy.num_blocks))
        if got != want:
            raise LabError(
                got=f"a mask of heads {list(got[0])} and blocks {list(got[1])} [layers, units]",
                allowed=f"heads {list(want[0])} and blocks {list(want[1])} for this model",
                hint="plan the mask from a Sensitivity of the same model and block size",
            )
        if batch is not None and len(self) not in (1, batch):
            raise LabError(
                got=f"{len(self)} masks for {batch} inputs",
                allowed="one mask for all inputs, or one for each",
                hint="pass mask[0] to use the first one for all",
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain lists of 0 and 1, for JSON."""
        return {"heads": self.heads.int().tolist(), "blocks": self.blocks.int().tolist()}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Mask:
        """Read what `to_dict` wrote."""
        return Mask(torch.tensor(values["heads"]).bool(), torch.tensor(values["blocks"]).bool())

    def _flat(self) -> Tensor:
        return torch.cat([self.heads.flatten(1), self.blocks.flatten(1)], dim=1)
