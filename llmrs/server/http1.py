"""HTTP/1.1 without sockets: bytes to requests.

`Parser` cuts the stream into whole heads and bodies and has llhttp (through httptools) read them.
llhttp sees a head only when all of it is here, so a head means the same however the network cut
it, and its size is known exactly. What llhttp lets through and a server should not is refused here.
"""

from __future__ import annotations

import re
from typing import Any

import httptools

from llmrs.server.request import BadRequest, Limits, Request
from llmrs.server.wsgi import KEYS, header_key, split_target

END = b"\r\n\r\n"
MAX_HEAD = 32 * 1024
"""Bytes of a head. Also how much of a chunked body may come without any content in it: chunk
extensions and trailers, which nobody needs and a parser has to hold."""

SINGLETONS = frozenset(
    ("HTTP_HOST", "CONTENT_TYPE", "HTTP_AUTHORIZATION", "HTTP_EXPECT", "HTTP_X_REQUEST_ID")
)
"""Headers with one value. A second one is an attempt to have two readers see different requests."""

_BARE_LF = re.compile(rb"\n(?<!\r\n)")
_METHOD = re.compile(r"[A-Z-]{3,20}")
_VERSION = re.compile(r"HTTP/\d\.\d")


class Parser:
    """Turns the bytes of one connection into requests, in order, one at a time.

    Bytes that follow a request are kept as they are until `next` asks for it, so that pipelined
    requests never cost more than the bytes that were fed.

    Args:
        template: the environ entries that all requests of the connection share.
    """

    def __init__(self, template: dict[str, Any], limits: Limits | None = None) -> None:
        self._template = template
        self._limits = limits or Limits()
        # Shorter heads cannot have too many fields, as each takes four bytes at least.
        self._few = min(self._limits.fields * 4, self._limits.line, self._limits.field)
        self._llhttp = httptools.HttpRequestParser(self)
        self._rest = b""
        self._scanned = 0
        self._request: Request | None = None
        self._environ: dict[str, Any] | None = None
        self._barren = 0

    @property
    def pending(self) -> bool:
        """Whether there are bytes that no request has been made of."""
        return bool(self._rest)

    def close(self) -> None:
        """Let go of llhttp, which holds this parser: only the garbage collector would find the two."""
        del self._llhttp

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the connection. A malformed body becomes its request's `fault`."""
        request = self._request
        if request is None or request.complete:
            self._rest = self._rest + data if self._rest else data
        elif request.missing is None:
            self._feed_chunks(request, self._rest + data)
        else:
            self._feed_counted(request, request.missing, data)

    def next(self) -> Request | None:
        """The request whose head comes next, or None until all of that head has been fed.

        To be called when the request before is complete.

        Raises:
            BadRequest: what comes next is no acceptable request. Nothing after it can be read.
        """
        rest = self._rest
        if not rest:
            return None
        end = rest.find(END, self._scanned) + len(END)
        if end < len(END):
            self._check_start(rest.removeprefix(b"\r\n"))
            self._scanned = max(0, len(rest) - len(END) + 1)
            return None
        self._rest = b""
        self._scanned = self._barren = 0
        # One empty line before a request is forgiven, RFC 9112 (2.2).
        head = rest[:end].removeprefix(b"\r\n")
        try:
            request = self._request = self._read_head(head)
        except BadRequest:
            self._check_start(head)  # which comes first if the head comes in pieces
            raise
        if end < len(rest):
            self.feed(rest[end:])
        return request

    # -- heads --------------------------------------------------------------------------------

    def _check_start(self, start: bytes) -> None:
        """Refuse what can never become a head, so that nobody waits for the rest of it."""
        line = self._limits.line + 2
        bare = _BARE_LF.search(start, max(0, self._scanned - 2), MAX_HEAD)
        if len(start) >= line and start.find(b"\r\n", 0, line) < 0 and (bare is None or bare.start() >= line):
            raise BadRequest(414, "the request line is too long")
        if bare is not None:
            raise _malformed()
        if len(start) > MAX_HEAD:
            raise BadRequest(431, "the header block is too large")

    def _check_sizes(self, head: bytes) -> None:
        limits = self._limits
        if len(head) > limits.line or len(head) > limits.field:
            self._check_start(head)
            fields = head.split(b"\r\n")[1:]
            if len(max(fields, key=len)) + 2 > limits.field:
                raise BadRequest(431, "a header field is too long")
        if head.count(b"\r\n") > limits.fields + 2:
            raise BadRequest(431, "too many header fields")

    def _read_head(self, head: bytes) -> Request:
        if len(head) > self._few:
            self._check_sizes(head)
        try:
            method, target, version = head[: head.find(b"\r\n")].decode("latin-1").split(" ")
        except ValueError:
            raise BadRequest(400, "malformed request line") from None
        if not method[:1].isupper():
            raise _malformed()  # llhttp would skip line breaks here
        if version != "HTTP/1.1" and version != "HTTP/1.0":
            status = 505 if _VERSION.fullmatch(version) else 400
            raise BadRequest(status, "the HTTP version must be 1.1 or 1.0")
        environ = self._environ = self._template.copy()
        offered = self._feed_head(head, method)
        self._environ = None
        environ["REQUEST_METHOD"] = method
        environ["SERVER_PROTOCOL"] = version
        environ["RAW_URI"] = target
        request = Request(environ, method, version)
        self._read_fields(request, environ)
        try:
            environ["PATH_INFO"], environ["QUERY_STRING"], host = split_target(target, method)
        except ValueError:
            raise BadRequest(400, "unknown form of request target") from None
        if host:
            environ["HTTP_HOST"] = host
        if offered:
            self._decline_upgrade(request)
        return request

    def _feed_head(self, head: bytes, method: str) -> bool:
        """Have llhttp read a head into the environ; whether it offers another protocol."""
        try:
            self._llhttp.feed_data(head)
        except httptools.HttpParserUpgrade:
            if method == "CONNECT":
                raise BadRequest(501, "CONNECT is not supported") from None
            return True
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__context__, BadRequest):
                raise error.__context__ from None
            raise
        except httptools.HttpParserInvalidMethodError:
            if _METHOD.fullmatch(method):
                raise BadRequest(501, "unknown HTTP method") from None
            raise _malformed() from None
        except httptools.HttpParserError:
            raise _malformed() from None
        return False

    def _read_fields(self, request: Request, environ: dict[str, Any]) -> None:
        """Draw what the connection itself needs from the header fields, and refuse ambiguous ones."""
        get = environ.get
        if get("HTTP_HOST") is None and not request.http_1_0:
            raise BadRequest(400, "the Host header is missing")
        connection = get("HTTP_CONNECTION")
        if connection is not None:
            options = [option.strip(" \t") for option in connection.lower().split(",")]
            request.keep_alive = "close" not in options and (request.keep_alive or "keep-alive" in options)
        length, coding = get("CONTENT_LENGTH"), get("HTTP_TRANSFER_ENCODING")
        if length is not None:
            request.missing = int(length)  # llhttp has seen to it that these are digits, and few
            request.complete = not request.missing
        if coding is not None:
            if coding.lower() != "chunked":
                raise BadRequest(501, "only the chunked transfer coding is supported")
            if request.http_1_0:
                raise BadRequest(400, "HTTP/1.0 has no transfer codings")
            request.missing, request.complete = None, False
        expectation = get("HTTP_EXPECT")
        if expectation is not None:
            if expectation.lower() != "100-continue":
                raise BadRequest(417, "unknown expectation")
            request.expects_continue = not request.http_1_0 and not request.complete

    def _decline_upgrade(self, request: Request) -> None:
        """Have llhttp go on with HTTP/1.1 after an offer of another protocol, which it would accept.

        It takes what follows such a head for the other protocol, body included. So another llhttp
        gets a head with the same body and no offer. (Java's client offers h2c by default.)
        """
        self._llhttp = httptools.HttpRequestParser(self)
        if not request.complete:
            size = request.missing
            coding = "Transfer-Encoding: chunked" if size is None else f"Content-Length: {size}"
            self._llhttp.feed_data(f"POST / HTTP/1.1\r\n{coding}\r\n\r\n".encode())

    # -- bodies -------------------------------------------------------------------------------

    def _feed_counted(self, request: Request, missing: int, data: bytes) -> None:
        """A body of known length: llhttp only hands it back, and stays in step."""
        if len(data) > missing:
            self._rest = data[missing:]
            data = data[:missing]
        request.missing = missing - len(data)
        self._llhttp.feed_data(data)

    def _feed_chunks(self, request: Request, data: bytes) -> None:
        """A chunked body. It always ends with an empty line, so llhttp gets it cut after each of
        those: that is how we know which bytes belong to the next request."""
        start = 0
        while not (request.complete or request.fault):
            end = data.find(END, start) + len(END)
            if end < len(END):
                # Bytes that may be the beginning of an empty line wait for the rest of it.
                end = len(data) - next((n for n in (3, 2, 1) if data.endswith(END[:n], start)), 0)
                self._feed_chunk(request, data[start:end])
                start = end
                break
            self._feed_chunk(request, data[start:end])
            start = end
        self._rest = data[start:]

    def _feed_chunk(self, request: Request, data: bytes) -> None:
        self._barren += len(data)
        try:
            self._llhttp.feed_data(data)
        except httptools.HttpParserError:
            request.fault = BadRequest(400, "malformed chunked body")
        if self._barren > MAX_HEAD:
            request.fault = BadRequest(431, "the chunked body carries too much besides content")

    # -- called by llhttp ---------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        environ = self._environ
        if environ is None:
            return  # a trailer: nobody needs it, and merging it into the head would be a hole
        key = KEYS.get(name)
        if key is None:
            key = header_key(name)
        if not key:
            return
        text = value.decode("latin-1").rstrip(" \t")
        if key in environ:
            if key in SINGLETONS:
                raise BadRequest(400, "a header field that may stand once stands twice")
            text = f"{environ[key]},{text}"
        environ[key] = text

    def on_body(self, data: bytes) -> None:
        assert self._request is not None
        self._barren = 0
        self._request.pieces.append(data)

    def on_message_complete(self) -> None:
        # Of a message without a body, while its head is read and there is no request yet, too.
        if self._request is not None:
            self._request.complete = True


def _malformed() -> BadRequest:
    return BadRequest(400, "malformed HTTP request")
