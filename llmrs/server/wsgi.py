"""What WSGI (PEP 3333) calls the parts of a request: environ keys, path and query, wsgi.input.

No sockets and no parsing of HTTP here; `http1` and `connection` do those.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Generic, Protocol, TypeVar
from urllib.parse import unquote_to_bytes, urlsplit

MAX_NAMES = 1000
"""How many header names are remembered: clients choose them."""

KEYS: dict[bytes, str] = {}
"""Header names as clients spelled them, to the environ keys that `header_key` made of them."""


class _Arriving(Protocol):
    """A request whose body may still be on its way."""

    complete: bool

    def take(self) -> bytes: ...


Request = TypeVar("Request", bound=_Arriving)


class Input(Generic[Request]):
    """wsgi.input: the body of one request, read from the connection only as it is asked for.

    Args:
        request: gives what has arrived already.
        more: waits for the next piece of a request's body; empty at its end.
    """

    __slots__ = ("_more", "_request", "_rest")

    def __init__(self, request: Request, more: Callable[[Request], bytes]) -> None:
        self._request = request
        self._more = more
        self._rest = b""

    def read(self, size: int | None = -1) -> bytes:
        """At most `size` bytes, all that is left if None or negative; fewer only at the body's end."""
        if size is None or size < 0:
            return self._gather(self._next(), None)
        if not size:
            return b""
        data = self._next()
        if len(data) < size:
            data = self._gather(data, size)
        if len(data) > size:
            self._rest = data[size:]
            return data[:size]
        return data

    def readline(self, size: int | None = -1) -> bytes:
        """Up to and including the next line break, at most `size` bytes unless None or negative."""
        pieces: list[bytes] = []
        left = -1 if size is None else size
        while left and (data := self._next()):
            end = data.find(b"\n") + 1 or len(data)
            if 0 < left < end:
                end = left
            pieces.append(data[:end])
            self._rest = data[end:]
            if data[end - 1] == 10:
                break
            left -= end if left > 0 else 0
        return b"".join(pieces)

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        """All lines; stops after `hint` bytes if that is positive."""
        lines: list[bytes] = []
        size = 0
        while (not hint or hint < 0 or size < hint) and (line := self.readline()):
            lines.append(line)
            size += len(line)
        return lines

    def __iter__(self) -> Input[Request]:
        return self

    def __next__(self) -> bytes:
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def _next(self) -> bytes:
        """What a shorter read left over, else the next piece; empty at the end."""
        rest = self._rest or self._request.take() or self._more(self._request)
        self._rest = b""
        return rest

    def _gather(self, first: bytes, size: int | None) -> bytes:
        """`first` and further pieces, until there are `size` bytes or the body ends."""
        if self._request.complete:
            return first
        pieces = [first]
        have = len(first)
        while (size is None or have < size) and (piece := self._more(self._request)):
            pieces.append(piece)
            have += len(piece)
        return b"".join(pieces)


def header_key(name: bytes) -> str:
    """The environ key of a header; empty for one that would be mistaken for another.

    With both `X-Real-Ip` and `X_Real_Ip` in a request the environ could not tell them apart, so
    names with an underscore are dropped, as gunicorn and nginx do.
    """
    upper = name.decode("latin-1").upper()
    key = upper.replace("-", "_")
    if "_" in upper:
        key = ""
    elif key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        key = "HTTP_" + key
    if len(KEYS) < MAX_NAMES:
        KEYS[name] = key
    return key


@lru_cache(maxsize=512)
def split_target(target: str, method: str) -> tuple[str, str, str]:
    """Path, query and host of a request target; the host is empty unless the target names one.

    The path is unquoted, and bytes beyond ASCII are spelled as latin-1, as WSGI has it.

    Raises:
        ValueError: it is not a form of target that RFC 9112 (3.2) allows for this method.
    """
    host = ""
    if not target.startswith("/"):
        if target == "*" and method == "OPTIONS":
            return "*", "", ""
        # Absolute form, as sent to proxies; a server must take it, too, and its host counts.
        parts = urlsplit(target)
        host = parts.netloc.rpartition("@")[2]
        if parts.scheme not in ("http", "https") or not host:
            raise ValueError("unknown form of request target")
        target = (parts.path or "/") + ("?" + parts.query if parts.query else "")
    path, _, query = target.partition("#")[0].partition("?")
    if "%" in path:
        path = unquote_to_bytes(path).decode("latin-1")
    return path, query, host
