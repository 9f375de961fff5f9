"""Every wait for a client ends. The worker here gives up after a second instead of ten or sixty."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from tests.processes import Server
from tests.worker.client import GET, answers, ask, connect, read_all, read_answer
from tests.worker.conftest import OURS, QUICK, gunicorn


@pytest.fixture(scope="module")
def quick() -> Iterator[Server]:
    with gunicorn(QUICK) as server:
        yield server


def test_an_idle_connection_is_closed_after_keepalive() -> None:
    with gunicorn(QUICK, "--keep-alive", "1") as server, connect(server) as used, connect(server) as unused:
        assert ask(used).status == 200
        began = time.monotonic()
        assert used.recv(1) == b""
        assert unused.recv(1) == b""
        assert 0.7 < time.monotonic() - began < 9


def test_without_keepalive_every_answer_closes() -> None:
    with gunicorn(OURS, "--keep-alive", "0") as server, connect(server) as connection:
        assert ask(connection).headers["connection"] == "close"
        assert connection.recv(1) == b""


@pytest.mark.parametrize(
    "start",
    [
        b"GET / HTTP/1.1\r\nX: ",
        b"\r",
        GET + b"GET /",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ],
)
def test_slow_heads_and_slow_bodies_get_408(quick: Server, start: bytes) -> None:
    with connect(quick) as connection:
        connection.sendall(start)
        answer = answers(read_all(connection))[-1]
        assert answer.status == 408
        assert answer.headers["connection"] == "close"
        assert isinstance(answer.json, dict)
        assert answer.json["error"]["type"] == "timeout_error"
        assert answer.json["error"]["code"] == "request_timeout"


@pytest.mark.parametrize(
    "start", [b"GET / HTTP/1.1\r\nX: ", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n"]
)
def test_what_drips_is_not_kept_alive_by_its_drops(quick: Server, start: bytes) -> None:
    with connect(quick) as connection:
        connection.sendall(start)
        began = time.monotonic()
        answer = b""
        while not answer and time.monotonic() - began < 10:
            connection.sendall(b"x")
            answer = receive_within(connection, 0.1)
        assert time.monotonic() - began < 9
        assert b" 408 " in answer


def test_a_body_that_comes_at_a_pace_may_take_long(quick: Server) -> None:
    """Three times as long as the time between two pieces."""
    with connect(quick) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n")
        for _ in range(10):
            time.sleep(0.3)
            connection.sendall(b"x" * 500)
        assert read_answer(connection).status == 200


def test_who_does_not_take_the_answer_is_dropped(quick: Server) -> None:
    with connect(quick) as connection:
        connection.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(3)
        assert len(read_all(connection)) < 20_000_000


def test_who_takes_the_answer_slowly_is_not(quick: Server) -> None:
    with connect(quick) as connection:
        began = time.monotonic()
        connection.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        size = 0
        while size < 20_000_000:
            size += len(connection.recv(1 << 16))
            time.sleep(0.006)
        assert time.monotonic() - began > 1.5


def test_who_goes_on_sending_after_the_last_answer_is_dropped(quick: Server) -> None:
    with connect(quick) as connection:
        began = time.monotonic()
        connection.sendall(b"nonsense\r\n\r\n")
        with pytest.raises(ConnectionError):  # noqa: PT012
            while time.monotonic() - began < 10:
                connection.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() - began < 9


def receive_within(connection: socket.socket, seconds: float) -> bytes:
    connection.settimeout(seconds)
    try:
        return connection.recv(65536)
    except TimeoutError:
        return b""
