"""Clients that end their side of the connection before they have their answer, or leave altogether."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.processes import Server, llmrs
from tests.worker.client import answers, connect, read_all

WORDS = " ".join(f"word{number}" for number in range(200))
BODY = json.dumps({"truncate": True, "inputs": [f"{number} {WORDS}" for number in range(8)]}).encode()


@pytest.fixture(scope="module", params=["llmrs", "gevent"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with llmrs(WORKER_CLASS=request.param) as running:
        yield running


def head(version: str) -> bytes:
    return (
        f"POST /embed HTTP/{version}\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(BODY)}\r\n\r\n"
    ).encode()


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_client_that_half_closes_after_its_request_gets_its_answer(server: Server, version: str) -> None:
    def ask(number: int) -> bytes:
        with connect(server, 120) as client:
            client.sendall(head(version) + BODY)
            client.shutdown(socket.SHUT_WR)
            return read_all(client)

    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(ask, range(10)))
    for raw in found:
        assert raw.startswith(b"HTTP/1.")
        (answer,) = answers(raw)
        assert answer.status == 200
        assert len(answer.json) == 8  # type: ignore[arg-type]
