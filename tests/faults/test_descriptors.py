"""Descriptors that end: who is connected is served, who is not waits, and nothing has to be restarted."""

from __future__ import annotations

import contextlib
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.backends.services.wire import Service
from tests.faults.backend import LATE_SECONDS
from tests.faults.watch import Bystander, descriptors, post, recovers, request, rows, unit, watched
from tests.processes import Server, wait_until
from tests.worker.client import Answer, ask, connect, read_answer

LIVE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
SERVE = f"exec {sys.executable} -m llmrs serve --port 0"


@contextlib.contextmanager
def limited(shell: str, **env: str) -> Iterator[Server]:
    """A server that starts with the limits that a shell sets."""
    with watched(command=["sh", "-c", f"{shell}; {SERVE}"], **env) as server:
        yield server


@contextlib.contextmanager
def crowd(server: Server, count: int) -> Iterator[list[socket.socket]]:
    """So many clients that connect and say nothing."""
    with contextlib.ExitStack() as open_:
        yield [open_.enter_context(connect(server, 60)) for _ in range(count)]


def open_files(pid: int) -> tuple[str, str]:
    """The limits of a process, soft and hard."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    soft, hard = next(line.split()[3:5] for line in lines if line.startswith("Max open files"))
    return soft, hard


def test_a_low_hard_limit_leaves_descriptors_for_the_backend(backend: Service) -> None:
    with limited("ulimit -n 64", BACKEND_URL=backend.url) as server, recovers(server, kept=8):
        assert "at most " in server.log
        assert "ulimit -n" in server.log
        with connect(server, 60) as asking, crowd(server, 150) as clients:
            for i in range(20):
                answer = ask(asking, request({"input": f"good {i}"}))
                assert answer.status == 200
                np.testing.assert_allclose(rows(answer.body)[0], unit(f"good {i}"), atol=1e-6)
                # The next one needs a new connection. Nothing is under way that could break off with this.
                backend.drop_connections()
            assert ask(clients[0], LIVE).status == 200, "the first of them are connected"
            assert descriptors(server.worker_pid) < 60
            # The last one has waited in the kernel all the time, and is served when others have gone.
            clients[-1].sendall(LIVE)
            for client in clients[:-1]:
                client.close()
            assert read_answer(clients[-1]).status == 200
        assert "Traceback" not in server.log


def test_a_low_soft_limit_is_raised_for_the_connections_it_takes(backend: Service) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with limited("ulimit -S -n 100", BACKEND_URL=backend.url, WORKER_CONNECTIONS="500") as server:
        wait_until(lambda: int(open_files(server.worker_pid)[0]) > 500)
        assert int(open_files(server.worker_pid)[0]) <= hard
        assert "at most " not in server.log
        with crowd(server, 300) as clients:
            for client in clients:
                client.sendall(LIVE)
            assert [read_answer(client).status for client in clients] == [200] * 300


def test_descriptors_that_end_while_it_runs(backend: Service) -> None:
    """Whatever else holds them: the kernel refuses another connection, and is asked again later."""
    with watched(BACKEND_URL=backend.url) as server, recovers(server, kept=8):
        pid = server.worker_pid
        with Bystander(server) as other:
            other.wait_for_more()
            limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors(pid) + 5, limits[1]))
            with crowd(server, 100) as clients:
                wait_until(lambda: "no connection can be accepted for now" in server.log)
                time.sleep(1.5)
                other.wait_for_more()
                clients[-1].sendall(LIVE)
                for client in clients[:-1]:
                    client.close()
                assert read_answer(clients[-1]).status == 200
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
            other.wait_for_more()
        assert post(server, {"input": "x"}).status == 200
        assert server.log.count("no connection can be accepted for now") == 1
        assert "Traceback" not in server.log


@pytest.mark.parametrize("exhausted", [True, False])
def test_a_stop_while_there_are_none_loses_no_request(backend: Service, exhausted: bool) -> None:
    with watched(BACKEND_URL=backend.url) as server:
        pid = server.worker_pid
        late: list[Answer] = []
        asking = threading.Thread(target=lambda: late.append(post(server, {"input": "late 1"})))
        asking.start()
        time.sleep(LATE_SECONDS / 3)
        if exhausted:
            limit = descriptors(pid)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, limit))
        with crowd(server, 20):
            server.signal(signal.SIGTERM)
            assert server.wait(30) == 0
        asking.join(30)
        assert late[0].status == 200
        assert "Traceback" not in server.log


def test_who_is_connected_and_silent_gives_way_to_who_waits(backend: Service) -> None:
    """Without that, as many connections as there may be would shut out everybody until KEEPALIVE ends."""
    few = {"WORKER_CONNECTIONS": "20", "KEEPALIVE": "3600"}
    with contextlib.ExitStack() as open_, watched(BACKEND_URL=backend.url, **few) as server:
        other = open_.enter_context(Bystander(server))
        other.wait_for_more()
        open_.enter_context(crowd(server, 25))
        assert post(server, {"input": "x"}).status == 200
        other.wait_for_more()
        open_.close()
