"""Clients that end their side of the connection before they have their answer, or leave altogether."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from signal import SIGTERM

import pytest
import requests

from tests.backends.services import shapes
from tests.backends.services.wire import Connection, Request, serve
from tests.processes import Server, llmrs, wait_until
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


@contextmanager
def held(gate: threading.Event, worker_class: str = "llmrs", **env: str) -> Iterator[Server]:
    """A gateway whose backend takes one text at a time, and answers only while the gate is open."""
    answer = shapes.openai()

    def behave(connection: Connection, request: Request) -> object:
        gate.wait(300)
        return answer(connection, request)

    with serve(behave) as backend:
        gate.set()
        options = {"BACKEND_PROTOCOL": "openai", "MODEL_NAME": "m", "WORKERS": "1", "BATCH_SIZE": "1"}
        with llmrs(BACKEND_URL=backend.url, WORKER_CLASS=worker_class, **options, **env) as gateway:
            try:
                gate.clear()
                yield gateway
            finally:
                gate.set()


def asks(server: Server, number: int, headers: str = "") -> socket.socket:
    """A connection whose request has been sent."""
    body = json.dumps({"input": f"text {number}"})
    client = connect(server, 120)
    client.sendall(
        f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    return client


def status(client: socket.socket) -> int:
    (answer,) = answers(read_all(client))
    return answer.status


def waiting(server: Server) -> int:
    return int(requests.get(f"{server.url}/health", timeout=60).json()["waiting_requests"])


@pytest.mark.parametrize("worker_class", ["llmrs", "gevent"])
def test_clients_that_left_take_no_place_from_those_who_come(worker_class: str) -> None:
    """70 left, 70 came, while nothing moves: the places are free again without anybody's turn."""
    gate = threading.Event()
    with held(gate, worker_class) as gateway, ExitStack() as stack:
        first = stack.enter_context(asks(gateway, 0))
        wait_until(lambda: requests.get(f"{gateway.url}/health", timeout=60).json()["running_batches"] == 1)
        left = [asks(gateway, number) for number in range(1, 71)]
        wait_until(lambda: waiting(gateway) == 70, 60, gateway)
        for client in left:
            client.close()
        wait_until(lambda: waiting(gateway) == 0, 60, gateway)
        came = [stack.enter_context(asks(gateway, number)) for number in range(100, 170)]
        wait_until(lambda: waiting(gateway) == 70, 60, gateway)
        gate.set()
        assert [status(client) for client in (first, *came)] == [200] * 71


@pytest.mark.parametrize("worker_class", ["llmrs", "gevent"])
def test_who_half_closes_at_the_door_gets_an_answer_and_who_leaves_gives_way(worker_class: str) -> None:
    gate = threading.Event()
    with held(gate, worker_class, QUEUE_CAPACITY="2") as gateway, ExitStack() as stack:
        stay = [stack.enter_context(asks(gateway, number)) for number in range(20)]
        leave = [asks(gateway, number) for number in range(20, 40)]
        wait_until(lambda: waiting(gateway) == 39, 60, gateway)
        for client in stay:
            client.shutdown(socket.SHUT_WR)
        for client in leave:
            client.close()
        wait_until(lambda: waiting(gateway) == 19, 60, gateway)
        gate.set()
        for client in stay:
            raw = read_all(client)
            assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
            assert len(answers(raw)) == 1


def test_a_deadline_holds_at_the_door() -> None:
    gate = threading.Event()
    with held(gate, QUEUE_CAPACITY="1") as gateway, ExitStack() as stack:
        for number in range(3):
            stack.enter_context(asks(gateway, number))
        wait_until(lambda: waiting(gateway) == 2, 60, gateway)
        late = stack.enter_context(asks(gateway, 4, "X-Request-Timeout: 0.3\r\n"))
        assert status(late) == 504


def test_a_stop_answers_all_that_wait_at_the_door() -> None:
    gate = threading.Event()
    with held(gate, QUEUE_CAPACITY="2", GRACEFUL_TIMEOUT="30") as gateway, ExitStack() as stack:
        clients = [stack.enter_context(asks(gateway, number)) for number in range(30)]
        wait_until(lambda: waiting(gateway) == 29, 60, gateway)
        gateway.signal(SIGTERM)
        threading.Timer(1.0, gate.set).start()
        assert [status(client) for client in clients] == [200] * 30
        gateway.wait()


def test_a_stop_that_must_end_tells_those_at_the_door_to_come_back() -> None:
    gate = threading.Event()
    with held(gate, QUEUE_CAPACITY="2", GRACEFUL_TIMEOUT="20") as gateway, ExitStack() as stack:
        clients = [stack.enter_context(asks(gateway, number)) for number in range(30)]
        wait_until(lambda: waiting(gateway) == 29, 60, gateway)
        gateway.signal(SIGTERM)
        with ThreadPoolExecutor(30) as pool:
            found = [pool.submit(status, client) for client in clients]
            wait_until(lambda: sum(each.done() for each in found) == 27, 60, gateway)
            gate.set()
            assert sorted(each.result() for each in found) == [200] * 3 + [503] * 27
        gateway.wait()


def test_large_bodies_wait_at_the_door_unread() -> None:
    """40 times a megabyte for a server that has memory for four of them at a time."""
    gate = threading.Event()
    body = json.dumps({"input": ["x" * 250_000] * 4}).encode()
    options = {
        "QUEUE_CAPACITY": "4",
        "PAYLOAD_MEMORY": "4500000",
        "PAYLOAD_LIMIT": "2000000",
        "REQUEST_TIMEOUT": "3600",
    }
    with held(gate, QUEUE_SECONDS="3600", **options) as gateway, ExitStack() as stack:

        def ask(number: int) -> int:
            with connect(gateway, 120) as client:
                client.sendall(
                    head("1.1")
                    .replace(b"/embed", b"/v1/embeddings")
                    .replace(
                        b"Content-Length: %d" % len(BODY),
                        b"Connection: close\r\nContent-Length: %d" % len(body),
                    )
                    + body
                )
                return status(client)

        pool = stack.enter_context(ThreadPoolExecutor(40))
        found = [pool.submit(ask, number) for number in range(40)]
        wait_until(lambda: waiting(gateway) >= 39, 60, gateway)
        page = requests.get(f"{gateway.url}/metrics", timeout=60).text
        taken = page.partition("\nllmrs_payload_bytes ")[2].split()[0]
        assert float(taken) <= 4_500_000
        gate.set()
        assert [each.result() for each in found] == [200] * 40
