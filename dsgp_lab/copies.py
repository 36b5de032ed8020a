"""Copies of kept weights for masks that come again: a cache with a limit on its bytes.

Copying a layer's kept weights together takes longer than it saves in one run. But masks repeat: under a
router most layers see a handful of different ones. So a mask that comes a second time gets a copy, and from
then on its layer runs one product a side instead of one a run of units.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeVar

Copy = TypeVar("Copy")

COUNTED = 4096
"""Keys whose uses are counted; all counts are halved, and those at 0 forgotten, when they get more."""


@dataclass(frozen=True)
class CopyStatistics:
    """What a cache did: lookups that found a copy, copies made, and the bytes it holds within its limit."""

    found: int
    made: int
    held_bytes: int
    limit_bytes: int


@dataclass(slots=True)
class _Entry(Generic[Copy]):
    copy: Copy
    size: int
    uses: int


class Copies(Generic[Copy]):
    """Copies by key within `limit_bytes`; a key gets one when it comes often enough.

    When the cache is full, the least used copy makes room only for a key that is used twice as often: many
    masks that each come a few times never drive out the few that come all the time (as TinyLFU, Einziger et
    al. 2017), and two that come equally often do not drive out each other.

    >>> copies = Copies(limit_bytes=100)
    >>> [copies.get("a", size_bytes=lambda: 60, make=lambda: "copy of a") for _ in range(3)]
    [None, 'copy of a', 'copy of a']
    >>> [copies.get("b", size_bytes=lambda: 60, make=lambda: "copy of b") for _ in range(2)]
    [None, None]
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._copies: dict[Hashable, _Entry[Copy]] = {}
        self._uses: dict[Hashable, int] = {}
        self._found = self._made = self._held = 0
        self._lock = Lock()

    def find(self, key: Hashable) -> Copy | None:
        """The key's copy if there is one; else nothing is counted or made. Threads may share it."""
        entry = self._copies.get(key)
        if entry is None:
            return None
        entry.uses += 1
        self._found += 1
        return entry.copy

    def get(self, key: Hashable, size_bytes: Callable[[], int], make: Callable[[], Copy]) -> Copy | None:
        """The key's copy, made now if it is due; None if it has none yet. Threads may share it."""
        found = self.find(key)
        if found is None:
            with self._lock:
                found = self._missed(key, size_bytes, make)
        return found

    def _missed(self, key: Hashable, size_bytes: Callable[[], int], make: Callable[[], Copy]) -> Copy | None:
        if key in self._copies:  # another thread has made it in between
            return self.find(key)
        uses = self._uses[key] = self._uses.get(key, 0) + 1
        if uses < 2:
            if len(self._uses) > COUNTED:
                self._uses = {each: count // 2 for each, count in self._uses.items() if count > 1}
            return None
        size = size_bytes()
        if size > self.limit_bytes or not self._make_room(size, uses):
            return None
        self._copies[key] = _Entry(make(), size, self._uses.pop(key))
        self._made += 1
        self._held += size
        return self._copies[key].copy

    def statistics(self) -> CopyStatistics:
        """What the cache has done so far."""
        return CopyStatistics(self._found, self._made, self._held, self.limit_bytes)

    def clear(self) -> None:
        """Forget all copies and counts."""
        self.__init__(self.limit_bytes)  # type: ignore[misc]

    def _make_room(self, size: int, uses: int) -> bool:
        """Drop less used copies until so many bytes fit; False, and nothing dropped, if they would not."""
        free = self.limit_bytes - self._held
        if free >= size:
            return True
        less_used = [item for item in self._copies.items() if 2 * item[1].uses <= uses]
        if free + sum(entry.size for _, entry in less_used) < size:
            return False
        for key, entry in sorted(less_used, key=lambda item: item[1].uses):
            if free < size:
                self._uses[key] = self._copies.pop(key).uses
                self._held -= entry.size
                free += entry.size
        return True
