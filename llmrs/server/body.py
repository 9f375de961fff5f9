"""Reading a request's body: declared as JSON, bounded in bytes and in time, alone and together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol

import falcon
import gevent
from gunicorn.http.errors import ParseException

from llmrs.errors import (
    BodyTooLarge,
    InvalidRequest,
    PayloadMemoryFull,
    RequestTimeout,
    ServiceError,
    UnsupportedContentType,
)
from llmrs.server.memory import FREE_BYTES, HELD, PayloadMemory, Share

BODY_SECONDS = 30.0
"""A body that takes longer is given up: the stock gevent worker itself never would."""

DISCARD_BYTES = 4 << 20
"""How much of a refused body is still read, so that the client gets to see the answer."""

STEP = 64 * 1024
"""Bytes that are read, and counted, at a time: a reader holds as many before they are seen here."""

CLOSE = "llmrs.close_connection"
"""Key of the WSGI environ: a callable that makes the server close the connection after the answer."""

TIMED = "llmrs.timed_input"
"""Key of the WSGI environ: the server itself gives up a body that does not arrive."""


class _Readable(Protocol):
    def read(self, size: int = ..., /) -> bytes: ...


def read_json_body(
    req: falcon.Request,
    limit: int,
    memory: PayloadMemory,
    wait: Callable[[int], None] = lambda size: None,
) -> bytes:
    """The body's bytes, at most `limit`, of a request that declares uncompressed JSON, or nothing.

    What a large one takes of `memory` is noted in the environ, for `release`. Before any of one
    that declares its length is read, `wait` is called with that.

    Raises:
        BodyTooLarge, UnsupportedContentType, RequestTimeout, PayloadMemoryFull; what `wait` raises
        InvalidRequest: the body is malformed or was not sent to its end.
    """
    length: int | None = req.content_length
    if length is not None and length > limit:
        raise _refuse(req, _too_large(limit))
    _check_type(req)
    stream = _stream(req, length)
    size = limit + 1 if length is None else length
    if length is not None and length > FREE_BYTES:
        try:
            wait(length)
        except ServiceError as error:
            raise _refuse(req, error) from None
    try:
        body = _read_in_time(req, stream, size, memory)
    except (OSError, ParseException):
        close_connection(req.env)
        raise InvalidRequest("the body is malformed or ended early") from None
    except PayloadMemoryFull as error:
        raise _refuse(req, error) from None
    if len(body) > limit:
        del body
        raise _refuse(req, _too_large(limit))
    return body


def release(environ: dict[str, Any]) -> None:
    """Give back the memory that the body of a request has taken, if any."""
    held: Share | None = environ.pop(HELD, None)
    if held is not None:
        held.release()


def _read_in_time(req: falcon.Request, stream: _Readable, size: int, memory: PayloadMemory) -> bytes:
    if TIMED in req.env:
        return _read(req, stream, size, memory)
    try:
        with gevent.Timeout(BODY_SECONDS, TimeoutError()):
            return _read(req, stream, size, memory)
    except TimeoutError:
        close_connection(req.env)
        raise RequestTimeout(f"the body did not arrive within {BODY_SECONDS:.0f} s") from None


def _read(req: falcon.Request, stream: _Readable, size: int, memory: PayloadMemory) -> bytes:
    """At most `size` bytes: a first piece, and if that is not all, further ones as memory allows."""
    first = stream.read(min(size, FREE_BYTES))
    left = size - len(first)
    if not left or len(first) < FREE_BYTES:
        return first
    held = req.env[HELD] = memory.share()
    pieces = [first]
    while left:
        try:
            held.take(min(left, STEP))
        except PayloadMemoryFull:
            pieces.clear()  # which the traceback would keep
            raise
        piece = stream.read(min(left, STEP))
        if not piece:
            break
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def close_connection(environ: dict[str, Any]) -> None:
    """Have the server close this connection after the answer, where it can be told to."""
    close = environ.get(CLOSE)
    if close is not None:
        close()


def _check_type(req: falcon.Request) -> None:
    media_type, _, parameters = (req.content_type or "").lower().partition(";")
    media_type = media_type.strip()
    # Clients that post a text they have written as JSON themselves often say nothing.
    if (
        (media_type or parameters)
        and media_type != "application/json"
        and not (media_type.startswith("application/") and media_type.endswith("+json"))
    ):
        raise UnsupportedContentType("send JSON with Content-Type: application/json")
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip(' "') not in ("utf-8", "utf8"):
            raise UnsupportedContentType("JSON must be encoded in UTF-8")
    if (req.get_header("Content-Encoding") or "identity").strip().lower() != "identity":
        raise UnsupportedContentType("compressed bodies are not accepted; send Content-Encoding: identity")


def _stream(req: falcon.Request, length: int | None) -> _Readable:
    """The body's stream, which always ends by itself.

    Falcon's bounded stream is empty for a chunked body; the server ends that one itself, and
    says so in `wsgi.input_terminated`.
    """
    if length is None and req.env.get("wsgi.input_terminated"):
        stream: _Readable = req.env["wsgi.input"]
        return stream
    return req.bounded_stream


def _refuse(req: falcon.Request, error: ServiceError) -> ServiceError:
    """The error, after reading and dropping what a well-meaning client is about to send.

    Who waits for a 100 before sending is not asked for the body by reading it. (The stock gevent
    worker has sent the 100 by now.)
    """
    release(req.env)
    stream = _stream(req, req.content_length)
    left = 0 if TIMED in req.env and req.get_header("Expect") else DISCARD_BYTES
    with gevent.Timeout(BODY_SECONDS, False), contextlib.suppress(OSError, ParseException, ServiceError):
        while left > 0 and (step := stream.read(min(left, STEP))):
            left -= len(step)
    close_connection(req.env)
    return error


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than the {limit} bytes that payload_limit allows")
