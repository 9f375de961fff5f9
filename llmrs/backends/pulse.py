"""Whether a backend embeds at all, which tells a text it fails on from an outage.

After a failure the backend is asked for the vector of one short fixed text, by one caller for all. What is
known already is not asked again: an answer that came while the failed call was under way proves as much, and
a proof holds for a few more failures, because the parts of a batch with a bad text fail in a row. So an
outage costs one more call a second, and finding a text costs hardly more than the parts themselves.

Knows time and no network: how to ask is handed in.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

PROVED_SECONDS = 10.0
"""How long a proof is believed: about the time in which the parts of a failed batch come back."""

CREDIT = 3
"""Failures in a row that a proof excuses. A backend that dies meanwhile is found out by the next one."""

SILENT_SECONDS = 1.0
"""Until a backend that did not embed is asked again."""

NEVER = float("-inf")


class Pulse:
    """What is known about one backend. Safe to share between threads and between greenlets."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answered_at = self._proved_at = self._silent_at = NEVER
        self._credit = 0
        self._asking = threading.Lock()

    def beat(self) -> None:
        """The backend embedded something."""
        self._answered_at = self._clock()
        self._silent_at = NEVER
        self._credit = CREDIT

    def lives(self, began: float, ask: Callable[[], bool], *, anew: bool = False) -> bool:
        """Whether the backend embeds other texts than those it failed on in a call that began at `began`.

        Args:
            ask: embeds the fixed text, and says whether that went well.
            anew: whether nothing but an answer to this very question counts.
        """
        known = self._known(began, anew)
        if known is None:
            with self._asking:
                known = self._known(began, anew)
                if known is None:
                    known = self._ask(ask)
        return known

    def _known(self, began: float, anew: bool) -> bool | None:
        now = self._clock()
        if now - self._silent_at < SILENT_SECONDS:
            return False
        if anew:
            return None
        if self._answered_at > began:
            return True
        if self._credit and now - self._proved_at < PROVED_SECONDS:
            self._credit -= 1
            return True
        return None

    def _ask(self, ask: Callable[[], bool]) -> bool:
        lives = ask()
        if lives:
            self.beat()
            self._proved_at = self._answered_at
        else:
            self._silent_at = self._clock()
            self._answered_at = self._proved_at = NEVER
        return lives
