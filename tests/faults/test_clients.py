"""Clients that leave, stall or read slowly: others notice nothing, and nothing of them stays."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

from tests.faults.conftest import SLOTS
from tests.faults.watch import (
    Bystander,
    connections,
    error_of,
    post,
    recovers,
    request,
    rows,
)
from tests.processes import Server, wait_until
from tests.worker.client import answers, ask, connect, read_all

JSON = {"Content-Type": "application/json"}
HUGE = [f"huge {i}" for i in range(1000)]
"""Texts of a request whose answer from the default model is 8 MB long."""


def metric(server: Server, name: str) -> float:
    with connect(server) as connection:
        text = ask(connection, b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").body.decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"llmrs_{name}"))


def test_clients_that_leave_while_they_wait_in_the_queue(gateway: Server) -> None:
    """Their texts are not asked for once all slots are free again."""
    with recovers(gateway, kept=SLOTS), contextlib.ExitStack() as stay:
        for i in range(SLOTS):  # every slot is taken for a while
            stay.enter_context(connect(gateway)).sendall(request({"input": f"late {i}"}))
        wait_until(lambda: metric(gateway, "running_batches") == SLOTS)
        inputs = metric(gateway, "inputs_total")
        for i in range(50):
            with connect(gateway) as leaving:
                leaving.sendall(request({"input": f"left {i}"}))
        wait_until(lambda: metric(gateway, "waiting_requests") == 0)
        with Bystander(gateway) as other:
            other.wait_for_more()
            answered = other.answered
        assert metric(gateway, "inputs_total") - inputs <= SLOTS + answered + 5


def test_clients_that_leave_while_their_texts_are_computed(gateway: Server) -> None:
    with recovers(gateway, kept=SLOTS), Bystander(gateway) as other:
        for i in range(SLOTS // 2):
            with connect(gateway) as leaving:
                leaving.sendall(request({"input": [f"late {i}", f"good {i}"]}))
        wait_until(lambda: metric(gateway, "running_batches") >= 1)
        other.wait_for_more()
        wait_until(lambda: metric(gateway, "running_batches") <= 1)


def test_clients_that_leave_before_they_have_sent_all(gateway: Server) -> None:
    whole = request({"input": "never asked for"})
    with recovers(gateway, kept=SLOTS), Bystander(gateway) as other:
        for end in range(1, len(whole), 7):
            with connect(gateway) as leaving:
                leaving.sendall(whole[:end])
        other.wait_for_more()


def test_clients_that_end_their_sending_side(gateway: Server) -> None:
    """They wait for their answers, and get them, however long those take."""
    with recovers(gateway, kept=SLOTS), Bystander(gateway) as other:
        for body in (b"no json", b'{"input": []}'):
            with connect(gateway) as half:
                half.sendall(request(body))
                half.shutdown(socket.SHUT_WR)
                (answer,) = answers(read_all(half))
                assert answer.status == 400
                error_of(answer)
        with connect(gateway, 30) as half:
            half.sendall(request({"input": [f"half {i}" for i in range(200)]}))
            half.shutdown(socket.SHUT_WR)
            (answer,) = answers(read_all(half))
            assert answer.status == 200
        other.wait_for_more()


def test_clients_that_vanish_without_a_word_in_a_huge_answer(model: Server) -> None:
    """The answer is 8 MB, more than the socket takes: most of it waits in the process."""
    body = request({"input": HUGE})
    with recovers(model, growth_mb=300), ThreadPoolExecutor(4) as pool:

        def leave(i: int) -> None:
            with connect(model, 120) as leaving:
                leaving.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                leaving.sendall(body)
                assert leaving.recv(4096).startswith(b"HTTP/1.1 200")

        list(pool.map(leave, range(4)))
        wait_until(lambda: connections(model.port) == 0, 30, model)


def test_slow_readers_get_all_of_it_and_hold_up_nobody(model: Server) -> None:
    whole = post(model, {"input": HUGE}, timeout=120)
    reference = rows(whole.body)
    probe = rows(post(model, {"input": "bystander 1"}).body)[0]

    def read_slowly(i: int) -> None:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", model.port, timeout=120)) as client:
            client.request("POST", "/v1/embeddings", json.dumps({"input": HUGE}), JSON)
            body = bytearray()
            with client.getresponse() as response:
                while piece := response.read(1 << 18):
                    body += piece
                    time.sleep(0.01)
        assert (rows(bytes(body)) * reference).sum(1).min() > 0.999

    with recovers(model, growth_mb=400), ThreadPoolExecutor(2) as pool:
        reading = [pool.submit(read_slowly, i) for i in range(2)]
        while not all(each.done() for each in reading):
            found = rows(post(model, {"input": "bystander 1"}, timeout=60).body)[0]
            assert found @ probe > 0.999
        for each in reading:
            each.result()
