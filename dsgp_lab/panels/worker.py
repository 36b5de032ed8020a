"""One worker thread for a panel: the newest job of a kind counts, older ones are dropped.

The kernel's own thread never waits: a job runs in the worker, and what it gave is handed back to the
kernel's event loop, where widgets may be changed. Without an event loop (in a script, in a test) it is
handed over in the worker thread itself.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dsgp_lab.exploration_results import Cancelled

JOIN_SECONDS = 1.0
"""Longest that closing waits for a running job."""

Job = Callable[[Callable[[], bool]], Any]
"""Takes a function that says whether the job is stale; returns its result or raises."""


@dataclass(frozen=True)
class _Entry:
    number: int
    due: float
    job: Job
    done: Callable[[Any], None]
    failed: Callable[[BaseException], None]


class Worker:
    """Runs jobs one at a time; `submit` makes every job submitted before it stale.

    `delay` seconds pass before a job starts, so that a slider that is being dragged starts only one.
    """

    def __init__(self, name: str = "panel") -> None:
        self._condition = threading.Condition()
        self._pending: _Entry | None = None
        self._newest = 0
        self._busy = False
        self._closed = False
        self._deliver = _delivery()
        self._thread: threading.Thread | None = None
        self._name = name

    def submit(
        self,
        job: Job,
        done: Callable[[Any], None],
        failed: Callable[[BaseException], None],
        delay: float = 0.0,
    ) -> None:
        """Run a job after `delay` seconds, unless another is submitted before; then `done` or `failed`."""
        with self._condition:
            if self._closed:
                return
            self._newest += 1
            self._pending = _Entry(self._newest, time.monotonic() + delay, job, done, failed)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()
                atexit.register(self.close)  # a thread inside torch must not outlive the interpreter
            self._condition.notify_all()

    def tell(self, stale: Callable[[], bool], receiver: Callable[[Any], None], value: Any) -> None:
        """Hand over something on the way, from inside a job; dropped once the job is stale."""
        self._deliver(lambda: None if stale() else receiver(value))

    def cancel(self) -> None:
        """Make every job submitted so far stale."""
        with self._condition:
            self._newest += 1
            self._pending = None
            self._condition.notify_all()

    def close(self) -> None:
        """Stop for good; a running job is told that it is stale, and its result is dropped."""
        with self._condition:
            self._closed = True
            self._pending = None
            self._newest += 1
            self._condition.notify_all()
        atexit.unregister(self.close)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(JOIN_SECONDS)

    def wait(self, timeout: float = 60.0) -> bool:
        """Wait until nothing is running or due; True if that came about within `timeout` seconds.

        Not for the kernel's event loop, whose results are handed over only when it is free.
        """
        with self._condition:
            return self._condition.wait_for(lambda: not self._busy and self._pending is None, timeout)

    def _work(self) -> None:
        while True:
            with self._condition:
                entry = self._next()
                if entry is None:
                    return
                self._pending, self._busy = None, True
            try:
                self._run(entry)
            finally:
                with self._condition:
                    self._busy = False
                    self._condition.notify_all()

    def _next(self) -> _Entry | None:
        """The pending job once it is due; None when the worker is closed."""
        while not self._closed:
            if self._pending is None:
                self._condition.wait()
                continue
            left = self._pending.due - time.monotonic()
            if left <= 0:
                return self._pending
            self._condition.wait(left)
        return None

    def _run(self, entry: _Entry) -> None:
        def stale() -> bool:
            return self._closed or entry.number != self._newest

        def hand_over(receiver: Callable[[Any], None], value: Any) -> None:
            if not stale():
                receiver(value)

        try:
            result = entry.job(stale)
        except Cancelled:
            return
        except Exception as error:
            self._deliver(hand_over, entry.failed, error)
        else:
            self._deliver(hand_over, entry.done, result)


def _delivery() -> Callable[..., None]:
    """How to call a function where widgets may be changed: in the running event loop, or at once."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return lambda function, *arguments: function(*arguments)

    def later(function: Callable[..., None], *arguments: Any) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(function, *arguments)

    return later
