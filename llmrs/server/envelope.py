"""What every request gets whatever becomes of it: an arrival time, an id, the key check, an account.

Runs around every route, as Falcon's middleware, so everything here is paid for by every request.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import falcon

from llmrs.errors import MethodNotAllowed
from llmrs.server.auth import OPEN_PATHS, ApiKeys
from llmrs.server.cors import Cors
from llmrs.server.metrics import Metrics
from llmrs.server.requestlog import LOGGER, Line, RequestLog, now
from llmrs.server.serving import Answer
from llmrs.server.tracecontext import read_trace

if TYPE_CHECKING:
    from llmrs.server.tracing import Tracing

UNTRACED = OPEN_PATHS | {"/metrics"}
"""Asked all day by machines: spans of them would bury the others."""

MIN_SPAN = 0.001
"""Seconds at the door that are worth a span of their own. Most requests spend microseconds there."""

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Envelope:
    """Begins and ends every request.

    What it and the routes find out is in the request's context: `arrived` (a reading of
    time.monotonic()), `request_id`, `trace`, `span`, `key_name`; `answer` and `timings` once there are
    vectors, `encoding` (when it began, seconds) once they are written; `error` (its code) and
    `rejection` once there is an error.
    """

    def __init__(
        self,
        keys: ApiKeys,
        metrics: Metrics,
        request_log: RequestLog,
        cors: Cors | None,
        tracing: Tracing | None,
    ) -> None:
        self._keys = keys
        self._metrics = metrics
        self._log = request_log
        self._cors = cors
        self._tracing = tracing

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        context = req.context
        context.arrived = time.monotonic()
        theirs = req.env.get("HTTP_X_REQUEST_ID", "")
        context.request_id = theirs if REQUEST_ID.fullmatch(theirs) else os.urandom(16).hex()
        parent = req.env.get("HTTP_TRACEPARENT")
        context.trace = None if parent is None else read_trace(parent, req.env.get("HTTP_TRACESTATE"))
        context.timings = ""
        context.answer = context.encoding = context.error = context.key_name = context.span = None
        if self._cors is not None and self._cors.answer_preflight(req, resp):
            return
        if self._tracing is not None and req.path.rstrip("/") not in UNTRACED:
            context.span, context.trace = self._tracing.begin(req.method, context.trace)
        context.key_name = self._keys.check(req.path, req.get_header("Authorization"))
        if req.method not in falcon.COMBINED_METHODS:
            raise MethodNotAllowed("unknown HTTP method", headers={"Allow": "GET, HEAD, OPTIONS, POST"})

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, req_succeeded: bool
    ) -> None:
        context = req.context
        if self._cors is not None:
            self._cors.mark(req, resp)
        resp.set_header("x-request-id", context.request_id)
        seconds = time.monotonic() - context.arrived
        total = f"total;dur={seconds * 1e3:.2f}"
        timings = context.timings
        resp.set_header("Server-Timing", f"{timings}, {total}" if timings else total)
        status = str(resp.status)[:3]
        self._metrics.count_request(req.uri_template or "none", status, seconds, context.key_name)
        if self._metrics.tei is not None and context.answer is not None and context.error is None:
            self._metrics.tei.count_answer(context.answer, seconds)
        if context.error is not None:
            self._metrics.count_error(status, context.error, context.rejection)
        logged = self._log.wants(status)
        traced = context.span is not None and context.span.is_recording()
        if logged or traced:
            self._tell(_line(req, resp, status, seconds), context, logged, traced)

    def _tell(self, line: Line, context: Any, logged: bool, traced: bool) -> None:
        if logged:
            self._log.write(line)
        if traced and self._tracing is not None:
            self._tracing.end(context.span, line, context.arrived, _stages(context))


def _line(req: falcon.Request, resp: falcon.Response, status: str, seconds: float) -> Line:
    context = req.context
    route = req.uri_template or "none"
    line = Line(
        time=now(),
        level="error" if status[0] == "5" else "info",
        logger=LOGGER,
        message=f"{req.method} {route} {status}",
        request_id=context.request_id,
        method=req.method,
        route=route,
        status=int(status),
        seconds=round(seconds, 6),
        code=context.error,
        key=context.key_name,
        bytes_in=req.content_length,
        bytes_out=len(resp.data or b""),
    )
    answer: Answer | None = context.answer
    if answer is not None:
        line.queue_ms = round(answer.queue_seconds * 1e3, 3)
        line.tokenize_ms = round(answer.tokenize_seconds * 1e3, 3)
        line.inference_ms = round(answer.inference_seconds * 1e3, 3)
        line.inputs, line.tokens = len(answer.matrix), answer.n_tokens
        line.truncated, line.batch_texts = answer.truncated, answer.batch_texts
    if context.trace is not None:
        line.trace_id, line.span_id = context.trace.trace_id, context.trace.span_id
    return line


def _stages(context: Any) -> Iterator[tuple[str, float, float]]:
    """The parts of a request that took time: name, beginning, seconds."""
    answer: Answer | None = context.answer
    if answer is not None:
        at = answer.began
        if answer.door_seconds >= MIN_SPAN:
            yield "door", at - answer.door_seconds, answer.door_seconds
        for name, seconds in (
            ("tokenize", answer.tokenize_seconds),
            ("queue", answer.queue_seconds - answer.door_seconds),
            ("inference", answer.inference_seconds),
        ):
            yield name, at, seconds
            at += seconds
    if context.encoding is not None:
        yield "encode", *context.encoding
