"""Who may call a real server, and how much: keys from a file that changes, limits of one key."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
import requests

from tests.processes import Server, llmrs, wait_until

LONG = {"input": ["a rather long text " * 40] * 200}


def status(server: Server, key: str, body: object = None) -> int:
    headers = {"Authorization": f"Bearer {key}"}
    url = f"{server.url}/v1/embeddings"
    return requests.post(url, json=body or {"input": "x"}, headers=headers, timeout=60).status_code


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
