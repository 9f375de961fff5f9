"""The sockets below `transport.py`: urllib3's connections and pools with one deadline and one retry.

Two things urllib3 leaves open are settled here. Its timeouts start anew with every read, so a
server that drips one byte a second is never late: here all waits of a request end at one moment.
And it sends no POST again that met a kept-alive connection which the server had just closed: here
that one case is sent once more, on a new connection, and no other is.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import Any

from urllib3 import Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError
from urllib3.response import BaseHTTPResponse

CONNECT_SECONDS = 5.0
"""Longest wait for one address of the host: two retransmissions of a lost SYN (RFC 6298)."""

SHORTEST = 0.001
"""Seconds a socket may wait when nothing remains: 0 would mean "do not block"."""

STALE = (ConnectionResetError, BrokenPipeError)
"""How a connection fails that the server had closed; http.client.RemoteDisconnected is the first."""


class Until(Timeout):
    """A timeout that ends at one `time.monotonic()` moment, however many waits it is used for."""

    def __init__(self, deadline: float) -> None:
        super().__init__()
        self._deadline = deadline

    def clone(self) -> Until:
        return Until(self._deadline)

    def _remaining(self) -> float:
        return max(self._deadline - time.monotonic(), SHORTEST)

    connect_timeout = property(_remaining)
    read_timeout = property(_remaining)


class _TimedReader(io.RawIOBase):
    """Reads a socket until its timeout has passed since the reader was made, not since the last byte."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)  # keeps the socket open while the answer is read
        self._deadline = time.monotonic() + (sock.gettimeout() or 0.0)
        self._started = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(remaining)
        try:
            count = self._raw.readinto(buffer)
        except ConnectionResetError as error:
            if self._started:  # no stale connection then, and not to be tried again
                raise ConnectionAbortedError("reset within an answer") from error
            raise
        self._started = True
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()  # nothing was read through it yet
        self.fp = io.BufferedReader(_TimedReader(sock))


class _Connection(HTTPConnection):
    response_class = _Response

    def _new_conn(self) -> socket.socket:
        allowed, start = float(self.timeout or 0.0), time.monotonic()
        self.timeout = min(allowed, CONNECT_SECONDS)
        try:
            sock = self._connected()
        finally:
            self.timeout = allowed
        sock.settimeout(max(allowed - (time.monotonic() - start), SHORTEST))  # for TLS and sending
        return sock

    def _connected(self) -> socket.socket:
        return super()._new_conn()


class _TLSConnection(_Connection, HTTPSConnection):
    pass


class _UnixConnection(_Connection):
    def __init__(self, *args: Any, path: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._path = path

    def _connected(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.timeout)
            sock.connect(self._path)
        except OSError as error:
            sock.close()
            raise NewConnectionError(self, "connecting to the socket failed") from error
        return sock


class Pool(HTTPConnectionPool):
    """Kept-alive connections to one host."""

    ConnectionCls: type[_Connection] = _Connection

    def _make_request(self, conn: Any, *args: Any, **kwargs: Any) -> BaseHTTPResponse:
        kept_alive = not conn.is_closed
        try:
            return super()._make_request(conn, *args, **kwargs)
        except STALE:
            if not kept_alive:
                raise
        # urllib3 notices most closed connections before it uses them; this one closed in between
        # (urllib3 issue 1911).
        conn.close()
        return super()._make_request(conn, *args, **kwargs)


class TLSPool(Pool, HTTPSConnectionPool):
    """Kept-alive connections to one host over TLS."""

    ConnectionCls: type[_TLSConnection] = _TLSConnection


class UnixPool(Pool):
    """Kept-alive connections to a Unix socket: `UnixPool("localhost", path=...)`."""

    ConnectionCls: type[_Connection] = _UnixConnection
