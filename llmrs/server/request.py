"""What a connection knows of one HTTP request, and how it refuses what is none."""

from __future__ import annotations

from typing import Any, NamedTuple

from llmrs.errors import INVALID_REQUEST, SERVER_ERROR, ServiceError


class BadRequest(ServiceError):
    """Bytes that are no acceptable HTTP request. The connection ends with this answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        # Clients take the words invalid_request_error in a 5xx answer for a reason to give up.
        self.type = INVALID_REQUEST if status < 500 else SERVER_ERROR
        self.code = None


class Limits(NamedTuple):
    """Bytes of the request line, number of header fields, bytes of one: gunicorn's limit_request_*."""

    line: int = 4094
    fields: int = 100
    field: int = 8190


class Request:
    """One request: its head as a WSGI environ, and as much of its body as has arrived.

    Attributes:
        complete: whether the body has arrived entirely.
        keep_alive: whether the client expects the connection to stay open.
        expects_continue: whether the client waits for a 100 before it sends the body.
        missing: bytes of the body that have not arrived yet; None if it comes in chunks.
        pieces: of the body, as they arrived, not taken yet.
        fault: why the rest of the body will not come.
    """

    __slots__ = (
        "complete", "environ", "expects_continue", "fault", "http_1_0", "is_head", "keep_alive",
        "missing", "pieces",
    )  # fmt: skip

    def __init__(self, environ: dict[str, Any], method: str, version: str) -> None:
        self.environ = environ
        self.is_head = method == "HEAD"
        self.http_1_0 = version == "HTTP/1.0"
        self.keep_alive = not self.http_1_0
        self.expects_continue = False
        self.missing: int | None = 0
        self.complete = True
        self.pieces: list[bytes] = []
        self.fault: ServiceError | None = None

    def take(self) -> bytes:
        """What has arrived of the body since the last time."""
        pieces = self.pieces
        if not pieces:
            return b""
        self.pieces = []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
