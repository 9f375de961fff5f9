"""Where requests wait that the queue has no place for yet, and how those are turned away that may not.

A client that is answered 429 at once asks again at once, and with some hundreds of such clients the answers
take the whole event loop from those who are served. So waiting comes before refusing, and beyond some a
second refusals are answered late. Whoever waits for one is asked again at the end: there may be room by then.

Whoever waits may leave. That is found out in time for somebody else to get the place, and not only when it is
their turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from math import inf

import gevent
from gevent.event import Event

from llmrs.collector import Collector
from llmrs.errors import DeadlineExceeded, NotReady, QueueFull
from llmrs.fairqueue import Group
from llmrs.server.porch import Porch

DOOR_SHARE = 0.75
"""Share of the connections beyond which nobody more waits at the door: others are to be refused, and health
checks answered."""

REFUSALS_PER_SECOND = 100
"""As many a second are answered at once. One costs the event loop about a third of a millisecond."""

LATEST_REFUSAL = 5.0
"""Seconds by which a refusal is late at most."""

LOOK_SECONDS = 0.25
"""How often those who wait are looked after. It costs about a microsecond for each of them."""

LOOK_AT_ONCE = 200
"""Of so many, before others get to run."""

LOOK_SHARE = 20
"""Before somebody is turned away, those who wait are looked after as well, if that took less than a twentieth
of the time since the last look."""

DRAIN_SHARE = 0.5
"""Share of `graceful_timeout` for which a process that ends still lets in those at the door."""


HOLD_SECONDS = 5.0
"""How long a place is kept for a request whose body is being read. Who sends for longer asks again: or some
slow uploads would close the queue to all others."""

TURN = "llmrs.turn"
"""Key of the WSGI environ: the `Turn` that its request has waited for."""


class Turn:
    """A place of the queue for a request whose body is still to be read.

    Attributes:
        seconds: how long it was waited for.
    """

    def __init__(self, collector: Collector, group: Group, done: Event, seconds: float) -> None:
        self._collector = collector
        self._group = group
        self._done = done
        self.seconds = seconds
        self._timer = gevent.get_hub().loop.timer(HOLD_SECONDS)
        self._timer.start(self.release)

    def release(self) -> None:
        """Give the place back, unless it was taken. May be called again."""
        self._timer.stop()
        self._timer.close()
        self._collector.cancel(self._group)

    def take(self) -> tuple[Group, Event] | None:
        """The place, with what is set once its group is answered; None if it was held for too long."""
        self._timer.stop()
        return None if self._group.done else (self._group, self._done)


class Door:
    """Lets requests into a collector, one after the other.

    Args:
        seconds: how long a request may wait at the door.
        drain_seconds: how long it may once the process ends.
        draining: whether the process ends.
        crowding: tells the share of the process's connections that have a request in progress.
        porch: where refusals wait.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        collector: Collector,
        seconds: float,
        drain_seconds: float = inf,
        draining: Callable[[], bool] = lambda: False,
        crowding: Callable[[], float] = lambda: 0.0,
        porch: Porch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._collector = collector
        self._seconds = seconds
        self._drain_seconds = drain_seconds
        self._draining = draining
        self._porch = porch or Porch()
        self._clock = clock
        self._next_refusal = 0.0
        self._looking = False
        self._look_again = 0.0
        collector.close_door(lambda: crowding() >= DOOR_SHARE)

    def enter(
        self,
        done: Event,
        deadline: float,
        abandoned: Callable[[], bool] | None = None,
        *,
        n_texts: int = 1,
        n_tokens: int = 1,
    ) -> Group:
        """A place in the queue, waited for if need be.

        `done` is set when the group that is returned is answered; the rest is as `Collector.admit` has it.

        Raises:
            QueueFull: too much waits, or it has waited for too long.
            DeadlineExceeded, NotReady, ClientGone: while it waited.
        """

        wanted = partial(self._collector.try_admit, done.set, deadline, abandoned)
        group = wanted(n_texts=n_texts, n_tokens=n_tokens)
        if group is None:
            now = self._clock()
            self._look_now(now)
            group = wanted(n_texts=n_texts, n_tokens=n_tokens)
        if group is None:
            is_needed = self._porch.wait(self._lateness(now, deadline))
            try:
                group = self._collector.admit(
                    done.set, deadline, abandoned, n_texts=n_texts, n_tokens=n_tokens
                )
            except QueueFull as refusal:
                refusal.closes = is_needed
                raise
        if not self._looking:
            self._looking = True
            gevent.spawn(self._look)
        if group.at_door:
            self._wait(group, done)
        return group

    def turn(self, deadline: float, abandoned: Callable[[], bool] | None, n_tokens: int) -> Turn:
        """A place for a request whose body is not read yet. Raises what `enter` does."""
        done, began = Event(), self._clock()
        group = self.enter(done, deadline, abandoned, n_tokens=n_tokens)
        return Turn(self._collector, group, done, self._clock() - began)

    def _lateness(self, now: float, deadline: float) -> float:
        """Seconds until the refusal that is about to be answered is due."""
        due = max(self._next_refusal, now - 1.0) + 1 / REFUSALS_PER_SECOND
        self._next_refusal = min(due, now + LATEST_REFUSAL)
        return max(0.0, min(due - now, LATEST_REFUSAL, (deadline - now) / 2))

    def _wait(self, group: Group, done: Event) -> None:
        """Until a group that stands at the door is let in, or answered."""
        now = self._clock()
        try:
            if not done.wait(max(0.0, min(self._seconds, group.deadline - now))):
                if self._clock() >= group.deadline:
                    raise DeadlineExceeded("the request waited longer than it may take")
                self._collector.turn_away(group)
            if group.error is not None:
                raise group.error
        except BaseException:
            self._collector.cancel(group)
            raise
        done.clear()

    # -- those who wait -----------------------------------------------------------------------

    def _look_now(self, now: float) -> None:
        """Look after those who wait, unless that was done a moment ago."""
        if now >= self._look_again:
            for group in tuple(self._collector.groups()):
                self._collector.look_after(group)
            self._look_again = now + LOOK_SHARE * (self._clock() - now)

    def _look(self) -> None:
        """Look after those who wait, as long as somebody does."""
        try:
            drain_until = inf
            while self._collector.waiting:
                gevent.sleep(LOOK_SECONDS)
                if drain_until == inf and self._draining():
                    drain_until = self._clock() + self._drain_seconds
                if self._clock() >= drain_until:
                    self._collector.refuse_at_door(_ending)
                for number, group in enumerate(tuple(self._collector.groups())):
                    self._collector.look_after(group)
                    if number % LOOK_AT_ONCE == LOOK_AT_ONCE - 1:
                        gevent.sleep(0)
        finally:
            self._looking = False


def _ending() -> NotReady:
    return NotReady("the server is shutting down", retry_after=1)
