"""Tells the log that texts were cut: at once the first time, then once a minute with their count."""

from __future__ import annotations

import logging
from collections.abc import Callable

import gevent

log = logging.getLogger("llmrs.server")

SECONDS = 60.0
"""Between two lines of one model."""


class CutsLog:
    """Counts the cut texts of one model, whose `name` may change."""

    def __init__(self, name: Callable[[], str]) -> None:
        self._name = name
        self._count = 0
        self._timer: gevent.Greenlet | None = None

    def count(self, texts: int) -> None:
        """So many more texts of an answer were cut."""
        self._count += texts
        if self._timer is None:
            self._tell()

    def close(self) -> None:
        """Tell what was not told yet, and stop."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.kill(block=False)
        if self._count:
            self._log()

    def _tell(self) -> None:
        """Log the count and wait a minute for more; with none, the next cut is told at once again."""
        if not self._count:
            self._timer = None
            return
        self._log()
        self._timer = gevent.spawn_later(SECONDS, self._tell)

    def _log(self) -> None:
        count, self._count = self._count, 0
        log.info(
            "model %s: %d text%s longer than the model takes, and cut (answers say so in x-truncated-inputs; "
            "truncate = none refuses such texts)",
            self._name(),
            count,
            " was" if count == 1 else "s were",
        )
