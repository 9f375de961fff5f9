"""One client connection: read a request, call the application, write the answer in one piece.

The cost per request is what this file is for. The stock gevent worker spends 120-170 us on reading,
environ, logging and two writes; the walk here is a recv, llhttp, a dict, the application, a send.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from time import monotonic
from typing import Any
from uuid import uuid4

import gevent

from llmrs import wire
from llmrs.errors import InternalError, RequestTimeout, ServiceError
from llmrs.server.body import CLOSE, TIMED
from llmrs.server.channel import BODY, FAR, HEAD, IDLE, WORK, Channel, ClientGone, Timeouts
from llmrs.server.http1 import Parser
from llmrs.server.presence import GONE, Presence
from llmrs.server.request import BadRequest, Limits, Request
from llmrs.server.response import Response
from llmrs.server.wsgi import Input

log = logging.getLogger("llmrs.server")

KEEP_BYTES = 64 * 1024
"""A connection is kept after a request whose body the application left unread if no more than this
is still to come. Reading more only to drop it costs more than a new connection."""

BODY_BYTES_PER_SECOND = 1000
"""The slowest pace at which a body may come."""

REFUSED: Counter[int] = Counter()
"""Answers by status that no application has seen: to bytes that are no request, or come too slowly."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection(Channel):
    """Serves one accepted socket until it is closed.

    Args:
        template: the environ entries that all requests of this connection share.
        app: the WSGI application.
        proceed: called after the application; tells whether the server takes further requests.
        schemes: environ keys by which a trusted peer tells that its own client used https, with
            the values that say so.
    """

    __slots__ = ("_app", "_body_until", "_parser", "_presence", "_proceed", "_reading", "_schemes")

    def __init__(
        self,
        sock: Any,
        template: dict[str, Any],
        app: Any,
        *,
        proceed: Callable[[], bool],
        schemes: dict[str, str],
        limits: Limits,
        timeouts: Timeouts,
    ) -> None:
        super().__init__(sock, timeouts)
        self._app = app
        self._proceed = proceed
        self._schemes = schemes
        self._presence = Presence(self._raw)
        self._parser = Parser(template | {TIMED: True, GONE: self._presence.gone}, limits)
        self._reading: Request | None = None
        self._body_until = FAR

    def serve(self) -> None:
        """Answer requests until the connection ends. Never raises for what a client does."""
        try:
            self._serve()
        except (ClientGone, OSError):
            pass
        finally:
            self.close()
            self._parser.close()

    def _serve(self) -> None:
        try:
            while (request := self._next()) is not None and self._answer(request):
                pass
        except ServiceError as error:
            self._refuse(error)
            self.linger()

    def send(self, *parts: bytes) -> None:
        """Send all of the parts, less what has been sent ahead of an answer."""
        if self._presence.begun:
            parts = self._presence.rest(parts)
        super().send(*parts)

    # -- reading ------------------------------------------------------------------------------

    def _next(self) -> Request | None:
        """The next request once its head is complete; None when the client has no more.

        Raises:
            BadRequest: what came is no acceptable request.
            RequestTimeout: the head did not arrive in time.
        """
        parser = self._parser
        if parser.pending:
            gevent.sleep(0)  # many requests in one packet must not keep other clients waiting
        else:
            self._state = IDLE
            self._deadline = monotonic() + self._timeouts.idle
            data = self.receive()
            if not data:
                return None
            parser.feed(data)
        request = parser.next() or self._finish_head()
        self._state = WORK
        self._deadline = FAR
        return request

    def _finish_head(self) -> Request | None:
        self._state, self._deadline = HEAD, monotonic() + self._timeouts.head
        while data := self.receive():
            self._parser.feed(data)
            request = self._parser.next()
            if request is not None:
                return request
        if self.expired:
            raise RequestTimeout("the head of the request did not arrive in time")
        return None

    def _read_body(self, request: Request) -> bytes:
        """The next piece of a request's body, empty at its end.

        Its errors are service errors, which pass through the application: llmrs makes them its
        answer, and those that another application lets through are answered here.

        Raises:
            BadRequest: the body is malformed, or the client ended the connection in it.
            RequestTimeout: the client sent nothing of it for too long.
        """
        if self._reading is not request:
            self._reading = request
            self._body_until = monotonic() + self._timeouts.body
        while not request.pieces and not request.complete:
            if request.fault is not None:
                raise request.fault
            if request.expects_continue:
                request.expects_continue = False
                with contextlib.suppress(ClientGone):  # reading will tell it in the form of an answer
                    self.send(CONTINUE)
            data = self._receive_body()
            if data:
                self._parser.feed(data)
            elif self.expired:
                request.fault = RequestTimeout("the body of the request did not arrive in time")
            else:
                request.fault = BadRequest(400, "the body of the request ended early")
        return request.take()

    def _receive_body(self) -> bytes:
        self._state, self._deadline = BODY, self._body_until
        try:
            data = self.receive()
        finally:
            self._state, self._deadline = WORK, FAR
        # Bytes buy time, or one byte every half minute would hold a connection for ever; but not
        # more than there was in the beginning, or a fast start would.
        bought = self._body_until + len(data) / BODY_BYTES_PER_SECOND
        self._body_until = min(bought, monotonic() + self._timeouts.body)
        return data

    # -- answering ----------------------------------------------------------------------------

    def _answer(self, request: Request) -> bool:
        """Call the application and send what it says; whether the connection goes on."""
        environ = request.environ
        del request.environ  # which holds the request: a cycle, and work for the garbage collector
        response = Response(request, self.send)
        environ["wsgi.input"] = Input(request, self._read_body)
        environ[CLOSE] = response.force_close
        if self._schemes:
            self._read_scheme(environ)
        try:
            result = self._app(environ, response.start)
            try:
                if not self._may_go_on(request):
                    response.close = True
                response.respond(result)
            finally:
                close = getattr(result, "close", None)
                if close is not None:
                    close()
        except ClientGone:
            raise
        except (Exception, gevent.Timeout) as error:
            return self._answer_failure(response, error)
        if response.close:
            if not request.complete or self._parser.pending:
                self.linger()
            return False
        return request.complete or self._skip_body(request)

    def _may_go_on(self, request: Request) -> bool:
        """Asked after the application ran: the process may have been told to end meanwhile."""
        if not self._proceed() or self.expired:
            return False
        if request.complete:
            return True
        missing = request.missing
        unasked = request.expects_continue  # nobody knows whether that body will come
        return not (request.fault or unasked or missing is None or missing > KEEP_BYTES)

    def _skip_body(self, request: Request) -> bool:
        try:
            while self._read_body(request):
                pass
        except ServiceError:
            return False  # the request has its answer already
        return True

    def _answer_failure(self, response: Response, error: BaseException) -> bool:
        """What the application raised: an answer, unless it has already begun another."""
        if not isinstance(error, ServiceError):
            log.error("the application failed", exc_info=error)
            error = InternalError("the server made a mistake; its log has the details")
        if response.begun:
            return False  # cut off: the only sign of an error that is left
        raise error

    def _refuse(self, error: ServiceError) -> None:
        """Answer in the form of every other error, and end the connection."""
        log.debug("a request was refused: %d, %s", error.status, error)
        REFUSED[error.status] += 1
        request = Request({}, "", "HTTP/1.1")
        request.keep_alive = False
        response = Response(request, self.send)
        phrase = HTTPStatus(error.status).phrase
        headers = {"Content-Type": "application/json", "x-request-id": uuid4().hex, **error.headers}
        response.start(f"{error.status} {phrase}", list(headers.items()))
        response.respond([wire.encode_error(error)])

    def _read_scheme(self, environ: dict[str, Any]) -> None:
        told = None
        for key, secure in self._schemes.items():
            value = environ.get(key)
            if value is not None:
                scheme = "https" if value == secure else "http"
                if told not in (None, scheme):
                    raise BadRequest(400, "the headers contradict each other about the scheme")
                environ["wsgi.url_scheme"] = told = scheme
