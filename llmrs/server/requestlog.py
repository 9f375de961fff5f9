"""One log line per request, for a share of them: who asked for how much, and where the time went.

Written beside the `logging` module, whose record, formatter and lock cost more than the line. It goes to
the same place as all other lines. It never holds input text, a query string or a key, and writing never
waits and never fails a request: a line that cannot be written at once is lost, and counted.
"""

from __future__ import annotations

import os
import random
import select
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import msgspec
from gevent import monkey

from llmrs.server.logs import OURS

LOGGER = "llmrs.request"

IN_HEAD = ("time", "level", "logger", "message", "method", "route", "status")
"""What the head of a text line says: its time is local, as in all other lines."""

_poll: Any = monkey.get_original("select", "poll")


class Line(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What is told of a request; what is not known is left out. Times in milliseconds, but `seconds`.

    Attributes:
        route: its template, so that paths stay few and hold nothing of a caller's.
        code: of the error, if it got one; `client_gone` means that nobody waited for the answer.
        seconds: from the request's head to its answer.
        batch_texts: texts of the largest batch that it had a share in.
    """

    time: str
    level: str
    logger: str
    message: str
    request_id: str
    method: str
    route: str
    status: int
    seconds: float
    code: str | None = None
    key: str | None = None
    queue_ms: float | None = None
    tokenize_ms: float | None = None
    inference_ms: float | None = None
    inputs: int | None = None
    tokens: int | None = None
    truncated: int | None = None
    batch_texts: int | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None
    trace_id: str | None = None
    span_id: str | None = None


class RequestLog:
    """Writes lines.

    Args:
        share: of the requests that get a line, from 0 to 1. Above 0, those answered 5xx always do.
        json: JSON objects instead of text.
        fileno: where to; None where there is nothing to write to.
    """

    def __init__(self, share: float, *, json: bool, fileno: Callable[[], int | None] | None = None) -> None:
        self._share = share
        self._encode = msgspec.json.encode if json else _as_text
        self._fileno = fileno or _log_fileno
        self.lost = 0

    def wants(self, status: str) -> bool:
        """Whether a request with this answer gets a line."""
        return self._share > 0 and (status[0] == "5" or random.random() < self._share)

    def write(self, line: Line) -> None:
        """Write a line now or never."""
        try:
            fileno = self._fileno()
            if fileno is None:
                return
            # A pipe that is ready takes a line of less than 4 KiB whole, and without waiting.
            poll = _poll()
            poll.register(fileno, select.POLLOUT)
            if not poll.poll(0):
                raise BlockingIOError
            os.write(fileno, self._encode(line) + b"\n")
        except (OSError, ValueError):
            self.lost += 1


def now() -> str:
    """The time of a line, in UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _as_text(line: Line) -> bytes:
    told = msgspec.to_builtins(line)
    head = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line.level.upper():8} {line.logger}: {line.message}"
    for name in IN_HEAD:
        del told[name]
    return " ".join([head, *(f"{name}={value}" for name, value in told.items())]).encode()


def _log_fileno() -> int | None:
    """Where `logging` writes our lines."""
    for handler in OURS.handlers:
        stream = getattr(handler, "stream", None)
        if stream is not None:
            return int(stream.fileno())
    return None
