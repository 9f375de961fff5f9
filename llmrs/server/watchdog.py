"""Notices computing that does not come back or does not work any more, and ends the process for it.

A native call cannot be interrupted: a thread that hangs in the engine hangs for ever, and holds a slot and
a core. What a model that has failed gives cannot be trusted, nor what is compiled in its place while memory
is short. So the service first says that it is not ready, which lets a load balancer go elsewhere and what
else is being computed finish, and then ends: its supervisor, gunicorn's master, starts another worker.
A hub that hangs itself is that master's business: it misses the worker's heartbeat.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

import gevent

from llmrs.backends.base import Backend
from llmrs.collector import Collector

log = logging.getLogger("llmrs.server")

CHECK_SECONDS = 1.0

GRACE_SECONDS = 10.0
"""Between being not ready for a hang and the end. Load balancers ask every few seconds."""

BROKEN_GRACE_SECONDS = 1.0
"""The same for a broken model, of which nothing comes any more; other models have work that ends."""


def end_process() -> None:
    """End this worker at once, whatever its threads do; its master starts another one."""
    logging.shutdown()
    os._exit(1)  # not 3 or 4, with which the master would end, too


class Watchdog:
    """Watches one computing backend.

    Args:
        seconds: a step of computing that takes longer hangs; 0: never.
        end: called once the grace has passed.

    Attributes:
        reason: why the model is not ready, None while nothing hangs or is broken.
    """

    def __init__(
        self,
        backend: Backend,
        collector: Collector,
        seconds: float,
        end: Callable[[], None] = end_process,
    ) -> None:
        self._backend = backend
        self._collector = collector
        self._seconds = seconds
        self._end = end
        self._watching: gevent.Greenlet[[], None] | None = None
        self._broken_since: float | None = None
        self.reason: str | None = None

    def watch(self) -> None:
        """Look once a second from now on, in a greenlet of its own."""
        if self._backend.waits_on == "cpu":
            self._watching = gevent.spawn(self._watch)

    def close(self) -> None:
        """Look no more."""
        if self._watching is not None:
            self._watching.kill(block=False)

    def check(self, now: float) -> None:
        """Look whether something hangs or is broken; `now` is a reading of time.monotonic()."""
        if self._backend.is_broken:
            self._check_broken(now)
        elif self._seconds:
            self._check_hanging(now)

    def _check_broken(self, now: float) -> None:
        if self._broken_since is None:
            self._broken_since = now
            self.reason = "the model has failed and must be loaded again"
            log.critical("%s; the process ends in %g s", self.reason, BROKEN_GRACE_SECONDS)
        elif now - self._broken_since >= BROKEN_GRACE_SECONDS:
            log.critical("the process ends, for another one to load the model")
            self._end()

    def _check_hanging(self, now: float) -> None:
        hangs_for = now - self._began(now) - self._seconds
        if hangs_for < 0:
            if self.reason is not None:
                log.warning("the model computes again")
            self.reason = None
            return
        if self.reason is None:
            self.reason = "the model hangs: it has been computing for too long"
            log.critical(
                "%s (more than %g s, hang_timeout); the process ends in %g s unless it comes back",
                self.reason, self._seconds, GRACE_SECONDS,
            )  # fmt: skip
        if hangs_for >= GRACE_SECONDS:
            log.critical("the model has not come back: the process ends")
            self._end()

    def _began(self, now: float) -> float:
        """When the oldest step under way began.

        A backend that cannot tell should at least have given up a batch at its deadline.
        """
        began = self._backend.computing_since()
        deadline = self._collector.oldest_deadline if began is None else None
        return min(now if began is None else began, now if deadline is None else deadline)

    def _watch(self) -> None:
        while True:
            gevent.sleep(CHECK_SECONDS)
            self.check(time.monotonic())
