"""Kept-alive HTTP/1.1 connections to one address, with one deadline and one retry.

A connection is a socket and llhttp (httptools), the parser that the server uses, too. Everything that
waits ends at one absolute moment, however slowly a server drips; in a plain process as in a
gevent-patched one, where waiting parks a greenlet (only a host name's resolution has no limit of its
own). A connection whose answer was not read to its end is never used again.

One call costs 50 to 80 us so, and 335 us through requests' own adapter and urllib3, which build a
dozen objects around http.client's.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections import deque
from typing import NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from llmrs.errors import DeadlineExceeded, UpstreamError

CONNECT_SECONDS = 5.0
"""Longest wait for one address of the host: two retransmissions of a lost SYN (RFC 6298)."""

SHORTEST = 0.001
"""Seconds a socket may wait when nothing remains: 0 would mean "do not block"."""

RECEIVE = 1 << 16
"""Bytes asked for at once."""

LONGEST_HEAD = 1 << 16
"""Bytes that an answer's head may have."""

LONGEST_ERROR = 1 << 14
"""Bytes of an error's body that are read: what is longer is a page for people, and is left unread."""

ERROR_SECONDS = 0.5
"""Longest wait for an error's body: its status has come, and says the most."""


class Address(NamedTuple):
    """Where connections go: a host and port, or a Unix socket's path; `tls` for https."""

    host: str
    port: int = 0
    path: str | None = None
    tls: ssl.SSLContext | None = None


class Broken(UpstreamError):
    """The server closed the connection, or what it sent is not HTTP: it had the request by then."""

    def __init__(self) -> None:
        super().__init__("the backend broke off the connection")


class _Stale(Broken):
    """The same before a single byte of the answer, which may be nobody's fault."""


class Pool:
    """Connections to an address. Safe to share between threads and between greenlets.

    Args:
        size: most connections that are kept while idle.
        resend: whether a request that met a closing connection is sent once more.
    """

    def __init__(self, address: Address, size: int, *, resend: bool = True) -> None:
        self._address = address
        self._size = size
        self._resend = resend
        self._idle: deque[_Connection] = deque()

    def exchange(self, request: bytes, deadline: float, limit: int) -> Incoming:
        """Send a whole request and read the whole answer, of errors the first LONGEST_ERROR bytes at most.

        A request that met a kept-alive connection which the server had closed is sent once more, on
        a new one, and no other is: embedding changes nothing, so twice is as good as once.

        Args:
            deadline: a `time.monotonic()` moment.
            limit: most bytes of the body.

        Raises:
            DeadlineExceeded: the answer was not complete in time.
            UpstreamError: unreachable, broken off or longer than `limit`; says which.
        """
        kept = self._kept()
        if kept is not None:
            try:
                return self._use(kept, request, deadline, limit)
            except _Stale:
                if not self._resend:
                    raise
        return self._use(_connect(self._address, deadline), request, deadline, limit)

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            with contextlib.suppress(IndexError):
                self._idle.pop().close()

    def _kept(self) -> _Connection | None:
        """The connection used last, if its server has not closed it meanwhile."""
        with contextlib.suppress(IndexError):
            while connection := self._idle.pop():
                if connection.is_quiet():
                    return connection
                connection.close()
        return None

    def _use(self, connection: _Connection, request: bytes, deadline: float, limit: int) -> Incoming:
        try:
            answer = connection.exchange(request, deadline, limit)
        except BaseException:
            connection.close()
            raise
        if answer.reusable and len(self._idle) < self._size:
            self._idle.append(connection)
        else:
            connection.close()
        return answer


def _connect(address: Address, deadline: float) -> _Connection:
    try:
        sock = _open(address, min(_remaining(deadline), CONNECT_SECONDS))
    except socket.gaierror:
        raise _unreachable("its host name cannot be resolved") from None
    except TimeoutError:
        _remaining(deadline)
        raise _unreachable("connecting timed out") from None
    except OSError:
        raise _unreachable("connecting failed") from None
    if address.tls is None:
        return _Connection(sock)
    try:
        sock.settimeout(_remaining(deadline))
        return _Connection(address.tls.wrap_socket(sock, server_hostname=address.host))
    except BaseException as error:
        sock.close()
        if isinstance(error, TimeoutError):
            raise DeadlineExceeded("the backend did not answer in time") from None
        if isinstance(error, OSError):  # ssl's errors are
            raise _unreachable("TLS failed, or its certificate is not trusted") from None
        raise


