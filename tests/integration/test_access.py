"""Who may call a real server, and how much: keys from a file that changes, limits of one key."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.processes import Server, llmrs, wait_until

LONG = {"input": ["a rather long text " * 40] * 200}


def status(server: Server, key: str, body: object = None) -> int:
    headers = {"Authorization": f"Bearer {key}"}
    url = f"{server.url}/v1/embeddings"
    return requests.post(url, json=body or {"input": "x"}, headers=headers, timeout=60).status_code


@pytest.mark.chooses_worker_class
@pytest.mark.parametrize("worker_class", ["llmrs", "gevent"])
def test_keys_are_changed_without_a_restart(tmp_path: Path, worker_class: str) -> None:
    file = tmp_path / "keys"
    file.write_text("old-key team\n")
    with llmrs(API_KEY_FILE=str(file), WORKER_CLASS=worker_class) as server:
        assert (status(server, "old-key"), status(server, "new-key")) == (200, 401)
        new = tmp_path / "new"
        new.write_text("old-key team\nnew-key team\n")
        os.replace(new, file)
        wait_until(lambda: status(server, "new-key") == 200)
        file.write_text("")
        wait_until(lambda: status(server, "new-key") == 200 and "holds no key" in server.log)
        assert (status(server, "old-key"), status(server, "new-key"), status(server, "")) == (200, 200, 401)
        file.write_text("new-key team\n")
        wait_until(lambda: status(server, "old-key") == 401)
        assert status(server, "new-key") == 200
        assert server.log.count("holds no key") == 1
        assert "old-key" not in server.log
        assert "new-key" not in server.log


def test_clients_that_leave_give_their_places_back() -> None:
    """In the middle of the body, before their answer, and after a refusal."""
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n"
    head += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    body = json.dumps(LONG).encode()
    with llmrs(API_KEY="ka,kb", KEY_CONCURRENCY="3") as server:
        for sent in (body, body[:100], b"", body[:-1]):
            for _ in range(6):
                with socket.create_connection(("127.0.0.1", server.port)) as connection:
                    connection.sendall(head % (b"ka", len(body)) + sent)
                    connection.shutdown(socket.SHUT_WR)
        assert status(server, "kb") == 200
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
        try:
            # All places, once they are free: each of these waits for its body.
            wait_until(lambda: status(server, "ka") == 200, 60)
            for connection in held:
                connection.sendall(head % (b"ka", 10))
            wait_until(lambda: status(server, "ka") == 429)
            assert status(server, "kb") == 200
        finally:
            for connection in held:
                connection.close()
        wait_until(lambda: status(server, "ka") == 200)


def test_the_official_client_waits_as_it_is_told() -> None:
    openai = pytest.importorskip("openai")
    with llmrs(API_KEY="ka", KEY_RATE="2") as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="ka", max_retries=5)
        for _ in range(5):
            assert client.embeddings.create(model="all-MiniLM-L6-v2", input="x").data
        with pytest.raises(openai.RateLimitError) as caught:  # noqa: PT012
            for _ in range(9):
                client.with_options(max_retries=0).embeddings.create(model="all-MiniLM-L6-v2", input="x")
        assert caught.value.code == "rate_limit_exceeded"


SAFELISTED = {"accept", "accept-language", "content-language"}
READABLE = {"cache-control", "content-language", "content-length", "content-type", "expires", "pragma"}
GRANTED, METHODS = "Access-Control-Allow-Headers", "Access-Control-Allow-Methods"
EXPOSED = "Access-Control-Expose-Headers"


class BlockedError(Exception):
    """The browser keeps the answer from the page."""


def fetch(origin: str, method: str, url: str, headers: dict[str, str], data: bytes = b"") -> tuple[int, Any]:
    """Status and readable headers that a page of `origin` gets, by the rules of the Fetch standard.

    Raises:
        BlockedError: the browser does not ask, or keeps the answer to itself.
    """
    unsafe = sorted(name.lower() for name in headers if name.lower() not in SAFELISTED)
    if unsafe or method not in ("GET", "HEAD", "POST"):
        asked = {"Origin": origin, "Access-Control-Request-Method": method, "Accept": "*/*"}
        asked["Access-Control-Request-Headers"] = ",".join(unsafe)
        allowed = requests.options(url, headers=asked, timeout=30)
        granted = {name.strip().lower() for name in allowed.headers.get(GRANTED, "").split(",")}
        methods = {name.strip() for name in allowed.headers.get(METHODS, "").split(",")}
        if not allowed.ok or not readable(allowed, origin):
            raise BlockedError("preflight")
        if method not in {*methods, "GET", "HEAD", "POST"} or not set(unsafe) <= granted:
            raise BlockedError("method or header")
    answer = requests.request(method, url, headers={**headers, "Origin": origin}, data=data, timeout=30)
    if not readable(answer, origin):
        raise BlockedError("answer")
    exposed = {name.strip().lower() for name in answer.headers[EXPOSED].split(",")} | READABLE
    return answer.status_code, {name.lower() for name in answer.headers if name.lower() in exposed}


def readable(answer: requests.Response, origin: str) -> bool:
    return answer.headers.get("Access-Control-Allow-Origin") in ("*", origin)


OPENAI_IN_A_BROWSER = {
    "Accept": "application/json", "Content-Type": "application/json", "X-Stainless-Retry-Count": "0",
    "X-Stainless-Timeout": "600", "X-Stainless-Lang": "js", "X-Stainless-Package-Version": "6.1.0",
    "X-Stainless-OS": "Unknown", "X-Stainless-Arch": "unknown", "X-Stainless-Runtime": "browser:chrome",
    "X-Stainless-Runtime-Version": "130.0.0", "User-Agent": "OpenAI/JS 6.1.0",
}  # fmt: skip


@pytest.mark.chooses_worker_class
@pytest.mark.parametrize("worker_class", ["llmrs", "gevent"])
def test_a_page_of_an_allowed_origin_calls_as_openai_does_in_a_browser(worker_class: str) -> None:
    page, body = "https://app.example", b'{"input": "x"}'
    with llmrs(API_KEY="ka", KEY_RATE="3", CORS_ALLOW_ORIGIN=page, WORKER_CLASS=worker_class) as server:
        url = f"{server.url}/v1/embeddings"
        headers = OPENAI_IN_A_BROWSER | {"Authorization": "Bearer ka"}
        status, seen = fetch(page, "POST", url, headers, body)
        assert status == 200
        assert {"x-request-id", "server-timing"} <= seen
        assert fetch(page, "POST", url, headers | {"Authorization": "Bearer no"}, body)[0] == 401
        assert fetch(page, "POST", url, headers, b" " * 17_000_000)[0] == 413
        refused = [fetch(page, "POST", url, headers, body) for _ in range(12)][-1]
        assert refused[0] == 429
        assert {"retry-after", "retry-after-ms"} <= refused[1]
        assert fetch(page, "GET", f"{server.url}/v1/models", {"Authorization": "Bearer ka"})[0] == 200
        for origin, more in (("https://evil.example", {}), ("null", {}), (page, {"X-Evil": "1"})):
            with pytest.raises(BlockedError):
                fetch(origin, "POST", url, headers | more, body)
        with pytest.raises(BlockedError, match="method"):
            fetch(page, "DELETE", url, headers)
