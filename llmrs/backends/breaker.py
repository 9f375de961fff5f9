"""Whether one backend may be asked: a circuit breaker that a trial closes, never a client's batch.

Closed, batches flow and their outcomes are counted. Too many failures open it. An open one lets nothing
through until its back-off has passed; then it is half open for a single trial, which closes it or opens
it for longer. A new one is open and its trial due: nothing goes to a backend nobody has spoken with.

A state machine on an injected clock and random source: no I/O, no lock (its owner has one).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal

State = Literal["closed", "open", "half-open"]

FAILURES = 5
"""Failures in a row that open it: Envoy's default (`consecutive_5xx`), and one more than the batches which
are usually in flight, so that one broken moment, in which all of those fail, is forgiven."""

WINDOW = 20
FAILED_SHARE = 0.5
"""It opens as well when this share of the last WINDOW outcomes are failures: for a backend that answers
now and then. Resilience4j's and Hystrix' share; 20 are Hystrix' least number to judge by."""

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 10.0
"""Seconds until the trial, doubled with every opening. The cap bounds how late a recovery is noticed; a
trial is a few small requests, which a backend bears every ten seconds."""

STABLE_SECONDS = 60.0
"""After so long a time closed, the pause starts from the beginning: a backend that flaps waits longer
each time."""


class Breaker:
    """The state of one backend. `random` gives a number in [0, 1)."""

    def __init__(self, clock: Callable[[], float], random: Callable[[], float]) -> None:
        self.state: State = "open"
        self.failures = 0.0
        """Failures since the last success; one that the batch may be to blame for counts half."""
        self._clock = clock
        self._random = random
        self._due = clock()
        self._closed_at = clock()
        self._openings = 0
        self._outcomes: deque[float] = deque(maxlen=WINDOW)

    def success(self) -> None:
        """A batch was answered. Of those that began before it opened, none closes it."""
        if self.state == "closed":
            self.failures = 0.0
            self._outcomes.append(0.0)

    def failure(self) -> bool:
        """A batch failed; returns whether that opened it."""
        if self.state != "closed":
            return False
        self.failures += 1.0
        self._outcomes.append(1.0)
        if self.failures >= FAILURES or sum(self._outcomes) >= WINDOW * FAILED_SHARE:
            self.open()
            return True
        return False

    def halve_failure(self) -> None:
        """The last failure may be the batch's fault."""
        if self.state == "closed" and self.failures:
            self.failures -= 0.5
            self._outcomes[-1] = 0.5

    def open(self, pause: float | None = None) -> None:
        """Let nothing through for `pause` seconds, or for the back-off."""
        if self.state == "closed" and self._clock() - self._closed_at >= STABLE_SECONDS:
            self._openings = 0
        if pause is None:
            pause = min(FIRST_PAUSE * 2.0 ** min(self._openings, 30), LONGEST_PAUSE)
            self._openings += 1
        # Half of it is random, so that many gateways do not come back to a backend at one moment.
        self._due = self._clock() + pause * (0.5 + 0.5 * self._random())
        self.state = "open"
        self.failures = 0.0
        self._outcomes.clear()

    def begin_trial(self) -> bool:
        """Whether the caller may try the backend now; it then has to call `close` or `open`."""
        if self.state != "open" or self._clock() < self._due:
            return False
        self.state = "half-open"
        return True

    def close(self) -> None:
        """The trial was passed."""
        self.state = "closed"
        self._closed_at = self._clock()
