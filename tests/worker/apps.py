"""A WSGI application that tells what it was asked, and misbehaves on request."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

from llmrs.server.body import CLOSE

Start = Callable[..., Any]


def app(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    routes = {
        "/stream": stream, "/write": write, "/unread": unread, "/raise": fail, "/late": late,
        "/nothing": nothing, "/big": big, "/slow": slow, "/twice": twice, "/bad-header": bad_header,
        "/silent": silent, "/readline": readline, "/not-modified": not_modified, "/too-much": too_much,
        "/too-little": too_little, "/hop-by-hop": hop_by_hop, "/cut": cut, "/leave": leave,
        "/socket": socket_options, "/close": close, "/watch": watch, "/endless": endless,
        "/busy": busy, "/read-late": read_late,
    }  # fmt: skip
    return routes.get(environ["PATH_INFO"], echo)(environ, start)


def echo(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    """The request as JSON."""
    body = environ["wsgi.input"].read()
    told = {
        "method": environ["REQUEST_METHOD"],
        "path": environ["PATH_INFO"],
        "query": environ["QUERY_STRING"],
        "protocol": environ["SERVER_PROTOCOL"],
        "scheme": environ["wsgi.url_scheme"],
        "type": environ.get("CONTENT_TYPE", ""),
        "length": environ.get("CONTENT_LENGTH", ""),
        "headers": {key: environ[key] for key in sorted(environ) if key.startswith("HTTP_")},
        "body": body.decode("latin-1"),
    }
    answer = json.dumps(told).encode()
    start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
    return [answer]


class Pieces:
    """An iterable body that says in a header of the next request whether it was closed."""

    closed = 0

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = iter(pieces)

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        Pieces.closed += 1


def stream(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("200 OK", [("Content-Type", "text/plain"), ("X-Closed", str(Pieces.closed))])
    return Pieces([b"one ", b"", b"two ", b"three"])


def late(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    """A generator: start_response is called when the first piece is asked for."""
    start("200 OK", [("Content-Type", "text/plain")])
    yield b"late"


def write(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    out = start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "10")])
    out(b"hello ")
    return [b"you", b"!"]


def unread(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]


def fail(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    raise RuntimeError("secret")


def twice(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    """An error found after start_response: it may be called again, with exc_info."""
    start("200 OK", [("Content-Type", "text/plain")])
    try:
        raise ValueError("x")
    except ValueError as error:
        start("500 Oops", [("Content-Type", "text/plain")], (ValueError, error, error.__traceback__))
    return [b"replaced"]


def bad_header(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("200 OK", [("X-Evil", "a\r\nSet-Cookie: b")])
    return [b"x"]


def silent(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    return [b"never started"]


def nothing(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("204 No Content", [])
    return []


def not_modified(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("304 Not Modified", [("Content-Length", "17"), ("ETag", '"x"')])
    return [b"never sent"]


def too_much(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("200 OK", [("Content-Length", "2")])
    return [b"ok, and more than that"]


def too_little(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("200 OK", [("Content-Length", "20")])
    return [b"ok"]


def hop_by_hop(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    """What an application must not say about the connection, but some do."""
    start("200 OK", [("Connection", "close"), ("Transfer-Encoding", "gzip"), ("Content-Length", "2")])
    return [b"ok"]


def cut(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    """Fails in the middle of its answer."""
    start("200 OK", [("Content-Type", "text/plain")])
    yield b"beginning"
    raise RuntimeError("secret")


def leave(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    """The errors of its own system calls are the application's, not the client's."""
    raise ConnectionResetError("secret")


def big(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    body = b"x" * 20_000_000
    start("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def busy(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    """Keep the hub from everything else for as many milliseconds as the query says."""
    until = time.monotonic() + int(environ["QUERY_STRING"]) / 1000
    while time.monotonic() < until:
        pass
    return unread(environ, start)


def read_late(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    """Begin the answer, then read the body."""
    start("200 OK", [("Content-Type", "text/plain")])
    yield b"begun "
    yield environ["wsgi.input"].read()


def endless(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    time.sleep(60)
    return unread(environ, start)


def socket_options(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("200 OK", [("Content-Type", "text/plain")])
    client = environ["gunicorn.socket"]
    return [b"%d" % client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)]


def close(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    """Ask for the end of the connection, in the way that the query says."""
    force_close = start.__self__.force_close if environ["QUERY_STRING"] else environ[CLOSE]  # type: ignore[attr-defined]
    force_close()
    return unread(environ, start)


class Watch:
    gone = 0


def watch(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    """Work until the client is gone, as the service finds out; tells how many have gone."""
    if environ["QUERY_STRING"]:
        connection = environ["gunicorn.socket"]._sock
        try:
            while connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                time.sleep(0.05)
        except BlockingIOError:
            time.sleep(0.05)
            return watch(environ, start)
        Watch.gone += 1
    start("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % Watch.gone]


def slow(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    time.sleep(1.0)
    return unread(environ, start)


def readline(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    stream = environ["wsgi.input"]
    told = [stream.readline(), stream.readline(3), stream.read(2), list(stream)]
    answer = repr(told).encode()
    start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]


def _plain(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start("200 OK", [("Content-Type", "text/plain")])
    return [b"valid"]


validated = validator(_plain)
"""Raises AssertionError where the server breaks PEP 3333."""
