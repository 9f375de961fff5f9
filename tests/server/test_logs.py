"""Log lines: each is one line, and nobody waits for a reader."""

from __future__ import annotations

import fcntl
import io
import json
import logging
import os
import re
from collections.abc import Iterator

import pytest

from llmrs.server.logs import MAX_WAITING, JsonLogger, QueuedHandler, TextLogger, one_line
from tests.processes import wait_until

HOSTILE = "an id\nINFO all is well \x1b[2J\u202e\x9b \ud800"


@pytest.fixture
def ends() -> Iterator[tuple[int, io.TextIOWrapper]]:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(reading, False)
    with os.fdopen(writing, "w") as stream:
        yield reading, stream
    os.close(reading)


def read(reading: int) -> str:
    try:
        return os.read(reading, 1 << 20).decode()
    except BlockingIOError:
        return ""


def record(message: str) -> logging.LogRecord:
    return logging.LogRecord("llmrs", logging.INFO, "", 0, message, (), None)


@pytest.mark.parametrize("logger", [TextLogger, JsonLogger])
def test_what_others_say_stays_on_its_line(logger: type[TextLogger]) -> None:
    line = logger.formatter.format(record(HOSTILE))
    assert line.isprintable()
    shown = json.loads(line)["message"] if logger is JsonLogger else line
    assert r"an id\nINFO all is well \x1b[2J\u202e\x9b \ud800" in shown
    assert one_line("Ein Weg, 一条路 🙂") == "Ein Weg, 一条路 🙂"


def test_a_traceback_has_lines_of_its_own() -> None:
    try:
        raise ValueError("why")
    except ValueError as error:
        failed = logging.LogRecord("llmrs", logging.ERROR, "", 0, "it failed", (), (ValueError, error, None))
    assert TextLogger.formatter.format(failed).splitlines()[1:] == ["ValueError: why"]


def test_lines_are_written_in_order(ends: tuple[int, io.TextIOWrapper]) -> None:
    reading, stream = ends
    handler = QueuedHandler(stream)
    for number in range(20):
        handler.emit(record(f"line {number}"))
    handler.flush()
    assert read(reading).splitlines() == [f"line {number}" for number in range(20)]


def test_nobody_waits_for_a_reader(ends: tuple[int, io.TextIOWrapper]) -> None:
    reading, stream = ends
    handler = QueuedHandler(stream)
    for number in range(3 * MAX_WAITING):
        handler.emit(record(f"line {number} {'x' * 90}"))
    handler.flush()  # comes back, although nothing is read
    text = ""

    def all_is_accounted_for() -> bool:
        nonlocal text
        text += read(reading)
        return len(written(text)) + sum(told(text)) == 3 * MAX_WAITING

    wait_until(all_is_accounted_for, 30)
    assert handler.lost == sum(told(text)) >= MAX_WAITING
    assert written(text) == sorted(written(text)), "in order"
    assert all(len(line) > 90 for line in text.splitlines() if line.startswith("line")), "and whole"


def written(text: str) -> list[int]:
    return [int(line.split()[1]) for line in text.splitlines(True) if re.fullmatch(r"line \d+ x{90}\n", line)]


def told(text: str) -> list[int]:
    """How many lines were said to be lost, each time."""
    return [int(count) for count in re.findall(r"^(\d+) log lines were lost.*\n", text, re.MULTILINE)]


def test_a_forked_process_writes_its_own_lines(ends: tuple[int, io.TextIOWrapper]) -> None:
    reading, stream = ends
    handler = QueuedHandler(stream)
    handler.emit(record("the parent's"))
    handler.flush()
    child = os.fork()
    if not child:
        handler.emit(record("the child's"))
        handler.flush()
        os._exit(0)
    os.waitpid(child, 0)
    assert read(reading).splitlines() == ["the parent's", "the child's"]


def test_a_full_disk_is_counted() -> None:
    with open("/dev/full", "w") as full:
        handler = QueuedHandler(full)
        handler.emit(record("a line"))
        wait_until(lambda: handler.lost == 1, 10)


def test_gunicorn_logs_through_it() -> None:
    from gunicorn.config import Config

    cfg = Config()
    cfg.set("errorlog", "-")
    logger = TextLogger(cfg)
    assert [type(handler) for handler in logger.error_log.handlers] == [QueuedHandler]
    logger.setup(cfg)  # as gunicorn does at a reload
    assert [type(handler) for handler in logger.error_log.handlers] == [QueuedHandler], "not every line twice"
    assert logging.getLogger("llmrs").handlers == logger.error_log.handlers
