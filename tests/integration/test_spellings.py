"""What clients leave out or write twice, on a real server: content type, slashes, byte order mark, names."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator

import pytest

from tests.processes import Server, llmrs

HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with llmrs() as server:
        yield server


def ask(server: Server, method: str, path: str, body: bytes | None = None) -> tuple[int, dict]:
    """Status and answer of a request with no header fields but those that HTTP itself needs."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/embeddings", "input"), ("//v1/embeddings", "input"), ("/v1//embeddings/", "input"),
        ("/embeddings//", "input"), ("//embed", "inputs"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_no_content_type_and_repeated_slashes(server: Server, path: str, field: str, mark: bytes) -> None:
    status, answer = ask(server, "POST", path, mark + json.dumps({field: "hello"}).encode())
    assert status == 200, answer


@pytest.mark.parametrize(
    "name", [HUB_ID, "all-MiniLM-L6-v2", f"{HUB_ID}:latest", "all-MiniLM-L6-v2:latest", ""]
)
def test_every_name_of_the_default_model(server: Server, name: str) -> None:
    body = json.dumps({"input": "hello", "model": name}).encode()
    assert ask(server, "POST", "/v1/embeddings", body)[1]["model"] == "all-MiniLM-L6-v2"
    if name:
        for path in (f"/models/{name}", f"//v1/models/{name.replace('/', '%2F')}"):
            assert ask(server, "GET", path)[1]["id"] == "all-MiniLM-L6-v2"


def test_other_names_are_still_refused(server: Server) -> None:
    for name in ("other/all-MiniLM-L6-v2", "all-MiniLM-L6-v2:v2", "text-embedding-3-small"):
        body = json.dumps({"input": "hello", "model": name}).encode()
        assert ask(server, "POST", "/v1/embeddings", body)[0] == 404
