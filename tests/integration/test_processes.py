"""Several processes that answer, and one that computes for them."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from tests.processes import Server, llmrs, wait_until

pytestmark = pytest.mark.chooses_worker_class

PROCESSES = 2


@pytest.fixture(scope="module")
def single() -> Iterator[Server]:
    with llmrs(WORKER_CLASS="llmrs", ALLOW_ANY_DIMENSIONS="true") as running:
        yield running


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with several() as running:
        yield running


def several(**env: str) -> Any:
    """A service of several processes, and no folder of its own in the system's one."""
    settings = {"PROCESSES": str(PROCESSES), "WORKER_CLASS": "llmrs", "ALLOW_ANY_DIMENSIONS": "true"}
    return llmrs(**settings, **env)


def children(server: Server) -> dict[int, bool]:
    """The workers' pids, and whether each computes: whether it has OpenVINO's library in its memory."""
    found = {}
    for pid in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError):  # it has just ended
            found[int(pid)] = "libopenvino.so" in Path(f"/proc/{pid}/maps").read_text()
    return found


def post(server: Server, **body: Any) -> requests.Response:
    return requests.post(f"{server.url}/v1/embeddings", json=body, timeout=60)


def vectors(server: Server, **body: Any) -> np.ndarray:
    answer = post(server, **body)
    assert answer.status_code == 200, answer.text
    return np.array([row["embedding"] for row in answer.json()["data"]], np.float32)


def is_whole(server: Server) -> bool:
    """Whether all workers are there, one of them computes, and the service answers."""
    found = children(server)
    if len(found) != PROCESSES + 1 or sum(found.values()) != 1:
        return False
    try:
        return requests.get(f"{server.url}/readyz", timeout=5).status_code == 200
    except requests.RequestException:
        return False


def test_one_process_computes_and_the_others_have_no_engine(server: Server) -> None:
    assert sorted(children(server).values()) == [False] * PROCESSES + [True]


def test_answers_are_those_of_a_single_process(server: Server, single: Server) -> None:
    inputs = ["a text", "", "你好，世界", "word " * 200, [7592, 2088], "a text"]
    for body in (
        {"input": inputs[:3]},
        {"input": inputs[3]},
        {"input": [inputs[0]] * 40},
        {"input": "word " * 1000, "truncate": "end"},
        {"input": "x", "dimensions": 100},
    ):
        assert (vectors(server, **body) @ vectors(single, **body).T).diagonal().min() > 0.9999
        ours, theirs = post(server, **body), post(single, **body)
        assert ours.json()["usage"] == theirs.json()["usage"]
        assert ours.headers.get("x-truncated-inputs") == theirs.headers.get("x-truncated-inputs")
    for body in ({"input": "word " * 1000}, {"input": []}, {"input": "x", "model": "other"}):
        ours, theirs = post(server, **body), post(single, **body)
        assert (ours.status_code, ours.json()) == (theirs.status_code, theirs.json())


def test_many_clients_get_their_own_vectors(server: Server) -> None:
    texts = [f"text number {number} of many" for number in range(60)]
    expected = vectors(server, input=texts)

    def ask(number: int) -> float:
        return float(vectors(server, input=texts[number])[0] @ expected[number])

    with ThreadPoolExecutor(16) as pool:
        assert min(pool.map(ask, [*range(60)] * 4)) > 0.999


def test_models_and_health_look_the_same(server: Server, single: Server) -> None:
    for path in ("/v1/models", "/health"):
        assert (
            requests.get(server.url + path, timeout=5).json()
            == requests.get(single.url + path, timeout=5).json()
        )


def metrics(server: Server) -> dict[str, float]:
    """The series of a scrape, by name and labels."""
    lines = requests.get(f"{server.url}/metrics", timeout=10).text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}


