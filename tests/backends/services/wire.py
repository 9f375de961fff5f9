"""An HTTP/1.1 service on a real socket, a thread per connection, that does exactly what it is told.

`service.behave(connection, request)` answers each request, well or badly; it may be replaced while
the service runs. What was asked is recorded in `service.requests`.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, NamedTuple


class Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """One client's connection."""

    def __init__(self, service: Service, sock: socket.socket, number: int) -> None:
        self.service = service
        self.sock = sock
        self.number = number
        self._file: BinaryIO = sock.makefile("rb")

    def run(self) -> None:
        with suppress(OSError, ValueError), self.sock:
            while (request := self._read()) is not None:
                self.service.requests.append(request)
                if self.service.behave(self, request) is CLOSE:
                    break
            self._file.close()

    def _read(self) -> Request | None:
        line = self._file.readline().split()
        if len(line) != 3:
            return None
        headers: dict[str, str] = {}
        while header := self._file.readline().strip():
            name, _, value = header.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        body = self._file.read(int(headers.get("content-length", 0)))
        return Request(line[0].decode(), line[1].decode(), headers, body, self.number)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self, value: object, status: int = 200, **headers: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send(head(status, len(body), **headers) + body)


CLOSE = object()
"""What `behave` returns to have the connection closed."""

Behaviour = Callable[[Connection, Request], object]


def head(status: int, length: int | None, **headers: str) -> bytes:
    fields = {"Content-Type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
    if length is not None:
        fields["Content-Length"] = str(length)
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Because\r\n{lines}\r\n".encode("latin-1")


class Service:
    def __init__(self, listener: socket.socket, behave: Behaviour) -> None:
        self.behave = behave
        self.requests: list[Request] = []
        self.connections: list[socket.socket] = []
        self._listener = listener

    @property
    def url(self) -> str:
        name = self._listener.getsockname()
        return f"unix:{name}" if isinstance(name, str) else f"http://127.0.0.1:{name[1]}"

    def posts(self) -> list[Request]:
        return [request for request in self.requests if request.method == "POST"]

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.connections.append(sock)
                connection = Connection(self, sock, len(self.connections))
                threading.Thread(target=connection.run, daemon=True).start()

    def drop_connections(self) -> None:
        """Close every connection at once, kept-alive ones included, with a FIN."""
        for sock in self.connections:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


@contextmanager
def serve(behave: Behaviour, listener: socket.socket | None = None) -> Iterator[Service]:
    """A running service on a free port of the loopback interface, or on `listener`."""
    listener = listener or socket.create_server(("127.0.0.1", 0))
    service = Service(listener, behave)
    threading.Thread(target=service.accept, daemon=True).start()
    try:
        yield service
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        service.drop_connections()
