"""Log lines: one format for gunicorn's messages and for ours, as text or as JSON.

A line is one line: what other programs and files have to say is escaped where it could break it or drive a
terminal. And no line is waited for: a pipe that nobody reads would hold up whoever writes into it, the hub
and gunicorn's master, too, so that nothing is served and nothing can be stopped.
"""

from __future__ import annotations

import json
import logging
import os
from _queue import SimpleQueue  # the C class itself: gevent patches the name in `queue`
from _thread import allocate_lock, start_new_thread  # imported before gevent patches them
from datetime import datetime, timezone
from typing import Any, TextIO

from gunicorn.glogging import Logger

OURS = logging.getLogger("llmrs")

MAX_WAITING = 1000
"""Lines that wait to be written. More are lost, and counted: memory has an end, too."""

FLUSH_SECONDS = 1.0
"""For so long the end of a process waits for its last lines to be read."""


class QueuedHandler(logging.Handler):
    """Writes lines on a native thread of its own, in their order; whoever logs never waits.

    The thread is started with the first line of a process: one does not survive a fork.

    Attributes:
        stream: where to.
        lost: lines that could not be written.
    """

    _gunicorn = False

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream
        self.lost = 0
        self._untold = 0
        self._owner = 0
        self._lines: SimpleQueue[str | Any] = SimpleQueue()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the line of a record, or count it as lost."""
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        if self._owner != os.getpid():
            self._begin()
        if self._lines.qsize() >= MAX_WAITING:
            self._untold += 1
            return
        self._lines.put(line)

    def flush(self) -> None:
        """Wait until what was logged is written, but not for ever."""
        if self._owner != os.getpid():
            return
        written = allocate_lock()
        written.acquire()
        self._lines.put(written)
        written.acquire(timeout=FLUSH_SECONDS)

    def _begin(self) -> None:
        self._owner = os.getpid()
        self._lines = SimpleQueue()  # what waits in the process that was forked is written there
        self._untold = 0
        start_new_thread(self._write, (self._lines,))

    def _write(self, lines: SimpleQueue[str | Any]) -> None:
        while True:
            line = lines.get()
            if not isinstance(line, str):
                line.release()
                continue
            self._write_line(line)
            if untold := self._untold:
                self._untold -= untold
                self.lost += untold
                self._write_line(f"{untold} log lines were lost: nobody read them")

    def _write_line(self, line: str) -> None:
        # Past the stream's own buffer, whose lock the end of the process would ask for in vain.
        left = (line + "\n").encode("utf-8", "backslashreplace")
        try:
            while left:
                left = left[os.write(self.stream.fileno(), left) :]
        except (OSError, ValueError):  # a full disk, a closed pipe: there is no place to say so
            self.lost += 1


def lost_lines() -> int:
    """Lines of this process that nobody will read."""
    return sum(handler.lost for handler in OURS.handlers if isinstance(handler, QueuedHandler))


def _unhurried(handler: logging.Handler) -> logging.Handler:
    """The handler that writes to the same place without holding anybody up."""
    if type(handler) is not logging.StreamHandler:
        return handler
    queued = QueuedHandler(handler.stream)
    # gunicorn's mark of its own handlers, by which it finds and replaces them on a reload. Without it, every
    # line would be written once more after each.
    queued._gunicorn = getattr(handler, "_gunicorn", False)
    return queued


def one_line(text: str) -> str:
    """The text with whatever is not printable escaped, as Python does in a string's repr."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class _TextFormatter(logging.Formatter):
    """Time, level, logger and message on one line; a traceback on further ones."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        record.message = one_line(record.message)
        return super().formatMessage(record)


class TextLogger(Logger):  # type: ignore[misc]
    """gunicorn's logger, with the `llmrs` loggers writing to the same place at the same level."""

    formatter: logging.Formatter = _TextFormatter(
        "%(asctime)s %(levelname)-8s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S"
    )

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers = [_unhurried(handler) for handler in self.error_log.handlers]
        for handler in self.error_log.handlers:
            handler.setFormatter(self.formatter)
        OURS.handlers = list(self.error_log.handlers)
        OURS.setLevel(self.error_log.level)
        OURS.propagate = False
        # A full disk or a closed pipe must not become a traceback per line, which has no place to go.
        logging.raiseExceptions = False


class _JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        created = datetime.fromtimestamp(record.created, timezone.utc)
        line = {
            "time": created.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": one_line(record.getMessage()),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class JsonLogger(TextLogger):
    """The same as JSON lines."""

    formatter = _JsonFormatter()
