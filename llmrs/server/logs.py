"""Log lines: one format for gunicorn's messages and for ours, as text or as JSON."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from typing import Any

from gunicorn.glogging import Logger

OURS = logging.getLogger("llmrs")


class TextLogger(Logger):  # type: ignore[misc]
    """gunicorn's logger, with the `llmrs` loggers writing to the same place at the same level."""

    formatter: logging.Formatter = logging.Formatter(
        "%(asctime)s %(levelname)-8s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S"
    )

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
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
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class JsonLogger(TextLogger):
    """The same as JSON lines."""

    formatter = _JsonFormatter()
