"""Where those wait who will be refused, for as long as nobody else needs their connections.

A refusal that is answered late keeps a client from asking again, and costs a connection. When the process has
no more of those and somebody waits to be accepted, maybe a health check, the oldest refusals are answered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import gevent
from gevent.event import Event

LOOK_SECONDS = 0.05
"""How often it is looked whether connections are needed, while somebody waits here."""


class Porch:
    """A line of requests that are going to be refused.

    Attributes:
        needed: tells how many connections others wait for.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[Event, None] = OrderedDict()
        self.needed: Callable[[], int] = lambda: 0

    def wait(self, seconds: float) -> bool:
        """Wait for so long, or until the connection is needed, and whether it is."""
        if seconds <= 0.0:
            return False
        if not self._waiting:
            gevent.spawn(self._look)
        called = Event()
        self._waiting[called] = None
        try:
            return bool(called.wait(seconds))
        finally:
            self._waiting.pop(called, None)

    def _look(self) -> None:
        while self._waiting:
            for _ in range(min(self.needed(), len(self._waiting))):
                self._waiting.popitem(last=False)[0].set()
            gevent.sleep(LOOK_SECONDS)
