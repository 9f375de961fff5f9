"""Request lines: who gets one, what is in it, and that writing never fails nor waits."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from llmrs.embeddings import Limits
from llmrs.server.requestlog import LOGGER, RequestLog
from tests.engines import FakeBackend

from .conftest import Client
from .test_metrics import value

MakeClient = Callable[..., Client]
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Pipe:
    """Where lines go, and what has come."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)

    def fileno(self) -> int:
        return self.writing

    def text(self) -> str:
        try:
            return os.read(self.reading, 1 << 20).decode()
        except BlockingIOError:
            return ""

    def line(self) -> dict[str, Any]:
        lines = self.text().splitlines()
        assert len(lines) == 1
        told: dict[str, Any] = json.loads(lines[0])
        return told


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    os.close(pipe.reading)
    os.close(pipe.writing)


@pytest.fixture
def logged(make_client: MakeClient, pipe: Pipe) -> Callable[..., Client]:
    """A client whose request lines go into the pipe."""

    def make(backend: FakeBackend | None = None, **options: Any) -> Client:
        client = make_client(backend, **({"log_requests": 1, "log_format": "json"} | options))
        client.app.request_log._fileno = pipe.fileno
        return client

    return make


def test_off_unless_asked_for(logged: Callable[..., Client], pipe: Pipe) -> None:
    client = logged(log_requests=0)
    client.vectors({"input": "a"})
    client.error(502, "/v1/embeddings", {"input": "unreachable"})
    assert pipe.text() == ""


def test_a_line_says_what_the_request_was(logged: Callable[..., Client], pipe: Pipe) -> None:
    client = logged(FakeBackend(limits=Limits(batch_size=2, batch_tokens=1000, slots=1)))
    headers = {"X-Request-Id": "mine", "traceparent": TRACEPARENT}
    body = {"input": ["a secret text", "b", "w " * 50], "truncate": "end"}
    answer = client.post("/v1/embeddings?key=hush", body, headers=headers)
    text = pipe.text()
    line = json.loads(text)
    assert line.pop("time").endswith("+00:00")
    for name in ("seconds", "queue_ms", "tokenize_ms", "inference_ms"):
        assert line.pop(name) >= 0
    assert re.fullmatch("[0-9a-f]{16}", line.pop("span_id"))
    assert line == {
        "level": "info",
        "logger": LOGGER,
        "message": "POST /v1/embeddings 200",
        "request_id": "mine",
        "method": "POST",
        "route": "/v1/embeddings",
        "status": 200,
        "inputs": 3,
        "tokens": answer.json["usage"]["total_tokens"],
        "truncated": 1,
        "batch_texts": 2,
        "bytes_in": len(json.dumps(body)),
        "bytes_out": len(answer.content),
        "trace_id": TRACEPARENT[3:35],
    }
    assert "secret" not in text
    assert "hush" not in text


def test_a_line_of_an_error_has_its_code(logged: Callable[..., Client], pipe: Pipe) -> None:
    client = logged()
    client.error(404, "/v1/embeddings", {"input": "a", "model": "none"})
    line = pipe.line()
    assert (line["status"], line["code"], line["level"]) == (404, "model_not_found", "info")
    client.get("/some/where?x=1")
    assert pipe.line()["route"] == "none"
    client.error(500, "/v1/embeddings", {"input": "broken"})
    assert pipe.line()["level"] == "error"


def test_a_line_names_the_key_and_does_not_show_it(pipe: Pipe, make_client: MakeClient) -> None:
    client = make_client(keys=("secret",), log_requests=1)
    client.app.request_log._fileno = pipe.fileno
    for key in ("secret", "wrong"):
        client.post("/v1/embeddings", {"input": "a"}, headers={"Authorization": f"Bearer {key}"})
    granted, refused = pipe.text().splitlines()
    assert " key=key-1 " in granted
    assert " key=" not in refused
    assert "code=invalid_api_key" in refused
    assert not any(key in granted + refused for key in ("secret", "wrong", "Bearer"))


def test_as_text(logged: Callable[..., Client], pipe: Pipe) -> None:
    client = logged(log_format="text")
    client.vectors({"input": "a"})
    pattern = (
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO     llmrs\.request: POST /v1/embeddings 200 "
        r"request_id=[0-9a-f]{32} seconds=\d\.\d+ queue_ms=.*\n"
    )
    assert re.fullmatch(pattern, pipe.text())


def test_a_share_of_the_requests_and_every_failure(logged: Callable[..., Client], pipe: Pipe) -> None:
    client = logged(log_requests="0.000001")
    for _ in range(20):
        client.get("/livez")
    assert pipe.text() == ""
    client.error(502, "/v1/embeddings", {"input": "unreachable"})
    assert pipe.line()["status"] == 502
    log = RequestLog(0.5, json=True)
    assert 300 < sum(log.wants("200") for _ in range(1000)) < 700


def test_what_cannot_be_written_is_counted(logged: Callable[..., Client], pipe: Pipe) -> None:
    client = logged()
    with open("/dev/full", "wb") as full:
        client.app.request_log._fileno = full.fileno
        client.vectors({"input": "a"})
    client.vectors({"input": "a"})  # it is closed now
    assert value(client, "llmrs_lost_log_lines_total") == 2


def test_nobody_waits_for_a_reader_of_the_log(logged: Callable[..., Client], pipe: Pipe) -> None:
    """A pipe that is full would stop every request of the process."""
    client = logged()
    fcntl.fcntl(pipe.writing, fcntl.F_SETPIPE_SZ, 4096)
    for _ in range(100):
        client.get("/livez")
    assert client.app.request_log.lost > 50
    lines = pipe.text().splitlines()
    assert len(lines) == 100 - client.app.request_log.lost
    assert all(json.loads(line)["status"] == 200 for line in lines), "every line is whole"
