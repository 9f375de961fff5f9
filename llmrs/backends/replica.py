"""One of several backends of the same model: how it is, and how much of the work it may have.

A record with the rules of its own share. Whoever changes it holds the pool's lock; what is asked for a
page or a log is read without.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

from llmrs.backends.base import ReplicaState
from llmrs.backends.breaker import Breaker
from llmrs.backends.http import HttpBackend
from llmrs.embeddings import Matrix

log = logging.getLogger("llmrs.backend")

RAMP_SECONDS = 10.0
"""After a recovery its share grows from one batch to all in this time: caches are cold, and whatever brought
it down may do so again. Long against a batch, short against an outage."""

RECHECK_SECONDS = 30.0
"""Until a backend that serves another model is asked again: that mends itself only by somebody's hand."""


class Replica:
    """A backend with its breaker and its counts.

    Attributes:
        print: its fingerprint when it was last tried.
        refusal: why its vectors are not its peers'.
        reason: why it is not used.
        doubted: whether something made it worth a look.
        alive_at: when it last answered anything.
        proved_at: when it last embedded the fixed texts.
        running, tries, failures: batches in flight; sent so far; failed of those.
    """

    def __init__(
        self, backend: HttpBackend, slots: int, clock: Callable[[], float], random: Callable[[], float]
    ) -> None:
        self.backend = backend
        self.breaker = Breaker(clock, random)
        self.print: Matrix | None = None
        self.refusal: str | None = None
        self.reason: str | None = None
        self.doubted = False
        self.alive_at = self.proved_at = float("-inf")
        self.running = self.tries = self.failures = 0
        self._slots = slots
        self._clock = clock
        self._paused_until = float("-inf")
        self._ramps_since = float("-inf")

    @property
    def url(self) -> str:
        return self.backend.address

    @property
    def in_service(self) -> bool:
        """Whether batches may go to it, if not at this moment."""
        return self.breaker.state == "closed"

    @property
    def pause(self) -> float:
        """Seconds until it wants to be asked again, as it said itself."""
        return max(0.0, self._paused_until - self._clock())

    @property
    def share(self) -> int:
        """How many batches it may have in flight now.

        Only one after a failure, until it succeeds again: a backend that fails at once is always the
        least loaded and would get the most.
        """
        if not self.in_service or self.pause:
            return 0
        if self.breaker.failures:
            return 1
        ramped = (self._clock() - self._ramps_since) / RAMP_SECONDS
        return self._slots if ramped >= 1 else 1 + int((self._slots - 1) * ramped)

    @property
    def state(self) -> ReplicaState:
        word: Literal["up", "down", "refused", "unknown"] = "down"
        if self.in_service:
            word = "up"
        elif self.refusal:
            word = "refused"
        elif self.reason is None:
            word = "unknown"
        reason = self.refusal or self.reason
        circuit, share = self.breaker.state, self.share
        return ReplicaState(self.url, word, reason, circuit, self.running, share, self.tries, self.failures)

    # -- what its batches and checks say ----------------------------------------------------------

    def succeed(self) -> None:
        self.alive_at = self._clock()
        self.breaker.success()

    def fail(self, reason: str, *, counts: bool = True) -> None:
        """A batch failed. It does not count if the replica had hardly any time for it."""
        self.failures += 1
        if counts:
            self.count_failure(reason)

    def count_failure(self, reason: str) -> None:
        """One of the failures of which many take it out of service."""
        self.doubted = True  # by now something else may be at its address
        if self.breaker.failure():
            log.warning("backend %s down: %s", self.url, reason)
            self._go_down(reason)

    def wait(self, seconds: float) -> None:
        """It is busy, and asks not to be asked for so long."""
        self.alive_at = self._clock()
        self._paused_until = self._clock() + seconds

    def take_out(self, reason: str) -> None:
        """A trial or a check failed."""
        if self.in_service or self.reason is None:
            log.warning("backend %s down: %s", self.url, reason)
        self.breaker.open()
        self._go_down(reason)

    def refuse(self, reason: str) -> None:
        """It serves another model than its peers."""
        if reason != self.refusal:
            log.error("backend %s is refused: %s", self.url, reason)
        self.breaker.open(RECHECK_SECONDS)
        self.refusal = reason

    def embedded(self, found: Matrix) -> None:
        """It gave the fixed texts' vectors, whosever they are."""
        self.print = found
        self.proved_at = self.alive_at = self._clock()
        self.doubted = False
        self.breaker.success()

    def take_in(self) -> None:
        """Its vectors are its peers'."""
        if not self.in_service:
            if self.reason or self.refusal:  # it was away, and comes to others that are at work
                self._ramps_since = self._clock()
                log.info("backend %s is up", self.url)
            self.breaker.close()
        self.refusal = self.reason = None

    def _go_down(self, reason: str) -> None:
        self.print = self.refusal = None
        self.reason = reason
