"""W3C Trace Context: reading a caller's trace, and telling it to backends. Text only, no sockets.

A header that is not exactly what the recommendation allows is treated as absent, as it demands; nothing
of it gets into a log line or a backend's request. https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)

TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")
"""512 characters are what everybody has to pass on; more is dropped as a whole."""

MOST_MEMBERS = 32
"""Of a tracestate."""


class Trace(NamedTuple):
    """Where a request stands in its trace.

    Attributes:
        trace_id: 32 hexadecimal digits.
        parent_id: 16 of them, the caller's span; empty where the trace begins here.
        span_id: 16 of them, our own part in it: the parent of what backends do for it.
        flags: 2 of them; the last bit says that the caller records.
        state: the vendors' own entries; empty if there are none.
    """

    trace_id: str
    parent_id: str
    span_id: str
    flags: str
    state: str = ""


def read_trace(traceparent: str | None, tracestate: str | None = None) -> Trace | None:
    """The trace that a caller's headers name, with a span of our own in it; None if they name none.

    Of later versions than 00 the part is read that they share with it.
    """
    found = TRACEPARENT.fullmatch(traceparent or "")
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(parent_id, 16):
        return None
    state = tracestate or ""
    if not TRACESTATE.fullmatch(state) or state.count(",") >= MOST_MEMBERS:
        state = ""
    return Trace(trace_id, parent_id, os.urandom(8).hex(), flags, state)


def call_headers(request_id: str, trace: Trace | None) -> bytes:
    """Header lines by which a backend learns for whom it computes; `request_id` has been checked."""
    lines = f"x-request-id: {request_id}\r\n"
    if trace is not None:
        lines += f"traceparent: 00-{trace.trace_id}-{trace.span_id}-{trace.flags}\r\n"
        if trace.state:
            lines += f"tracestate: {trace.state}\r\n"
    return lines.encode("latin-1")
