"""What callers send in confidence is in no log and in no answer, whatever goes wrong.

Real servers at `log_level = debug`, with a line per request, are led through their errors with keys and
texts that can be recognised. The worker class is our own: gunicorn's quotes malformed requests in its log.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from tests.processes import Server, llmrs, wait_until

pytestmark = pytest.mark.chooses_worker_class

KEY, FILE_KEY, OLD_KEY, WRONG_KEY = "k3y-of-env", "k3y-of-file", "k3y-that-went", "k3y-unknown"
BACKEND_KEY, TEXT, ELSEWHERE = "k3y-of-backend", "t3xt-in-confidence", "s3ntence-elsewhere"
NEEDLES = ("k3y-", "t3xt-", "s3ntence-")

DEBUG = {"WORKER_CLASS": "llmrs", "LOG_LEVEL": "debug", "LOG_REQUESTS": "1"}
HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
AUTH = f"Authorization: Bearer {KEY}\r\n".encode()


def test_the_words_are_recognised() -> None:
    for word in (KEY, FILE_KEY, OLD_KEY, WRONG_KEY, BACKEND_KEY, TEXT, ELSEWHERE):
        assert any(needle in word for needle in NEEDLES)


def assert_discreet(*shown: str | bytes) -> None:
    for each in shown:
        text = each.decode("utf-8", "replace") if isinstance(each, bytes) else each
        for needle in NEEDLES:
            assert needle not in text, text[max(0, text.find(needle) - 200) :][:400]


def raw(server: Server, request: bytes, *, half_close: bool = True) -> bytes:
    """All that the server says to these bytes; with `half_close` it learns that no more will come."""
    answer = b""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    with connection, contextlib.suppress(ConnectionError):
        connection.sendall(request)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        while piece := connection.recv(65536):
            answer += piece
    return answer


def bodies() -> Iterator[bytes]:
    """Requests that are wrong in every way that a body can be."""
    for wrong in (
        {"input": {TEXT: 1}}, {"input": [TEXT, 1]}, {"input": [[TEXT]]}, {"input": f"{TEXT} " * 5000},
        {"input": TEXT, "model": ELSEWHERE}, {"input": TEXT, "encoding_format": ELSEWHERE},
        {"input": TEXT, "dimensions": ELSEWHERE}, {"input": TEXT, "dimensions": 99999},
        {"input": TEXT, "truncate": ELSEWHERE}, {"input": TEXT, "input_type": ELSEWHERE}, {TEXT: ELSEWHERE},
        {"texts": TEXT, "inputs": TEXT}, {"inputs": TEXT, "prompt_name": ELSEWHERE},
        {"input": [TEXT] * 3000}, {"input": [5, -1], "user": ELSEWHERE}, {"input": [TEXT] * 10, "user": 7},
    ):  # fmt: skip
        yield json.dumps(wrong).encode()
    yield f'{{"input": "{TEXT}" {ELSEWHERE}'.encode()
    yield f'{{"input": "{TEXT}\\ud800"}}'.encode()
    yield TEXT.encode() + b"\xff"
    yield f'{{"input": "{TEXT}"}}'.encode()


def requests_gone_wrong() -> Iterator[bytes]:
    """Requests that are wrong in every other way, each with something confidential in it."""
    body = json.dumps({"input": TEXT}).encode()
    length = b"Content-Length: %d\r\n" % len(body)
    wrong = f"Authorization: Bearer {WRONG_KEY}\r\n".encode()
    yield HEAD + wrong + length + b"\r\n" + body
    yield HEAD + f"Authorization: {KEY}\r\n".encode() + length + b"\r\n" + body
    yield HEAD + AUTH + AUTH + length + b"\r\n" + body
    yield HEAD + AUTH + f"X-Request-Id: {ELSEWHERE} /\r\n".encode() + length + b"\r\n" + body
    yield HEAD + AUTH + f"{ELSEWHERE}: {ELSEWHERE}\r\nBad Name: x\r\n".encode() + length + b"\r\n" + body
    yield HEAD + AUTH + b"Content-Encoding: gzip\r\n" + length + b"\r\n" + body
    yield HEAD + AUTH + f"Expect: {ELSEWHERE}\r\n".encode() + length + b"\r\n" + body
    yield HEAD + AUTH + b"Content-Length: 500\r\n\r\n" + body
    yield HEAD + AUTH + b"Content-Length: 99999999\r\n\r\n" + body
    yield HEAD + AUTH + b"Transfer-Encoding: chunked\r\n\r\n" + TEXT.encode() + b"\r\n"
    yield HEAD + AUTH + f"Transfer-Encoding: {ELSEWHERE}\r\n\r\n".encode()
    yield HEAD.replace(b"application/json", ELSEWHERE.encode()) + AUTH + length + b"\r\n" + body
    yield HEAD + f"X: {ELSEWHERE * 3000}\r\n".encode() + AUTH + b"\r\n"
    for line in (
        f"{ELSEWHERE}", f"{ELSEWHERE} / HTTP/1.1", f"GET /{ELSEWHERE}\x00 HTTP/1.1",
        f"GET /{ELSEWHERE} HTTP/9.9", f"GET /{ELSEWHERE} HTTP/1.1",
        f"GET /{ELSEWHERE}%0A{ELSEWHERE}?q={ELSEWHERE} HTTP/1.1",
        f"GET {ELSEWHERE} HTTP/1.1", f"GET /{ELSEWHERE * 900} HTTP/1.1",
        f"DELETE /v1/embeddings?{TEXT} HTTP/1.1",
        f"GET /v1/models/{ELSEWHERE} HTTP/1.1", f"CONNECT {ELSEWHERE}:443 HTTP/1.1",
        f"GET /v1/models?api_key={KEY} HTTP/1.1",
    ):  # fmt: skip
        for key in (AUTH, wrong):
            yield line.encode() + b"\r\nHost: x\r\nConnection: close\r\n" + key + b"\r\n"
    preflight = f"OPTIONS /v1/embeddings HTTP/1.1\r\nHost: x\r\nOrigin: https://{ELSEWHERE}\r\n"
    for asked in ("Method", "Headers"):
        preflight += f"Access-Control-Request-{asked}: {ELSEWHERE}\r\n"
    yield f"{preflight}\r\n".encode()


def lead_through_errors(server: Server) -> list[bytes]:
    """Every answer to every wrong request."""
    answers = [raw(server, each) for each in requests_gone_wrong()]
    for body in bodies():
        length = b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
        heads = HEAD, HEAD.replace(b"/v1/embeddings", b"/embed")
        answers += [raw(server, head + AUTH + length + body, half_close=False) for head in heads]
    return answers


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_local_model(tmp_path: Path, log_format: str) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{FILE_KEY} named\n{OLD_KEY}\n")
    with llmrs(
        API_KEY=KEY, API_KEY_FILE=str(file), LOG_FORMAT=log_format, CORS_ALLOW_ORIGIN="https://app.example",
        KEY_RATE="10000", MAX_REQUEST_TOKENS="2000", **DEBUG,
    ) as server:  # fmt: skip
        answers = lead_through_errors(server)
        statuses = {int(answer[9:12]) for answer in answers if answer}
        assert {200, 400, 401, 404, 405, 413, 414, 415, 417, 431, 501, 505} <= statuses, statuses
        assert_discreet(*answers)
        file.write_text(f"{FILE_KEY} {ELSEWHERE} {ELSEWHERE}\n")

        def wrote(words: str) -> bool:
            raw(server, b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return words in server.log

        wait_until(lambda: wrote("is malformed"))
        file.write_text(f"{FILE_KEY} named\n")
        wait_until(lambda: wrote("was read again"))
        assert_discreet(raw(server, b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
        assert server.log.count("401") > 5, "the log does tell of these requests"
        assert "Traceback" not in server.log
        assert_discreet(server.log)


class Hostile(BaseHTTPRequestHandler):
    """A backend that repeats in its errors whatever it was sent, headers and body."""

    protocol_version = "HTTP/1.1"
    statuses = (200, 400, 401, 404, 413, 422, 424, 429, 500, 503, 302)
    calls = 0

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        told = f"<html>{self.headers}{sent.decode()} {ELSEWHERE}</html>".encode()
        Hostile.calls += 1
        self.send_response(self.statuses[Hostile.calls % len(self.statuses)], f"No {ELSEWHERE}")
        self.send_header("Content-Length", str(len(told)))
        self.send_header("Location", f"/{ELSEWHERE}")
        self.end_headers()
        self.wfile.write(told)

    do_GET = do_POST  # noqa: N815

    def log_message(self, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def hostile() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("protocol", ["openai", "tei", "ollama", "embed"])
def test_a_backend_that_repeats_what_it_is_sent(hostile: str, protocol: str, log_format: str) -> None:
    with llmrs(
        API_KEY=KEY, BACKEND_URL=hostile, BACKEND_PROTOCOL=protocol, BACKEND_API_KEY=BACKEND_KEY,
        MODEL_NAME="m", LOG_FORMAT=log_format, REQUEST_TIMEOUT="5", **DEBUG,
    ) as server:  # fmt: skip
        headers = {"Authorization": f"Bearer {KEY}"}
        before = Hostile.calls
        statuses = set()
        for i in range(2 * len(Hostile.statuses)):
            body = {"input": [f"{TEXT} {i}", "other"]}
            answer = requests.post(f"{server.url}/v1/embeddings", json=body, headers=headers, timeout=30)
            statuses.add(answer.status_code)
            assert_discreet(answer.content, str(answer.headers))
        assert Hostile.calls - before > len(Hostile.statuses), "it was asked"
        assert statuses - {200, 429}
        assert_discreet(requests.get(f"{server.url}/health", timeout=10).content, server.log)
        assert "Traceback" not in server.log
