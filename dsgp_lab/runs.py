"""Runs: kept units that lie side by side, and the groups of columns that no run crosses."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import groupby

Kept = tuple[bool, ...]
"""Which units of a part run."""

Run = tuple[int, int]
"""First unit and the one after the last."""

GROUP_COLUMNS = 768
"""Most columns in a group. Measured in float32 on one thread, weights not in the cache, two groups of 6 heads
or blocks against one of 12: the dense products took 0.94 of the time at 25 tokens and 0.99 at 128, those of a
random half of the units 0.89 and 0.98. Groups of 3 or 4 made the dense run slower at 128 tokens."""


@lru_cache(maxsize=4096)
def runs(kept: Kept, group: int | None = None) -> tuple[Run, ...]:
    """Neighbouring kept units as half-open intervals, none of which crosses a multiple of `group`.

    >>> runs((True, True, False, True))
    ((0, 2), (3, 4))
    >>> runs((True, True, True, False), group=2)
    ((0, 2), (2, 3))
    >>> runs((False, False))
    ()
    """
    group = group or len(kept) or 1
    found = []
    for first in range(0, len(kept), group):
        position = first
        for keep, same in groupby(kept[first : first + group]):
            length = sum(1 for _ in same)
            if keep:
                found.append((position, position + length))
            position += length
    return tuple(found)


def group_size(units: int, columns: int) -> int:
    """Units in each group, if a unit has so many columns; the last group may have fewer.

    >>> group_size(12, columns=96), group_size(12, columns=128), group_size(7, columns=128)
    (6, 6, 4)
    """
    groups = max(1, math.ceil(units / max(1, GROUP_COLUMNS // columns)))
    return max(1, math.ceil(units / groups))


def fewest_pieces(units: int, columns: int) -> int:
    """How many groups a copy of so many units has.

    >>> fewest_pieces(6, columns=96), fewest_pieces(7, columns=128), fewest_pieces(0, columns=128)
    (1, 2, 0)
    """
    return math.ceil(units / group_size(units, columns))
