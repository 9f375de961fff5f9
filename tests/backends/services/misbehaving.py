"""Ways in which a backend goes wrong below HTTP's meaning; each is a `Behaviour` for `wire.serve`."""

from __future__ import annotations

import socket
import time

from .wire import CLOSE, Behaviour, Connection, Request, head

PAUSE = 0.05


def hangs(connection: Connection, request: Request) -> object:
    """Says nothing for longer than any test waits for an answer, then closes."""
    time.sleep(1.5)
    return CLOSE


def stops(connection: Connection, request: Request) -> object:
    """Sends half an answer, then hangs."""
    connection.send(head(200, 100) + b" " * 50)
    return hangs(connection, request)


def drips(data: bytes, at_once: bytes = b"") -> Behaviour:
    """Sends `at_once`, then `data` a byte at a time: always on time, never done."""

    def behave(connection: Connection, request: Request) -> None:
        connection.send(at_once)
        for i in range(len(data)):
            connection.send(data[i : i + 1])
            time.sleep(PAUSE)

    return behave


def says(data: bytes) -> Behaviour:
    """Sends `data` and closes."""

    def behave(connection: Connection, request: Request) -> object:
        connection.send(data)
        return CLOSE

    return behave


def closes(connection: Connection, request: Request) -> object:
    """Closes without an answer."""
    return CLOSE


def resets(after: bytes = b"") -> Behaviour:
    """Sends `after`, lets the client read it, and resets the connection."""

    def behave(connection: Connection, request: Request) -> object:
        if after:
            connection.send(after)
            time.sleep(2 * PAUSE)
        # With SO_LINGER of 0 seconds close() sends RST instead of FIN.
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        return CLOSE

    return behave


def once_per_connection(first: Behaviour, then: Behaviour) -> Behaviour:
    """`first` for a connection's first request, `then` for its later ones.

    With a `then` that closes, the server closes a kept-alive connection when the next request is
    under way already: no look before use can notice that.
    """

    def behave(connection: Connection, request: Request) -> object:
        earlier = sum(past.connection == connection.number for past in connection.service.requests)
        return (first if earlier == 1 else then)(connection, request)

    return behave


DRIPPING: dict[str, Behaviour] = {
    "hangs": hangs,
    "drips its head": drips(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200),
    "drips its body": drips(b" " * 100, at_once=head(200, 100)),
    "stops in its body": stops,
    "drips without length": drips(b" " * 100, at_once=head(200, None)),
    "drips chunks": drips(b"1\r\n \r\n" * 50, at_once=head(200, None, Transfer_Encoding="chunked")),
}
"""Servers that end no answer within a test's deadline."""

BROKEN: dict[str, Behaviour] = {
    "mid-body": says(head(200, 100) + b"half"),
    "mid-head": says(b"HTTP/1.1 2"),
    "not HTTP": says(b"\x16\x03\x01 no http\r\n\r\n"),
    "bad chunk": says(head(200, None, Transfer_Encoding="chunked") + b"zz\r\n"),
    "no answer": closes,
    "reset": resets(after=head(200, 100) + b"half"),
}
"""Servers that break off."""
