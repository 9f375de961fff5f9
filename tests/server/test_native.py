"""The call at the hub's idle moment."""

from __future__ import annotations

import os
import time

import gevent
import pytest
from gevent.event import Event

from llmrs.server.native import LONGEST_WAIT, IdleCall, NativeThreads


def test_it_comes_after_everything_that_is_ready() -> None:
    order: list[str] = []
    called = Event()
    call = IdleCall(lambda: [order.append("call"), called.set()])
    call.ask()
    call.ask()
    ready = [gevent.spawn(order.append, f"greenlet {number}") for number in range(3)]
    assert called.wait(5)
    gevent.joinall(ready)
    gevent.sleep(2 * LONGEST_WAIT)
    assert order == ["greenlet 0", "greenlet 1", "greenlet 2", "call"]


def test_a_hub_that_is_never_idle_does_not_put_it_off_for_ever() -> None:
    called = Event()
    flood = gevent.get_hub().loop.timer(1e-6, 1e-6)  # always due again: no iteration is idle
    flood.start(lambda: time.sleep(2e-5))
    try:
        IdleCall(called.set).ask()
        assert called.wait(50 * LONGEST_WAIT)
    finally:
        flood.stop()
        flood.close()


def test_threads_report_what_is_under_way_and_end() -> None:
    before = threading_count()
    threads = NativeThreads(3)
    done: list[int] = []
    for number in range(6):
        threads.submit(
            lambda number=number: time.sleep(0.02) or number, lambda result, error: done.append(result)
        )
    threads.close()
    gevent.sleep(0.3)
    assert sorted(done) == list(range(6))
    assert threading_count() == before


def threading_count() -> int:
    """Threads of this process, also those that Python's threading does not know."""
    return len(os.listdir("/proc/self/task"))


def test_a_thread_raises_where_its_result_is_waited_for() -> None:
    threads = NativeThreads(1)
    try:
        with pytest.raises(ZeroDivisionError):
            threads.run(lambda: 1 / 0)
        assert threads.run(lambda: 7) == 7
    finally:
        threads.close()
