"""Keys and values of the tokens so far, so that decoding need not read them again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(eq=False)
class KVCache:
    """Keys and values of kept KV groups only; a layer without one has none.

    pairs: a layer [batch, groups, 2, capacity, head_dim], key and value side by side, so that a token writes
    both at once; real [batch, capacity]: which columns are tokens; positions [batch]: real tokens so far;
    length: columns in use; padded: whether some column in use is padding.
    """

    pairs: list[Tensor]
    real: Tensor
    positions: Tensor
    length: int = 0
    padded: bool = False

    @staticmethod
    def empty(
        groups: list[int], batch: int, capacity: int, head_dim: int, device: torch.device, dtype: torch.dtype
    ) -> KVCache:
        """Room for `capacity` columns in layers of so many kept groups.

        >>> cache = KVCache.empty([2, 0], 1, 5, 4, torch.device("cpu"), torch.float32)
        >>> [keys.shape[1] for keys in cache.keys], cache.num_bytes
        ([2, 0], 0)
        """
        shape = (2, capacity, head_dim)
        return KVCache(
            pairs=[torch.zeros(batch, count, *shape, device=device, dtype=dtype) for count in groups],
            real=torch.zeros(batch, capacity, dtype=torch.bool, device=device),
            positions=torch.zeros(batch, dtype=torch.long, device=device),
        )

    @property
    def keys(self) -> list[Tensor]:
        """The keys alone, a layer [batch, groups, capacity, head_dim]."""
        return [pair[:, :, 0] for pair in self.pairs]

    @property
    def num_bytes(self) -> int:
        """Size of the part in use."""
        return round(self.length / self.real.shape[1] * sum(pair.nbytes for pair in self.pairs))

    def start(self, real: Tensor, positions: Tensor) -> None:
        """The prompt's columns: real [batch, tokens], and real tokens of each input [batch]."""
        self.length, self.padded = real.shape[1], not bool(real.all())
        self.real[:, : self.length] = real
        self.positions = positions

    def grow(self) -> tuple[int, Tensor]:
        """One real column more for each input: the column, and the new tokens' positions [batch, 1]."""
        column, positions = self.length, self.positions[:, None]
        self.real[:, column] = True
        self.length, self.positions = column + 1, self.positions + 1
        return column, positions

    def seen(self, window: int | None) -> Tensor | None:
        """What the newest token may look at [batch, 1, 1, length]; None where that is everything."""
        if not self.padded and (window is None or self.length <= window):
            return None
        seen = self.real[:, : self.length].clone()
        if window is not None:
            seen[:, : max(0, self.length - window)] = False
        return seen[:, None, None, :]
