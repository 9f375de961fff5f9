"""More requests than the service can answer: some are served as always, the others told when to come."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import numpy as np
import pytest
import requests

from tests.bench import bench_module
from tests.processes import Server, llmrs, wait_until

arrivals: Any = bench_module("arrivals")

TEXTS = [f"text number {number} of a flood of requests that nobody can answer" for number in range(64)]
CAPACITY = 16


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with llmrs(QUEUE_CAPACITY=str(CAPACITY)) as running:
        yield running


def vector(server: Server, text: str) -> np.ndarray:
    answer = requests.post(f"{server.url}/v1/embeddings", json={"input": text}, timeout=30)
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["data"][0]["embedding"], np.float32)


def resident(pid: int) -> float:
    """Megabytes of a process in memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def test_a_flood_is_served_in_part_and_leaves_nothing_behind(server: Server) -> None:
    references = [vector(server, text) for text in TEXTS]
    load = arrivals.Arrivals(server.url, TEXTS, keep=True)
    load.run(1000, 1)
    memory = resident(server.worker_pid)
    outcomes = load.run(2000, 4)
    assert set(arrivals.count(outcomes)) == {200, 429}
    for outcome in outcomes:
        if outcome.status == 200:
            found = np.frombuffer(arrivals.floats(outcome.vector), "<f4")
            assert found @ references[outcome.text] > 0.999
        else:
            assert 0 < outcome.retry_after <= 120
    assert resident(server.worker_pid) < memory + 64

    def at_rest() -> bool:
        health = requests.get(f"{server.url}/health", timeout=5).json()
        return health["waiting_requests"] == health["running_batches"] == 0

    wait_until(at_rest, 10, server)
    for text, reference in zip(TEXTS, references, strict=True):
        assert vector(server, text) @ reference > 0.999


def test_who_comes_back_when_told_to_is_served(server: Server) -> None:
    load = arrivals.Arrivals(server.url, TEXTS)
    answered: list[int] = []

    def client(number: int) -> None:
        for tries in range(1, 12):
            outcome = load.ask(number % len(TEXTS), time.monotonic())
            if outcome.status == 200:
                answered.append(tries)
                return
            assert outcome.status == 429
            gevent.sleep(outcome.retry_after)

    gevent.joinall([gevent.spawn(client, number) for number in range(20 * CAPACITY)], timeout=60)
    assert len(answered) == 20 * CAPACITY
    assert max(answered) > 1, "all of them fitted into the queue"


def test_health_and_metrics_answer_during_a_flood(server: Server) -> None:
    load = arrivals.Arrivals(server.url, TEXTS)
    flood = gevent.spawn(load.run, 2000, 3)
    asked = 0
    until = time.monotonic() + 3
    while time.monotonic() < until:
        for path in ("/livez", "/readyz", "/metrics"):
            gevent.get_hub().threadpool.apply(_expect_200, (server.url + path,))
            asked += 1
    assert 429 in arrivals.count(flood.get())
    assert asked


def _expect_200(url: str) -> None:
    assert requests.get(url, timeout=20).status_code == 200, url
