"""Limits of one caller: requests at a time, and requests a second. A caller is the name of a key.

Asked before the body is read, so that who is over the limit costs no more than its head. Only the
routes that compute are wrapped in it; without limits nothing is, and nothing is paid.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import falcon

from llmrs.errors import ConcurrencyLimit, RateLimitExceeded

MAX_CALLERS = 2000
"""Beyond so many names, those without anything to remember are forgotten: a file of keys that is
rewritten again and again must not grow this for ever."""

SMOOTHING = 0.2
"""Weight of the latest request in the average duration of a caller's requests."""


class Posted(Protocol):
    """A resource that answers POST."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None: ...


class Caller:
    """What is remembered of one caller.

    Attributes:
        running: requests in progress.
        tokens: requests it may send at once, as of the time `refilled`.
        seconds: how long its requests take on average; 1 before any is known.
    """

    __slots__ = ("refilled", "running", "seconds", "tokens")

    def __init__(self, tokens: float, now: float) -> None:
        self.running = 0
        self.tokens = tokens
        self.refilled = now
        self.seconds = 1.0


class Quotas:
    """The limits, and where every caller stands.

    Args:
        concurrency: most requests of one caller in progress; 0: any number.
        rate: requests a second of one caller; 0: any number. What a caller leaves unused it may
            send at once later, up to what a second gives, but always one.
    """

    def __init__(self, concurrency: int, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._concurrency = concurrency
        self._rate = rate
        self._burst = max(1.0, rate)
        self._clock = clock
        self._callers: dict[str, Caller] = {}

    @contextmanager
    def place(self, name: str | None) -> Iterator[None]:
        """A place for one request of a caller, given back whatever becomes of it.

        Nobody is limited without a name, because without keys there is nobody to tell apart.

        Raises:
            ConcurrencyLimit: as many requests of the caller as may are in progress.
            RateLimitExceeded: it has sent more requests than its rate allows.
        """
        if name is None:
            yield
            return
        began = self._clock()
        caller = self._admit(name, began)
        try:
            yield
        finally:
            caller.running -= 1
            caller.seconds += SMOOTHING * (self._clock() - began - caller.seconds)

    def _admit(self, name: str, now: float) -> Caller:
        caller = self._callers.get(name)
        if caller is None:
            if len(self._callers) >= MAX_CALLERS:
                self._forget(now)
            caller = self._callers[name] = Caller(self._burst, now)
        # A refusal for the one reason must not cost what the other counts.
        if self._concurrency and caller.running >= self._concurrency:
            raise ConcurrencyLimit(
                f"this API key has {self._concurrency} requests in progress, as many as it may have",
                retry_after=caller.seconds / self._concurrency,
            )
        if self._rate:
            self._refill(caller, now)
            if caller.tokens < 1.0:
                raise RateLimitExceeded(
                    f"this API key has sent more than its {self._rate:g} requests a second",
                    retry_after=(1.0 - caller.tokens) / self._rate,
                )
            caller.tokens -= 1.0
        caller.running += 1
        return caller

    def _refill(self, caller: Caller, now: float) -> None:
        caller.tokens = min(self._burst, caller.tokens + (now - caller.refilled) * self._rate)
        caller.refilled = now

    def _forget(self, now: float) -> None:
        """Drop the callers that would start anew with just what they have."""
        for name, caller in list(self._callers.items()):
            self._refill(caller, now)
            if not caller.running and caller.tokens >= self._burst:
                del self._callers[name]


class Limited:
    """A resource whose POST needs a place within the caller's limits."""

    def __init__(self, resource: Posted, quotas: Quotas) -> None:
        self._resource = resource
        self._quotas = quotas

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        with self._quotas.place(req.context.key_name):
            self._resource.on_post(req, resp)
