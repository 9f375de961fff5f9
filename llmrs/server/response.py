"""WSGI responses to bytes: status line, headers, framing. Bytes leave through a callable.

A response that an application gives as a list leaves in one piece, head and body together. Others
leave piece by piece: in chunks to HTTP/1.1, up to the end of the connection to HTTP/1.0.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from email.utils import formatdate
from typing import Any

from llmrs.server.request import Request

JOIN_BYTES = 16 * 1024
"""Longer bodies are not copied to join them with their head: the system call takes both."""

MAX_NAMES = 1000
"""How many names of response headers are remembered."""

PLAIN, LENGTH, HOP_BY_HOP, OWN = range(4)
"""Kinds of response headers. Those from hop to hop are about the connection, which is the server's;
its own are the ones that it adds where the application does not."""

_KIND = {"content-length": LENGTH, "server": OWN, "date": OWN} | dict.fromkeys(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer",
     "transfer-encoding", "upgrade"),
    HOP_BY_HOP,
)  # fmt: skip
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_STATUS = re.compile(r"[2-5][0-9]{2}( [\t -~\x80-\xff]*)?")

_kinds: dict[str, int] = {}
_prefixes: dict[str, str] = {}
_prefixes_until = 0.0


class Response:
    """The answer to one request. `start` and `write` are WSGI's callables.

    Args:
        send: sends the bytes objects it gets, in one write where possible.

    Attributes:
        close: whether the connection ends after it.
        begun: whether any of it has been sent.
    """

    __slots__ = ("_chunked", "_fields", "_left", "_own", "_request", "_send", "_status", "begun", "close")

    def __init__(self, request: Request, send: Callable[..., None]) -> None:
        self._request = request
        self._send = send
        self._status = ""
        self._fields = ""
        self._own: Sequence[str] = ()
        self._left: int | None = None
        self._chunked = False
        self.close = not request.keep_alive
        self.begun = False

    def force_close(self) -> None:
        """End the connection after this response. Clients are told if it has not begun yet."""
        self.close = True

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """WSGI's start_response. Nothing is sent yet, so an error may still replace it.

        Raises:
            AssertionError: it was called before, and not because of an error.
            ValueError: the status or a header could break the response apart.
        """
        if exc_info is not None:
            if self.begun:
                raise exc_info[1].with_traceback(exc_info[2])
        elif self._status:
            raise AssertionError("start_response was called twice")
        if status not in _prefixes and not _STATUS.fullmatch(status):
            raise ValueError("the application gave an invalid status")
        self._status = ""
        self._fields = self._checked(headers, status)
        self._status = status
        return self.write

    def respond(self, result: Iterable[bytes]) -> None:
        """Send what the application returned."""
        if self._status and not self.begun and isinstance(result, (list, tuple)):
            self._send_whole(result[0] if len(result) == 1 else b"".join(result))
            return
        for piece in result:
            if piece:
                self.write(piece)
        self._finish()

    def write(self, piece: bytes) -> None:
        """WSGI's write callable, and how every piece of a longer response leaves."""
        if not isinstance(piece, bytes):
            raise TypeError("a piece of a response must be bytes")
        parts = [] if self.begun else [self._begin()]
        if self._left is not None:
            piece = piece[: self._left]  # more would be taken for the next response
            self._left -= len(piece)
        if piece:
            parts += [b"%x\r\n" % len(piece), piece, b"\r\n"] if self._chunked else [piece]
        if parts:
            self._send(*parts)

    # -- headers ------------------------------------------------------------------------------

    def _checked(self, headers: list[tuple[str, str]], status: str) -> str:
        """The application's headers as they are sent, less those that are the server's."""
        self._left, self._own = None, ()
        lines = []
        for name, value in headers:
            kind = _kinds.get(name)
            if kind is None:
                kind = _kind_of(name)
            if kind:
                if kind == HOP_BY_HOP or (kind == LENGTH and status.startswith("204")):
                    continue  # to a 204, which has no body, a length is forbidden: RFC 9110, 8.6
                if kind == OWN:
                    self._own = (*self._own, name.lower())
                else:
                    self._left = _length(value)
            lines.append(f"{name}: {value}\r\n")
        fields = "".join(lines)
        if fields.count("\n") != len(lines) or fields.count("\r") != len(lines) or "\0" in fields:
            raise ValueError("a response header holds a line break or NUL")
        return fields

    def _head(self, size: int | None) -> bytes:
        """Status line and headers; `size` is that of the body, where it is known already."""
        now = time.time()
        if not _prefixes_until - 1.0 <= now < _prefixes_until:  # the clock may also be set back
            _renew_prefixes(now)
        prefix = None if self._own else _prefixes.get(self._status)
        if prefix is None:
            prefix = _prefix(self._status, self._own)
        return f"{prefix}{self._fields}{self._framing(size)}\r\n".encode("latin-1")

    def _framing(self, size: int | None) -> str:
        """The headers that tell the client where the response ends."""
        self._request.expects_continue = False  # a 100 after the final status would be part of it
        line = ""
        if self._request.is_head or self._status[:3] in ("204", "304"):
            self._left = 0
        elif self._left is None:
            if size is not None:
                line = f"Content-Length: {size}\r\n"
            elif self._request.http_1_0:
                self.close = True
            else:
                self._chunked = True
                line = "Transfer-Encoding: chunked\r\n"
        elif size is not None and size < self._left:
            # The client waits for bytes that never come: only the end of the connection tells it.
            self.close = True
        if self.close:
            return line + "Connection: close\r\n"
        return line + "Connection: keep-alive\r\n" if self._request.http_1_0 else line

    # -- sending ------------------------------------------------------------------------------

    def _send_whole(self, body: bytes) -> None:
        if type(body) is not bytes:
            raise TypeError("a piece of a response must be bytes")
        head = self._head(len(body))
        if self._left is not None:
            body = body[: self._left]
        self.begun = True
        if len(body) < JOIN_BYTES:
            self._send(head + body)
        else:
            self._send(head, body)

    def _begin(self) -> bytes:
        if not self._status:
            raise AssertionError("the application did not call start_response")
        head = self._head(None)
        self.begun = True
        return head

    def _finish(self) -> None:
        if not self.begun:
            self._send(self._begin())
        if self._chunked:
            self._send(b"0\r\n\r\n")
        elif self._left:
            self.close = True


def _length(value: str) -> int:
    if not value.isdecimal():
        raise ValueError("the application gave an invalid Content-Length")
    return int(value)


def _kind_of(name: str) -> int:
    """The kind of a header, whose name is checked once and then remembered."""
    if not _TOKEN.fullmatch(name):
        raise ValueError("the name of a response header holds characters that it must not")
    kind = _KIND.get(name.lower(), PLAIN)
    if len(_kinds) < MAX_NAMES:
        _kinds[name] = kind
    return kind


def _renew_prefixes(now: float) -> None:
    """The date has one-second steps: what it is part of is made once in each."""
    global _prefixes_until
    _prefixes_until = int(now) + 1.0
    _prefixes.clear()


def _prefix(status: str, given: Sequence[str]) -> str:
    """Status line, and what the server says about itself unless the application has."""
    lines = [f"HTTP/1.1 {status}\r\n"]
    if "server" not in given:
        lines.append("Server: llmrs\r\n")
    if "date" not in given:
        lines.append(f"Date: {formatdate(usegmt=True)}\r\n")
    text = "".join(lines)
    if not given:
        _prefixes[status] = text
    return text
