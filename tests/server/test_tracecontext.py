"""traceparent and tracestate: what is read of them, and what backends are told."""

from __future__ import annotations

import pytest

from llmrs.server.tracecontext import call_headers, read_trace

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


def test_a_span_of_our_own_in_the_callers_trace() -> None:
    traces = [read_trace(f"00-{TRACE}-{SPAN}-01", "a=1, b=2") for _ in range(2)]
    assert {(t.trace_id, t.parent_id, t.flags, t.state) for t in traces if t} == {
        (TRACE, SPAN, "01", "a=1, b=2")
    }
    spans = {t.span_id for t in traces if t}
    assert len(spans) == 2
    assert SPAN not in spans


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01\n",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0g",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"01-{TRACE}-{SPAN}-01more",
        f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-٠١",
    ],
)
def test_what_is_no_traceparent_is_ignored(header: str | None) -> None:
    assert read_trace(header, "a=1") is None


@pytest.mark.parametrize("header", [f"01-{TRACE}-{SPAN}-09", f"cc-{TRACE}-{SPAN}-01-what-comes"])
def test_later_versions_are_read_as_far_as_this_one_goes(header: str) -> None:
    trace = read_trace(header)
    assert trace is not None
    assert call_headers("id", trace).startswith(b"x-request-id: id\r\ntraceparent: 00-" + TRACE.encode())


@pytest.mark.parametrize(
    ("state", "passed_on"),
    [("a=1", True), ("x" * 512, True), ("x" * 513, False), ("a=é", False), ("a=1\r\nb: c", False)],
)
def test_a_tracestate_is_passed_on_whole_or_not(state: str, passed_on: bool) -> None:
    lines = call_headers("id", read_trace(f"00-{TRACE}-{SPAN}-00", state))
    assert (b"tracestate: " + state.encode() + b"\r\n" in lines) == passed_on
    assert lines.count(b"\r\n") == 2 + passed_on


def test_a_tracestate_with_too_many_members_is_dropped() -> None:
    for members, passed_on in ((32, True), (33, False)):
        trace = read_trace(f"00-{TRACE}-{SPAN}-00", ",".join(["a=1"] * members))
        assert trace is not None
        assert bool(trace.state) == passed_on


def test_without_a_trace_only_the_id_is_told() -> None:
    assert call_headers("my-id", None) == b"x-request-id: my-id\r\n"
