"""A real llmrs before several real backends: what clients see while those fail, return, lie and hang."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import requests

from tests.backends.services import shapes
from tests.backends.services.vectors import vector
from tests.backends.services.wire import CLOSE, Behaviour, Connection, Request, Service, serve
from tests.faults.service import service as killable
from tests.processes import Server, free_port, llmrs, wait_until

WELL = shapes.openai()


@contextlib.contextmanager
def gateway(*urls: str, **env: str) -> Iterator[Server]:
    with llmrs(BACKEND_URL=",".join(urls), BACKEND_PROTOCOL="openai", **env) as server:
        yield server


def at(port: int) -> socket.socket:
    return socket.create_server(("127.0.0.1", port))


def embed(server: Server, *texts: str) -> requests.Response:
    return requests.post(f"{server.url}/v1/embeddings", json={"input": texts}, timeout=60)


def right(answer: requests.Response, *texts: str) -> bool:
    rows = np.array([row["embedding"] for row in answer.json()["data"]])
    wanted = np.array([vector(text) for text in texts])
    return np.allclose(rows, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-6)


def health(server: Server) -> Any:
    return requests.get(f"{server.url}/health", timeout=10).json()


def states(server: Server) -> list[str]:
    return [backend["state"] for backend in health(server)["backends"]]


def texts_of(service: Service) -> int:
    """How many batches of clients it got."""
    return sum("text" in str(request.json["input"][0]) for request in service.posts())


class Clients:
    """Clients that ask one after the other, each for texts of its own, until the block ends.

    Attributes:
        outcomes: how often each status was answered; a wrong vector counts as `wrong`.
    """

    def __init__(self, server: Server, count: int = 6) -> None:
        self.outcomes: Counter[object] = Counter()
        self._server = server
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(count)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(60)

    def more(self, count: int = 50) -> None:
        """Wait until so many more were answered."""
        until = self.outcomes.total() + count
        wait_until(lambda: self.outcomes.total() >= until, 60, self._server)

    def _run(self, number: int) -> None:
        turn = 0
        while not self._ended.is_set():
            turn += 1
            text = f"text {turn} of {number}"
            answer = embed(self._server, text)
            fine = answer.status_code != 200 or right(answer, text)
            self.outcomes[answer.status_code if fine else "wrong"] += 1


def only_posts(behave: Behaviour) -> Behaviour:
    """`behave` for embeddings; all else is answered well."""

    def either(connection: Connection, request: Request) -> object:
        return (behave if request.method == "POST" else WELL)(connection, request)

    return either


def test_a_backend_that_is_killed_under_load_costs_no_client_an_answer_and_returns() -> None:
    port = free_port()
    with serve(WELL) as steady, gateway(steady.url, f"http://127.0.0.1:{port}") as server:
        wait_until(lambda: states(server) == ["up", "down"], 30, server)  # absent at the start
        with Clients(server) as clients:
            for _ in range(2):
                with killable(port) as victim:
                    wait_until(lambda: states(server) == ["up", "up"], 30, server)
                    clients.more()
                    victim.signal(signal.SIGKILL)
                    victim.wait()
                    clients.more()
                    wait_until(lambda: states(server) == ["up", "down"], 30, server)
                    assert health(server)["status"] == "ok"
            with serve(WELL, at(port)) as returned:
                wait_until(lambda: texts_of(returned) > 20, 60, server)
        assert clients.outcomes.keys() == {200}, clients.outcomes


def test_work_is_spread_and_listed() -> None:
    with serve(WELL) as one, serve(WELL) as other, gateway(one.url, other.url) as server:
        with Clients(server) as clients:
            clients.more(100)
        assert clients.outcomes.keys() == {200}
        first, second = texts_of(one), texts_of(other)
        assert min(first, second) > max(first, second) / 3
        urls = [one.url, other.url]
        assert health(server)["backend_url"] == one.url
        listed = [{"url": url, "state": "up", "reason": None} for url in urls]
        assert health(server)["backends"] == listed
        (model,) = requests.get(f"{server.url}/v1/models", timeout=10).json()["data"]
        assert model["backends"] == listed
        assert model["id"] == "org/m"


def test_metrics_of_each_address() -> None:
    def fails(connection: Connection, request: Request) -> object:
        return connection.answer({}, 503)

    with serve(WELL) as good, serve(only_posts(fails)) as bad, gateway(good.url, bad.url) as server:
        bad.behave = WELL
        wait_until(lambda: states(server) == ["up", "up"], 30, server)
        bad.behave = only_posts(fails)
        with Clients(server) as clients:
            wait_until(lambda: states(server) == ["up", "down"], 30, server)
            clients.more()
        page = requests.get(f"{server.url}/metrics", timeout=10).text
        of_good, of_bad = ({"model": "org/m", "url": each.url} for each in (good, bad))

    def value(name: str, **labels: str) -> float:
        told = ",".join(f'{label}="{text}"' for label, text in sorted(labels.items()))
        (line,) = [line for line in page.splitlines() if line.startswith(f"{name}{{{told}}} ")]
        return float(line.split()[-1])

    assert value("llmrs_backend_up", model="org/m") == 1
    assert [value("llmrs_replica_up", **labels) for labels in (of_good, of_bad)] == [1, 0]
    assert value("llmrs_replica_refused", **of_bad) == 0
    assert [value("llmrs_replica_share", **labels) for labels in (of_good, of_bad)] == [4, 0]
    assert value("llmrs_replica_running_batches", **of_good) == 0
    assert value("llmrs_replica_failures_total", **of_good) == 0
    failed = value("llmrs_replica_failures_total", **of_bad)
    assert 1 <= failed <= value("llmrs_replica_tries_total", **of_bad)
    assert value("llmrs_replica_tries_total", **of_good) == texts_of(good)
    assert value("llmrs_batch_retries_total", model="org/m", outcome="sent") == failed
    assert value("llmrs_batch_retries_total", model="org/m", outcome="denied") == 0


def test_another_model_is_refused_and_taken_in_when_it_is_put_right() -> None:
    def other_model(connection: Connection, request: Request) -> object:
        asked = request.json
        rows = [{"index": i, "embedding": vector(f"other {text}")} for i, text in enumerate(asked["input"])]
        return connection.answer({"data": rows})

    with serve(WELL) as good, serve(only_posts(other_model)) as bad, gateway(good.url, bad.url) as server:
        found = health(server)["backends"]
        assert [backend["state"] for backend in found] == ["up", "refused"]
        assert f"another model's than those of {good.url}" in found[1]["reason"]
        with Clients(server) as clients:
            clients.more()
            bad.behave = WELL
            wait_until(lambda: states(server) == ["up", "up"], 60, server)
            clients.more()
        assert clients.outcomes.keys() == {200}


def test_none_is_left_and_one_comes_back() -> None:
    with serve(WELL) as one, serve(WELL) as other, gateway(one.url, other.url) as server:
        assert embed(server, "text").status_code == 200
        for service in (one, other):
            service.behave = lambda connection, request: connection.answer({}, 503)
        wait_until(lambda: states(server) == ["down", "down"], 60, server)
        found = requests.get(f"{server.url}/health", timeout=10)
        assert found.status_code == 503
        assert "none of the 2 backends can be used" in found.json()["reason"]
        refused = embed(server, "text")
        assert refused.status_code == 502
        assert refused.json()["error"]["code"] == "upstream_error"
        assert "http:" not in refused.text
        other.behave = WELL
        wait_until(lambda: states(server) == ["down", "up"], 60, server)
        answer = embed(server, "text")
        assert right(answer, "text")


def too_few(connection: Connection, request: Request) -> object:
    return connection.answer({"data": []})


def hangs_up(connection: Connection, request: Request) -> object:
    return CLOSE


def fails(connection: Connection, request: Request) -> object:
    return connection.answer({}, 500)


@pytest.mark.parametrize("fault", [too_few, hangs_up, fails])
def test_a_backend_that_goes_wrong_costs_no_client_an_answer(fault: Behaviour) -> None:
    with serve(WELL) as one, serve(WELL) as other, gateway(one.url, other.url) as server:
        with Clients(server) as clients:
            clients.more()
            for _ in range(3):  # it flaps
                other.behave = only_posts(fault)
                wait_until(lambda: states(server) == ["up", "down"], 30, server)
                clients.more(20)
                other.behave = WELL
                wait_until(lambda: states(server) == ["up", "up"], 60, server)
        assert clients.outcomes.keys() == {200}


def test_a_backend_that_hangs_costs_no_client_an_answer() -> None:
    released = threading.Event()

    def hangs(connection: Connection, request: Request) -> object:
        released.wait(60)
        return CLOSE

    with (
        serve(WELL) as one,
        serve(WELL) as other,
        gateway(one.url, other.url, REQUEST_TIMEOUT="6") as server,
        Clients(server) as clients,
    ):
        clients.more()
        other.behave = hangs
        wait_until(lambda: states(server) == ["up", "down"], 60, server)
        clients.more()
        other.behave = WELL
        released.set()
        wait_until(lambda: states(server) == ["up", "up"], 60, server)
        clients.more()
    assert clients.outcomes.keys() == {200}


def test_a_busy_backend_is_left_alone() -> None:
    def busy(connection: Connection, request: Request) -> object:
        return connection.answer({}, 429, Retry_After="100")

    with serve(WELL) as one, serve(WELL) as other, gateway(one.url, other.url) as server:
        other.behave = only_posts(busy)
        with Clients(server) as clients:
            clients.more(200)
        assert clients.outcomes.keys() == {200}
        assert 1 <= texts_of(other) <= 4, "only what was sent before the first answer"
        assert states(server) == ["up", "up"]


def test_a_text_that_backends_fail_on_costs_only_its_sender() -> None:
    def allergic(connection: Connection, request: Request) -> object:
        if "poison" in str(request.json["input"]):
            return connection.answer({}, 500)
        return WELL(connection, request)

    behave = only_posts(allergic)
    with serve(behave) as one, serve(behave) as other, gateway(one.url, other.url) as server:
        with Clients(server) as clients:
            for _ in range(10):
                refused = embed(server, "fine", "poison", "fine, too")
                assert refused.status_code == 502, refused.text
                assert "input[1]" in refused.json()["error"]["message"]
                clients.more(20)
                assert states(server) == ["up", "up"]
        assert clients.outcomes.keys() == {200}, "neighbours of the same batch included"


def test_one_model_in_two_precisions_is_one_model(server: Server) -> None:
    """The service's own engines as backends, one of them in bfloat16 where the CPU has it."""
    with (
        llmrs(DTYPE="f32") as exact,
        gateway(server.url, exact.url) as front,
    ):
        # It says that it is ready when one of them is: on a busy machine it has not heard of the other yet.
        wait_until(lambda: states(front) == ["up", "up"], 30, front)
        answers = [embed(front, f"number {turn}") for turn in range(6)]
        assert {answer.status_code for answer in answers} == {200}
        page = requests.get(f"{front.url}/metrics", timeout=10).text
        for url in (server.url, exact.url):
            assert f'llmrs_replica_tries_total{{model="all-MiniLM-L6-v2",url="{url}"}} 3.0' in page
