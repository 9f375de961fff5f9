"""How many batches may be tried again: a token bucket, so that retries never multiply an outage.

Every batch pays in a part of a retry, every retry takes a whole one out. While a single backend fails, there
is enough for all of its batches; when all fail, the load that retries add stays a small part of the whole.
After Finagle's RetryBudget (https://finagle.github.io/blog/2016/02/08/retry-budgets) and Envoy's
`retry_budget`, which allow 20 % of the requests, too.
"""

from __future__ import annotations

from collections.abc import Callable

SHARE = 0.2
"""Retries per batch: Finagle's and Envoy's default."""

PER_SECOND = 2.0
"""Retries a second beside those, for services with few batches. Finagle's 10 are meant for requests, of which
a batch carries dozens."""


class RetryBudget:
    """A bucket that is full at first.

    Args:
        capacity: most retries at once. When a backend dies, all its batches in flight fail in one moment
            and none of them shall be lost, so it is at least their number.
    """

    def __init__(self, capacity: float, clock: Callable[[], float]) -> None:
        self._capacity = capacity
        self._clock = clock
        self._tokens = float(capacity)
        self._filled_at = clock()

    def pay_in(self) -> None:
        """A batch begins."""
        self._tokens = min(self._capacity, self._tokens + SHARE)

    def take(self) -> bool:
        """Whether a batch may be tried once more."""
        now = self._clock()
        self._tokens = min(self._capacity, self._tokens + (now - self._filled_at) * PER_SECOND)
        self._filled_at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