def test_metrics_are_those_of_all_processes() -> None:
    name, model = "llmrs_requests_total", '{model="all-MiniLM-L6-v2"}'
    posted = f'{name}{{route="/v1/embeddings",status="200"}}'
    with several() as server, several() as other:
        for _ in range(20):
            requests.post(f"{server.url}/v1/embeddings", json={"input": ["a", "b"]}, timeout=30)
        wait_until(lambda: metrics(server).get(posted) == 20, 20, server)
        wait_until(lambda: metrics(server)[f"llmrs_batch_texts_sum{model}"] >= 40, 20, server)
        for _ in range(10):  # whichever process answers
            found = metrics(server)
            assert found[posted] == 20
            assert found[f"llmrs_inputs_total{model}"] == 40
            assert found["llmrs_ready"] == found[f"llmrs_backend_up{model}"] == 1
        assert not any('route="/batch"' in series for series in found)
        assert posted not in metrics(other)
        resident = sum(_resident(pid) for pid in children(server))
        assert found["process_resident_memory_bytes"] == pytest.approx(resident, rel=0.2)
        victim = next(pid for pid, computes in children(server).items() if not computes)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: victim not in children(server) and is_whole(server), 30, server)
        assert metrics(server)[posted] == 20, "what a dead process has counted stays counted"


def _resident(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


@pytest.mark.parametrize("computes", [True, False], ids=["engine", "gateway"])
def test_a_process_that_dies_is_replaced(server: Server, computes: bool) -> None:
    victim = next(pid for pid, does in children(server).items() if does == computes)
    os.kill(victim, signal.SIGKILL)
    statuses = set()
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            answer = post(server, input="a text")
        except requests.ConnectionError:
            continue  # it was one of the dead gateway's
        statuses.add(answer.status_code)
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["code"] == "not_ready"
        elif victim not in children(server) and is_whole(server):
            break
        time.sleep(0.1)
    assert statuses <= {200, 503}
    assert victim not in children(server)
    assert is_whole(server)
    assert vectors(server, input="a text").shape == (1, 384)


def test_a_reload_under_load_loses_nothing() -> None:
    with several() as server, Load(server) as load:
        before = set(children(server))
        server.signal(signal.SIGHUP)
        wait_until(lambda: not before & set(children(server)) and is_whole(server), 60, server)
        served = load.served
        wait_until(lambda: load.served > served + 20, 30, server)
    assert not load.lost


def test_a_stop_under_load_loses_nothing(tmp_path: Path) -> None:
    with several(TMPDIR=str(tmp_path)) as server:
        assert list(tmp_path.glob("llmrs-*")), "where the processes meet"
        with Load(server) as load:
            server.signal(signal.SIGTERM)
            assert server.wait(60) == 0
        assert not load.lost
        assert not list(tmp_path.glob("llmrs-*"))


class Load:
    """Clients that ask all the time, and begin anew when told to. Refused connections end one.

    Attributes:
        served: complete answers.
        lost: what else they got, other than a 503 with Retry-After.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stop = threading.Event()
        self._clients = [threading.Thread(target=self._ask) for _ in range(8)]
        self.served = 0
        self.lost: list[str] = []

    def __enter__(self) -> Load:
        for client in self._clients:
            client.start()
        wait_until(lambda: self.served > 20, 30, self._server)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for client in self._clients:
            client.join(60)

    def _ask(self) -> None:
        url, body = f"{self._server.url}/v1/embeddings", {"input": ["a text"] * 20}
        with requests.Session() as session:
            while not self._stop.is_set():
                try:
                    answer = session.post(url, json=body, timeout=60)
                except requests.ConnectionError as error:
                    if "refused" not in str(error):
                        self.lost.append(str(error))
                    return
                if answer.status_code == 200 and len(answer.json()["data"]) == 20:
                    self.served += 1
                elif answer.status_code != 503 or "retry-after" not in answer.headers:
                    self.lost.append(f"{answer.status_code} {answer.text[:200]}")


def test_several_processes_in_front_of_an_http_backend(single: Server) -> None:
    with llmrs(PROCESSES="2", WORKER_CLASS="llmrs", BACKEND_URL=single.url) as server:
        assert len(children(server)) == 2
        assert not any(children(server).values())
        assert (vectors(server, input="x") @ vectors(single, input="x").T).item() > 0.9999
        posted = 'llmrs_requests_total{route="/v1/embeddings",status="200"}'
        wait_until(lambda: metrics(server).get(posted) == 1, 20, server)
