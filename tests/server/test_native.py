"""The call at the hub's idle moment."""

from __future__ import annotations

import time

import gevent
from gevent.event import Event

from llmrs.server.native import LONGEST_WAIT, IdleCall


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