def _open(address: Address, seconds: float) -> socket.socket:
    if address.path is None:
        sock = socket.create_connection((address.host, address.port), timeout=seconds)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(seconds)
        sock.connect(address.path)
    except BaseException:
        sock.close()
        raise
    return sock


def _unreachable(reason: str) -> UpstreamError:
    return UpstreamError(f"the backend cannot be reached: {reason}")


def _remaining(deadline: float) -> float:
    """Seconds until a moment; DeadlineExceeded if it has passed."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise DeadlineExceeded("the backend did not answer in time")
    return max(seconds, SHORTEST)


class _Connection:
    """One connection: one exchange after the other, until it fails or the server wants no more."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = memoryview(bytearray(RECEIVE))

    def close(self) -> None:
        self._sock.close()

    def is_quiet(self) -> bool:
        """Whether nothing has come since the last answer: no end, and no complaint about idling."""
        self._sock.settimeout(0)
        try:
            self._sock.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            pass
        return False

    def exchange(self, request: bytes, deadline: float, limit: int) -> Incoming:
        """See `Pool.exchange`; raises _Stale where the request may be sent again."""
        answer = Incoming(limit)
        try:
            self._sock.settimeout(_remaining(deadline))
            # A server may refuse a request before it has read it all: its answer can still be read.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._sock.sendall(request)
            while not answer.complete and not answer.is_error:
                self._receive(answer, deadline)
        except TimeoutError:
            raise DeadlineExceeded("the backend did not answer in time") from None
        except OSError:
            raise answer.broken() from None
        # What an error says helps, but its status is the answer: no body of it is waited for long.
        until = min(deadline, time.monotonic() + ERROR_SECONDS)
        with contextlib.suppress(OSError, UpstreamError, DeadlineExceeded):
            while not answer.complete:
                self._receive(answer, until)
        return answer

    def _receive(self, answer: Incoming, deadline: float) -> None:
        self._sock.settimeout(_remaining(deadline))
        count = self._sock.recv_into(self._buffer)
        answer.feed(self._buffer[:count])


class Incoming:
    """An answer as it arrives; llhttp calls the `on_` methods.

    Attributes:
        headers: by lower-case name; of several with one name, the last.
        body: of an answer of another status than 200 at most LONGEST_ERROR bytes, as far as they came.
        complete: whether all of it has come that is wanted.
        is_error: whether its status is known, and not 200.
        reusable: whether the connection may be used for another request.
    """

    def __init__(self, limit: int) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.complete = False
        self.is_error = False
        self.reusable = False
        self._limit = limit
        self._parser = HttpResponseParser(self)
        self._chunks: list[bytes] = []
        self._received = 0  # bytes of everything
        self._size = 0  # bytes of the body
        self._too_long = False
        self._in_body = False

    @property
    def body(self) -> bytes:
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)

    def feed(self, data: memoryview) -> None:
        """The next bytes; none: the server has closed its side."""
        if not data:
            # Without a length, the end of the connection is the end of the body.
            if not self._in_body or "content-length" in self.headers or "transfer-encoding" in self.headers:
                raise self.broken()
            self.complete = True
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self.reusable = False
            if not self.complete and not self.is_error:
                raise Broken from None
            self.complete = True
        if self._too_long:
            raise UpstreamError(f"the backend's answer is longer than the {self._limit} bytes it may have")
        if not self._in_body and not self.complete and self._received > LONGEST_HEAD:
            raise Broken

    def broken(self) -> Broken:
        """Why there will be no answer, now that the connection has ended."""
        return Broken() if self._received else _Stale()

    def on_message_begin(self) -> None:
        self.reusable = False  # at a second message: nobody asked for it

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.complete:
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        self.status = self._parser.get_status_code()
        if self.status < 200:  # "100 Continue" and the like: the answer is still to come
            self.headers.clear()
            return
        self._in_body = True
        self.is_error = self.status != 200
        length = int(self.headers.get("content-length", 0))
        if self.is_error:
            self.complete = length > LONGEST_ERROR
        else:
            self._too_long = length > self._limit

    def on_body(self, data: bytes) -> None:
        if self.complete:
            return
        self._chunks.append(data)
        self._size += len(data)
        if self.is_error:
            self.complete = self._size > LONGEST_ERROR
        else:
            self._too_long = self._too_long or self._size > self._limit

    def on_message_complete(self) -> None:
        if not self.complete and self.status >= 200:
            self.complete = True
            self.reusable = self._parser.should_keep_alive()
