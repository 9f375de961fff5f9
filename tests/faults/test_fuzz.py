"""Requests that no sane client sends, against the real server: never a 5xx, never silence.

FUZZ_BODIES says how many (`make test-nightly`: a million), FUZZ_SEED which ones.
"""

from __future__ import annotations

import base64
import json
import os
import random
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tests.faults import bodies
from tests.faults.bodies import Case
from tests.faults.watch import connections, error_of, post, rss_mb, watched
from tests.processes import Server, wait_until
from tests.worker.client import Answer, answers, connect, read_all, read_answer

COUNT = int(os.environ.get("FUZZ_BODIES", "5000"))
SEED = os.environ.get("FUZZ_SEED", "1")
CLIENTS = 6
SILENCE = 60.0
"""Seconds after which an answer does not come any more: as long as the server itself may take."""

WIDTH = 384


def test_every_body_has_an_answer_and_no_other_request_suffers() -> None:
    print(f"FUZZ_BODIES={COUNT} FUZZ_SEED={SEED}")
    with watched(PAYLOAD_LIMIT="100000", QUEUE_CAPACITY="1000", ALLOW_ANY_DIMENSIONS="true") as server:
        pid = server.worker_pid
        probe = post(server, {"input": "the probe"}).body
        send_all(server, COUNT // 10, "warm")
        before = rss_mb(pid)
        send_all(server, COUNT, SEED)
        wait_until(lambda: connections(server.port) == 0, 30, server)
        assert post(server, {"input": "the probe"}).body == probe
        assert rss_mb(pid) < before + 128
        assert server.worker_pid == pid
        assert "Traceback" not in server.log, server.log[-3000:]


def send_all(server: Server, count: int, seed: str) -> None:
    with ThreadPoolExecutor(CLIENTS) as pool:
        for client in [pool.submit(send, server, count // CLIENTS, f"{seed}-{i}") for i in range(CLIENTS)]:
            client.result()


def send(server: Server, count: int, seed: str) -> None:
    """One client: a kept connection for what is well framed, new ones for the rest."""
    rng = random.Random(seed)
    kept: socket.socket | None = None
    for number in range(count):
        case = bodies.make(rng)
        try:
            if case.body is None:
                check_lie(server, case)
                continue
            kept = kept or connect(server, SILENCE)
            kept.sendall(case.raw)
            answer = read_answer(kept)
            check(answer, case)
            if answer.headers.get("connection") == "close":
                kept.close()
                kept = None
        except Exception as error:
            told = f"seed {seed}, request {number}, {len(case.raw)} bytes: {case.raw[:600]!r}"
            raise AssertionError(f"{error!r} for {told}") from error
    if kept is not None:
        kept.close()


def check_lie(server: Server, case: Case) -> None:
    """A request whose framing lies. The client ends its side, or a length too long would be waited for."""
    with connect(server, SILENCE) as connection:
        raw = b""
        try:
            connection.sendall(case.raw)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it was refused before all of it was sent
        raw = read_all(connection)
    found = answers(raw)
    assert found or b"\r\n\r\n" not in case.raw, "only who does not end a head is left without an answer"
    for answer in found:
        if answer.status in (501, 505):  # a method, coding or version that HTTP itself has a status for
            error_of(answer)
        elif answer.status != 200:
            refused(answer)


def check(answer: Answer, case: Case) -> None:
    assert case.body is not None
    if answer.status != 200:
        refused(answer)
        return
    asked = json.loads(case.body, parse_int=lambda digits: int(digits[:99]))  # Python reads no 10,000 of them
    fields = ("texts", "inputs") if case.route == "/embed" else ("input",)
    field = next(key for key in fields if asked.get(key) is not None)
    wanted = asked[field]
    single = isinstance(wanted, str) or isinstance(wanted[0], int)
    matrix = matrix_of(answer.json)
    assert matrix.shape[0] == (1 if single else len(wanted))
    cut = None if field == "texts" else asked.get("dimensions")  # which the legacy form has not
    assert matrix.shape[1] == (cut or WIDTH)
    assert np.isfinite(matrix).all()


def refused(answer: Answer) -> None:
    assert 400 <= answer.status < 500, (answer.status, answer.body[:300])
    error_of(answer)


def matrix_of(document: Any) -> np.ndarray:
    """The vectors of an answer in any of the three forms."""
    if isinstance(document, list):
        found = document
    elif "vectors" in document:
        found = document["vectors"]
    else:
        found = [_vector(row["embedding"]) for row in document["data"]]
    return np.array(found, np.float64)


def _vector(told: str | list[float]) -> Any:
    return np.frombuffer(base64.b64decode(told, validate=True), "<f4") if isinstance(told, str) else told
