"""OpenTelemetry spans, from a real process to a collector on the loopback interface."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests

from llmrs.config import load
from llmrs.errors import ConfigError
from llmrs.server.app import create_app
from tests.engines import FakeBackend
from tests.processes import llmrs, wait_until

from .test_request_lines import TRACE, TRACED, Backend, backend, embed, told

__all__ = ["backend"]  # a fixture


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP; answers while it is not `held`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[bytes] = []
        self.held = threading.Event()
        self.held.set()

    def settings(self, **more: str) -> dict[str, str]:
        endpoint = f"http://127.0.0.1:{self.server_port}"
        return {
            "TRACING": "otel",
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        } | more

    def spans(self) -> list[tuple[dict[str, Any], Any]]:
        """All spans, each with the attributes of its resource."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        return [
            (attributes(block.resource), span)
            for body in list(self.bodies)
            for block in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in block.scope_spans
            for span in scope.spans
        ]


class _Handler(BaseHTTPRequestHandler):
    server: Collector
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.held.wait(60)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


def attributes(of: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in of.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    try:
        importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    except ImportError:
        message = "OpenTelemetry is not installed"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    service = Collector()
    thread = threading.Thread(target=service.serve_forever)
    thread.start()
    yield service
    service.held.set()
    service.shutdown()
    thread.join()
    service.server_close()


def test_a_request_is_a_span_with_its_stages(collector: Collector, backend: Backend) -> None:
    with llmrs(BACKEND_URL=backend.url, BACKEND_PROTOCOL="embed", **collector.settings()) as server:
        embed(server.url, "traced", **TRACED)
        refused = requests.post(f"{server.url}/embed", json={"texts": 3}, timeout=30)
        assert refused.status_code == 400
        assert requests.get(f"{server.url}/livez", timeout=30).status_code == 200
        wait_until(lambda: len(collector.spans()) >= 6)
    spans = {span.name: (resource, span) for resource, span in collector.spans()}
    stages = {"queue", "tokenize", "inference", "encode"}
    assert spans.keys() == {"POST /v1/embeddings", "POST /embed"} | stages
    resource, request = spans["POST /v1/embeddings"]
    assert resource["service.name"] == "llmrs"
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, "b7ad6b7169203331")
    assert request.kind == request.SPAN_KIND_SERVER
    assert told(backend, "traced")["traceparent"] == f"00-{TRACE}-{request.span_id.hex()}-01"
    assert told(backend, "traced")["tracestate"] == "a=1"
    found = attributes(request)
    assert found.pop("http.request.body.size") > 0
    assert found.pop("http.response.body.size") > 0
    assert found == {
        "http.request.method": "POST",
        "http.route": "/v1/embeddings",
        "http.response.status_code": 200,
        "llmrs.request_id": "mine",
        "llmrs.inputs": 1,
        "llmrs.tokens": 3,
        "llmrs.truncated": 0,
        "llmrs.batch_texts": 1,
    }
    for name in stages:
        stage = spans[name][1]
        assert (stage.trace_id, stage.parent_span_id) == (request.trace_id, request.span_id)
        begin, end = stage.start_time_unix_nano, stage.end_time_unix_nano
        slack = 10_000  # a request's seconds are rounded to microseconds
        assert request.start_time_unix_nano - slack <= begin <= end <= request.end_time_unix_nano + slack
    failed = spans["POST /embed"][1]
    assert failed.trace_id != request.trace_id
    assert attributes(failed)["error.type"] == "invalid_request_error"


def test_a_collector_that_hangs_holds_up_nobody(collector: Collector) -> None:
    collector.held.clear()
    with llmrs(**collector.settings(), OTEL_SERVICE_NAME="search") as server:
        embed(server.url, "first")
        wait_until(lambda: bool(collector.bodies))
        assert collector.spans()[0][0]["service.name"] == "search"
        for i in range(100):  # more spans than one export takes
            embed(server.url, f"text {i}")
        assert requests.get(f"{server.url}/readyz", timeout=30).status_code == 200
        collector.held.set()
        wait_until(lambda: len(collector.spans()) == 101 * 5)


def test_the_last_spans_are_sent_at_the_end(collector: Collector) -> None:
    with llmrs(**collector.settings(OTEL_BSP_SCHEDULE_DELAY="600000")) as server:
        embed(server.url, "last")
        assert not collector.bodies
        assert server.stop() == 0
    assert "POST /v1/embeddings" in {span.name for _, span in collector.spans()}


def test_a_sampler_decides_what_is_recorded(collector: Collector, backend: Backend) -> None:
    settings = collector.settings(OTEL_TRACES_SAMPLER="parentbased_always_off")
    with llmrs(BACKEND_URL=backend.url, BACKEND_PROTOCOL="embed", **settings) as server:
        embed(server.url, "not sampled")
        embed(server.url, "sampled by the caller", **TRACED)
        wait_until(lambda: bool(collector.bodies))
        assert server.stop() == 0
    assert {span.trace_id.hex() for _, span in collector.spans()} == {TRACE}
    flags = told(backend, "not sampled")["traceparent"].rpartition("-")[2]
    assert not int(flags, 16) & 1, "backends need not record either"


def test_without_its_packages_the_start_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "llmrs.server.tracing", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigError, match=r"tracing = \"otel\" .*pip install 'llmrs\[otel\]'"):
        create_app([FakeBackend()], load({"tracing": "otel"}, environ={}, path=None))
