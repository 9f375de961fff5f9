"""Reading a request's body: declared as JSON, bounded in bytes and in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import falcon
import gevent
from gunicorn.http.errors import ParseException

from llmrs.errors import BodyTooLarge, InvalidRequest, RequestTimeout, UnsupportedContentType

BODY_SECONDS = 30.0
"""A body that takes longer is given up: the stock gevent worker itself never would."""

DISCARD_BYTES = 4 << 20
"""How much of a refused body is still read, so that the client gets to see the answer."""

STEP = 1 << 20

CLOSE = "llmrs.close_connection"
"""Key of the WSGI environ: a callable that makes the server close the connection after the answer."""

TIMED = "llmrs.timed_input"
"""Key of the WSGI environ: the server itself gives up a body that does not arrive."""


class _Readable(Protocol):
    def read(self, size: int = ..., /) -> bytes: ...


def read_json_body(req: falcon.Request, limit: int) -> bytes:
    """The body's bytes, at most `limit`, of a request that declares uncompressed JSON.

    Raises:
        BodyTooLarge, UnsupportedContentType, RequestTimeout
        InvalidRequest: the body is malformed or was not sent to its end.
    """
    length: int | None = req.content_length
    if length is not None and length > limit:
        _refuse(req, length, limit)
    _check_type(req)
    read = _stream(req, length).read
    size = limit + 1 if length is None else length
    try:
        body = read(size) if TIMED in req.env else _read_in_time(req, read, size)
    except (OSError, ParseException):
        close_connection(req.env)
        raise InvalidRequest("the body is malformed or ended early") from None
    if len(body) > limit:
        _refuse(req, None, limit)
    return body


def _read_in_time(req: falcon.Request, read: Callable[[int], bytes], size: int) -> bytes:
    try:
        with gevent.Timeout(BODY_SECONDS, TimeoutError()):
            return read(size)
    except TimeoutError:
        close_connection(req.env)
        raise RequestTimeout(f"the body did not arrive within {BODY_SECONDS:.0f} s") from None


def close_connection(environ: dict[str, Any]) -> None:
    """Have the server close this connection after the answer, where it can be told to."""
    close = environ.get(CLOSE)
    if close is not None:
        close()


def _check_type(req: falcon.Request) -> None:
    media_type, _, parameters = (req.content_type or "").lower().partition(";")
    media_type = media_type.strip()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
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


def _refuse(req: falcon.Request, length: int | None, limit: int) -> None:
    """Read and drop what a well-meaning client is about to send, then refuse.

    Who waits for a 100 before sending is not asked for the body by reading it. (The stock gevent
    worker has sent the 100 by now.)
    """
    stream = _stream(req, length)
    left = 0 if TIMED in req.env and req.get_header("Expect") else DISCARD_BYTES
    with gevent.Timeout(BODY_SECONDS, False):
        while left > 0 and (step := stream.read(min(left, STEP))):
            left -= len(step)
    close_connection(req.env)
    raise BodyTooLarge(f"the body is larger than the {limit} bytes that payload_limit allows")
