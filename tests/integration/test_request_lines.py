"""Request lines and trace headers in real processes: where they go, and what a backend is told."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests

from tests.processes import clean_environment, free_port, listens, llmrs, wait_until

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACED = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "tracestate": "a=1", "X-Request-Id": "mine"}


class Backend(ThreadingHTTPServer):
    """Speaks the `embed` form, remembers what it was asked, and waits while `held`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[list[str], dict[str, str]]] = []
        self.held = threading.Event()
        self.held.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Backend
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["texts"]
        texts = [texts] if isinstance(texts, str) else texts
        self.server.asked.append((texts, {name.lower(): value for name, value in self.headers.items()}))
        assert self.server.held.wait(30)
        self._answer({"vectors": [[float(len(text)), 1.0] for text in texts]})

    def _answer(self, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def backend() -> Iterator[Backend]:
    service = Backend()
    thread = threading.Thread(target=service.serve_forever)
    thread.start()
    yield service
    service.held.set()
    service.shutdown()
    thread.join()
    service.server_close()


def embed(url: str, text: str, **headers: str) -> None:
    answer = requests.post(f"{url}/v1/embeddings", json={"input": text}, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text


def told(backend: Backend, text: str) -> dict[str, str]:
    (headers,) = [headers for texts, headers in backend.asked if text in texts]
    names = ("x-request-id", "traceparent", "tracestate")
    return {name: headers[name] for name in names if name in headers}


def test_a_backend_learns_for_whom_it_computes(backend: Backend) -> None:
    with llmrs(
        BACKEND_URL=backend.url, BACKEND_PROTOCOL="embed", WORKERS="1", LOG_REQUESTS="1", LOG_FORMAT="json"
    ) as server:
        embed(server.url, "traced", **TRACED)
        line = next(json.loads(each) for each in server.log.splitlines() if '"request_id":"mine"' in each)
        assert line["trace_id"] == TRACE
        assert told(backend, "traced") == {
            "x-request-id": "mine",
            "traceparent": f"00-{TRACE}-{line['span_id']}-01",
            "tracestate": "a=1",
        }
        embed(server.url, "no trace", **{"X-Request-Id": "other", "traceparent": "00-what"})
        assert told(backend, "no trace") == {"x-request-id": "other"}
        backend.held.clear()
        clients = [
            threading.Thread(target=embed, args=(server.url, text), kwargs=TRACED)
            for text in ("first", "second", "third")
        ]
        clients[0].start()
        wait_until(lambda: any("first" in texts for texts, _ in backend.asked))
        for client in clients[1:]:
            client.start()

        def waiting() -> float:
            page = requests.get(f"{server.url}/metrics", timeout=10).text
            return sum(float(each.split()[1]) for each in page.splitlines() if "waiting_texts{" in each)

        wait_until(lambda: waiting() == 2)
        backend.held.set()
        for client in clients:
            client.join()
        assert sorted(backend.asked[-1][0]) == ["second", "third"]
        assert told(backend, "second") == {}, "it is not for one request alone"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_full_disk_under_the_log_fails_no_request(log_format: str) -> None:
    port = free_port()
    environment = clean_environment(LOG_REQUESTS="1", LOG_FORMAT=log_format, LOG_LEVEL="debug")
    with open("/dev/full", "wb") as full:
        process = subprocess.Popen(
            [sys.executable, "-m", "llmrs", "serve", "--port", str(port)],
            stdout=full, stderr=full, stdin=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: process.poll() is not None or listens(port), 60)
        wait_until(lambda: requests.get(f"{url}/readyz", timeout=30).status_code == 200, 60)
        for i in range(50):
            embed(url, f"text {i}")
        refused = requests.post(f"{url}/v1/embeddings", data=b"{", timeout=30)
        assert refused.status_code == 400
        page = requests.get(f"{url}/metrics", timeout=30).text
        lost = re.search(r"^llmrs_lost_log_lines_total (\d+)", page, re.MULTILINE)
        assert lost
        assert int(lost[1]) >= 51, "those of the requests, and what else is logged"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
