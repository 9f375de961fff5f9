"""How many calls a backend takes at a time, learnt from its answers: halved by each 429, then grown again.

A backend that is full says so to whoever comes next. That is no news for a client, who asked for vectors:
the calls wait here, fewer at a time, and their texts make larger batches meanwhile.
"""

from __future__ import annotations


class Room:
    """Calls that may be in flight: `slots` at most, one at least."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._calls = float(slots)

    @property
    def calls(self) -> int:
        """How many now."""
        return int(self._calls)

    def full(self) -> None:
        """The backend refused a call as one too many."""
        self._calls = max(1.0, self._calls / 2)

    def took(self) -> None:
        """The backend answered a call. As many as are allowed at a time make room for one more."""
        self._calls = min(self._slots, self._calls + 1 / self._calls)
