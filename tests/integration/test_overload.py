"""More requests than the service can answer at once: they wait, and what cannot wait is told when to come.

No assertion here is one of speed: what is refused, and when, depends on the machine.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gevent
import numpy as np
import pytest
import requests

from tests.backends.services import shapes
from tests.backends.services.wire import serve
from tests.bench import bench_module
from tests.processes import Server, llmrs, wait_until

pytestmark = pytest.mark.alone

arrivals: Any = bench_module("arrivals")

TEXTS = [f"text number {number} of a flood of requests that nobody can answer" for number in range(64)]
CAPACITY = 16
PATIENCE = 120.0
"""Seconds: of clients, and of tests. Two other programs may have the machine's cores."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Little may wait, so that much is refused, however fast the machine is."""
    with llmrs(QUEUE_CAPACITY=str(CAPACITY), QUEUE_SECONDS="0.02") as running:
        yield running


def vector(server: Server, text: str) -> np.ndarray:
    answer = requests.post(f"{server.url}/v1/embeddings", json={"input": text}, timeout=PATIENCE)
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["data"][0]["embedding"], np.float32)


def resident(pid: int) -> float:
    """Megabytes of a process in memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def at_rest(server: Server) -> bool:
    health = requests.get(f"{server.url}/health", timeout=PATIENCE).json()
    return health["waiting_requests"] == health["running_batches"] == 0


def test_a_flood_is_served_in_part_and_leaves_nothing_behind(server: Server) -> None:
    references = [vector(server, text) for text in TEXTS]
    load = arrivals.Arrivals(server.url, TEXTS, keep=True)
    load.run(1000, 1, patience=PATIENCE)
    memory = resident(server.worker_pid)
    outcomes = load.run(2000, 3, patience=PATIENCE)
    assert set(arrivals.count(outcomes)) == {200, 429}
    for outcome in outcomes:
        if outcome.status == 200:
            found = np.frombuffer(arrivals.floats(outcome.vector), "<f4")
            assert found @ references[outcome.text] > 0.999
        else:
            assert 0 < outcome.retry_after <= 120
    assert resident(server.worker_pid) < memory + 128
    wait_until(lambda: at_rest(server), PATIENCE, server)
    for text, reference in zip(TEXTS, references, strict=True):
        assert vector(server, text) @ reference > 0.999


def test_who_comes_back_when_told_to_is_served(server: Server) -> None:
    load = arrivals.Arrivals(server.url, TEXTS)
    answered: Counter[int] = Counter()

    def client(number: int) -> None:
        while (outcome := load.ask(number % len(TEXTS), time.monotonic())).status == 429:
            gevent.sleep(outcome.retry_after)
        answered[outcome.status] += 1

    clients = [gevent.spawn(client, number) for number in range(20 * CAPACITY)]
    gevent.joinall(clients, timeout=PATIENCE)
    assert answered == {200: 20 * CAPACITY}


def test_health_and_metrics_answer_during_a_flood(server: Server) -> None:
    """Asked from threads of their own: this test's hub is busy with the flood."""
    load = arrivals.Arrivals(server.url, TEXTS)
    flood = gevent.spawn(load.run, 2000, 3, patience=PATIENCE)
    pool = gevent.get_hub().threadpool
    asked = 0
    while not flood.ready():
        for path in ("/livez", "/readyz", "/metrics"):
            assert pool.apply(_status, (server.url + path,)) == 200, path
            asked += 1
    assert set(arrivals.count(flood.get())) == {200, 429}
    assert asked


def _status(url: str) -> int:
    return requests.get(url, timeout=PATIENCE).status_code


# -- bursts -------------------------------------------------------------------------------------


async def burst(server: Server, count: int) -> Counter[int]:
    """Statuses of requests of one text, all sent at once, each on its own connection, never again."""

    async def ask(number: int) -> int:
        body = json.dumps({"input": [f"chunk {number} of a file"], "model": "m"}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(
            b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        answer = await reader.read()
        writer.close()
        return int(answer.split(b" ", 2)[1])

    return Counter(await asyncio.gather(*map(ask, range(count))))


def test_a_file_of_a_thousand_chunks_is_answered_by_the_default_settings() -> None:
    """As Open WebUI sends it: asyncio.gather of requests of one text, and no retry."""
    with (
        serve(shapes.openai()) as backend,
        llmrs(BACKEND_URL=backend.url, BACKEND_PROTOCOL="openai", MODEL_NAME="m") as gateway,
    ):
        assert asyncio.run(burst(gateway, 1000)) == {200: 1000}
        wait_until(lambda: at_rest(gateway), PATIENCE, gateway)
        assert asyncio.run(burst(gateway, 1000)) == {200: 1000}, "now that single texts were measured, too"


def test_a_thousand_texts_at_once_for_the_model_itself() -> None:
    """As by default, but for the time that they may take: machines differ."""
    with llmrs(MODEL_NAME="m", QUEUE_SECONDS="3600", REQUEST_TIMEOUT="3600") as model:
        memory = resident(model.worker_pid)
        assert asyncio.run(burst(model, 1000)) == {200: 1000}
        assert resident(model.worker_pid) < memory + 192


def test_large_and_small_requests_wait_side_by_side() -> None:
    """Bulk requests beyond the places wait at the door as well, and single texts pass them."""
    with llmrs(QUEUE_CAPACITY="4", QUEUE_SECONDS="3600", REQUEST_TIMEOUT="3600") as small:

        def ask(count: int) -> int:
            body = {"input": [f"{count} {number}" for number in range(count)]}
            answer = requests.post(f"{small.url}/v1/embeddings", json=body, timeout=PATIENCE)
            assert answer.status_code == 200, answer.text
            return len(answer.json()["data"])

        wanted = [40, 1, 33, 1, 100, 2] * 5
        with ThreadPoolExecutor(len(wanted)) as pool:
            assert list(pool.map(ask, wanted)) == wanted
