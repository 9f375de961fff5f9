"""OpenTelemetry: a server span per request, with a child for each stage that took time.

Wraps the SDK and its OTLP exporter, which come with the extra `otel` and are configured by the standard
OTEL_* variables; imported only where `tracing` asks for it. The children are made when the request is
over, from the times that were taken anyway. The exporter's thread is a greenlet in a patched process:
its socket waits do not hold the hub, but encoding does, so it sends few spans at a time.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from typing import Any

import gevent
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from llmrs import __version__
from llmrs.server.logs import OURS
from llmrs.server.requestlog import Line
from llmrs.server.tracecontext import Trace

BATCH = 16
"""Spans sent at a time, unless OTEL_BSP_MAX_EXPORT_BATCH_SIZE says otherwise. Encoding one takes 50 us,
in which nobody is answered, and nothing may hold the hub for longer than a millisecond."""

CLOSE_SECONDS = 3.0
"""How long the end of the process waits for the last spans to be sent."""

ATTRIBUTES = {
    "method": "http.request.method",
    "route": "http.route",
    "status": "http.response.status_code",
    "bytes_in": "http.request.body.size",
    "bytes_out": "http.response.body.size",
    "code": "error.type",
    "request_id": "llmrs.request_id",
    "key": "llmrs.key",
    "inputs": "llmrs.inputs",
    "tokens": "llmrs.tokens",
    "truncated": "llmrs.truncated",
    "batch_texts": "llmrs.batch_texts",
}
"""What a request's line says, under the names of the semantic conventions where there are some."""


class Tracing:
    """Makes spans and hands them to the exporter."""

    def __init__(self) -> None:
        # The SDK's own complaints, of a collector that is away for instance, belong into our log.
        complaints = logging.getLogger("opentelemetry")
        complaints.handlers, complaints.propagate = list(OURS.handlers), False
        self._provider = TracerProvider(resource=Resource.create(_resource()), shutdown_on_exit=False)
        size = None if "OTEL_BSP_MAX_EXPORT_BATCH_SIZE" in os.environ else BATCH
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), max_export_batch_size=size))
        self._tracer = self._provider.get_tracer("llmrs", __version__)

    def begin(self, method: str, caller: Trace | None) -> tuple[Any, Trace]:
        """The span of a request that begins now, and what backends are told of it.

        Whether it is recorded is decided here, by the sampler that OTEL_TRACES_SAMPLER names.
        """
        parent = Context()
        if caller is not None:
            context = SpanContext(
                int(caller.trace_id, 16),
                int(caller.parent_id, 16),
                is_remote=True,
                trace_flags=TraceFlags(int(caller.flags, 16)),
            )
            parent = set_span_in_context(NonRecordingSpan(context), parent)
        span = self._tracer.start_span(method, parent, SpanKind.SERVER, start_time=time.time_ns())
        ours = span.get_span_context()
        trace = Trace(
            f"{ours.trace_id:032x}",
            caller.parent_id if caller is not None else "",
            f"{ours.span_id:016x}",
            f"{ours.trace_flags:02x}",
            caller.state if caller is not None else "",
        )
        return span, trace

    def end(self, span: Any, line: Line, arrived: float, stages: Iterator[tuple[str, float, float]]) -> None:
        """The request of a span is over.

        `arrived` and the stages' beginnings are readings of time.monotonic(); a stage is its name,
        its beginning and its seconds.
        """
        span.update_name(f"{line.method} {line.route}")
        for name, attribute in ATTRIBUTES.items():
            value = getattr(line, name)
            if value is not None:
                span.set_attribute(attribute, value)
        if line.status >= 500:
            span.set_status(StatusCode.ERROR)
        within = set_span_in_context(span, Context())
        for name, began, seconds in stages:
            start = span.start_time + round((began - arrived) * 1e9)
            child = self._tracer.start_span(name, within, start_time=start)
            child.end(start + round(seconds * 1e9))
        span.end(span.start_time + round(line.seconds * 1e9))

    def close(self) -> None:
        """Send what is left, if the collector takes it soon."""
        with gevent.Timeout(CLOSE_SECONDS, False):
            self._provider.shutdown()


def _resource() -> dict[str, str]:
    """What is told of this service; its name can be set the standard ways."""
    resource = {"service.version": __version__}
    if not os.environ.get("OTEL_SERVICE_NAME") and "service.name=" not in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    ):
        resource["service.name"] = "llmrs"
    return resource
