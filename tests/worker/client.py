"""The client's side of raw HTTP: send exactly these bytes, take the answers apart."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import NamedTuple

from tests.processes import Server

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Answer(NamedTuple):
    """One response; names of headers in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> object:
        return json.loads(self.body)

    @property
    def told(self) -> tuple[int, object]:
        """Status and body, to compare: of JSON what it says, not how it is written."""
        is_json = self.headers.get("content-type") == "application/json" and self.body
        return self.status, self.json if is_json else self.body


def connect(server: Server, seconds: float = 10.0) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=seconds)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def exchange(server: Server, *pieces: bytes, half_close: bool = True) -> bytes:
    """Send pieces over one connection, end the sending side, and read to the end."""
    with connect(server) as connection:
        # It may close on us before we are through; what it said can still be read.
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    raw = b""
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(1 << 20):
            raw += data
    return raw


def ask(connection: socket.socket, request: bytes = GET) -> Answer:
    """The answer to one request on a connection that may go on."""
    connection.sendall(request)
    return read_answer(connection)


def read_answer(connection: socket.socket) -> Answer:
    raw = b""
    while True:
        data = connection.recv(1 << 20)
        assert data, raw
        raw += data
        with contextlib.suppress(Incomplete):
            return _one(raw)[0]


def answers(raw: bytes) -> list[Answer]:
    """All responses in a byte stream, interim ones left out."""
    found = []
    while raw:
        answer, raw = _one(raw, at_end=True)
        if answer.status >= 200:
            found.append(answer)
    return found


class Incomplete(Exception):
    """The response goes on."""


def _one(raw: bytes, *, at_end: bool = False) -> tuple[Answer, bytes]:
    head, separator, rest = raw.partition(b"\r\n\r\n")
    if not separator:
        raise Incomplete(raw)
    first, *lines = head.decode("latin-1").split("\r\n")
    version, status, *_ = first.split(" ")
    assert version.startswith("HTTP/1."), first
    headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
    assert len(headers) == len(lines), "no header twice"
    if int(status) < 200 or int(status) in (204, 304):
        return Answer(int(status), headers, b""), rest
    if headers.get("transfer-encoding") == "chunked":
        body, rest = _chunks(rest)
        return Answer(int(status), headers, body), rest
    length = int(headers.get("content-length", len(rest) if at_end else -1))
    if not 0 <= length <= len(rest):
        raise Incomplete(raw)
    return Answer(int(status), headers, rest[:length]), rest[length:]


def _chunks(raw: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        line, separator, raw = raw.partition(b"\r\n")
        if not separator or len(raw) < int(line, 16) + 2:
            raise Incomplete(raw)
        size = int(line, 16)
        assert raw[size : size + 2] == b"\r\n"
        body, raw = body + raw[:size], raw[size + 2 :]
        if not size:
            return body, raw
