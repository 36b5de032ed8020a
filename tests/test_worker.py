"""The worker thread of a panel: newest first, nothing stale, nothing after the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dsgp_lab.exploration_results import Cancelled
from dsgp_lab.panels import Worker


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    made.close()


def fail(error: BaseException) -> None:
    raise AssertionError(f"unexpected {error!r}")


def test_only_the_newest_of_waiting_jobs_runs(worker: Worker) -> None:
    ran: list[int] = []
    for number in range(5):
        worker.submit(lambda _, n=number: n, ran.append, fail, delay=0.05)
    assert worker.wait(5)
    assert ran == [4]


def test_the_result_of_a_job_that_was_overtaken_is_dropped(worker: Worker) -> None:
    started, go_on = threading.Event(), threading.Event()
    seen: list[Any] = []
    told: list[bool] = []

    def slow(stale: Callable[[], bool]) -> str:
        started.set()
        go_on.wait(5)
        told.append(stale())
        return "old"

    worker.submit(slow, seen.append, fail)
    assert started.wait(5)
    worker.submit(lambda _: "new", seen.append, fail)
    go_on.set()
    assert worker.wait(5)
    assert (seen, told) == (["new"], [True])


def test_a_job_that_gives_up_says_nothing_and_an_error_is_handed_over(worker: Worker) -> None:
    errors: list[BaseException] = []

    def give_up(_: Callable[[], bool]) -> None:
        raise Cancelled

    worker.submit(give_up, fail, fail)
    assert worker.wait(5)
    worker.submit(lambda _: 1 / 0, fail, errors.append)
    assert worker.wait(5)
    assert [type(error) for error in errors] == [ZeroDivisionError]


def test_submitting_does_not_wait_for_the_job(worker: Worker) -> None:
    start = time.perf_counter()
    worker.submit(lambda _: time.sleep(0.5), lambda _: None, fail)
    assert time.perf_counter() - start < 0.25
    assert worker.wait(5)


def test_closing_ends_the_thread_and_drops_everything() -> None:
    worker = Worker("to be closed")
    started, go_on = threading.Event(), threading.Event()
    seen: list[Any] = []

    def slow(_: Callable[[], bool]) -> str:
        started.set()
        go_on.wait(5)
        return "late"

    worker.submit(slow, seen.append, fail)
    assert started.wait(5)
    threading.Timer(0.1, go_on.set).start()
    worker.close()
    worker.submit(lambda _: "after the end", seen.append, fail)
    (thread,) = [t for t in threading.enumerate() if t.name == "to be closed"] or [threading.current_thread()]
    if thread is not threading.current_thread():
        thread.join(5)
    assert seen == []
    assert not any(t.name == "to be closed" for t in threading.enumerate())
