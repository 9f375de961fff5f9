"""What happens to the process: signals under load, a full disk, a clock that jumps."""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from tests.backends.services.wire import Service
from tests.faults.backend import LATE_SECONDS
from tests.faults.watch import Bystander, error_of, post, recovers, rows, unit, watched
from tests.processes import Server, clean_environment, free_port, listens, wait_until
from tests.worker.client import Answer, ask, connect

GATEWAY = {"BATCH_SIZE": "1", "WORKERS": "16", "QUEUE_CAPACITY": "1000"}


def test_a_stop_under_load_loses_no_request(backend: Service) -> None:
    with contextlib.ExitStack() as clients, watched(BACKEND_URL=backend.url, **GATEWAY) as server:
        others = [clients.enter_context(Bystander(server, may_fail=True)) for _ in range(8)]
        for other in others:
            other.wait_for_more()
        late: list[Answer] = []
        asking = threading.Thread(target=lambda: late.append(post(server, {"input": "late 1"})))
        asking.start()
        time.sleep(0.3)
        server.signal(signal.SIGTERM)
        assert server.wait(30) == 0
        asking.join(30)
        assert late[0].status == 200
        assert abs(rows(late[0].body)[0] - unit("late 1")).max() < 1e-6
        for other in others:
            assert other.lost == []
            assert set(other.refused) <= {503}


def test_a_killed_worker_is_started_again(backend: Service) -> None:
    with watched(BACKEND_URL=backend.url, **GATEWAY) as server, contextlib.ExitStack() as clients:
        others = [clients.enter_context(Bystander(server, may_fail=True)) for _ in range(4)]
        for _ in range(2):
            for other in others:
                other.wait_for_more()
            killed = server.worker_pid
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda killed=killed: _children(server) not in ([], [killed]), 30, server)
        for other in others:
            other.wait_for_more()
            assert set(other.refused) <= {503}, "who is answered by the new one gets vectors"


def _children(server: Server) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()]


@contextlib.contextmanager
def mute(**env: str) -> Iterator[Server]:
    """A server whose log goes to a full disk: every write of it fails."""
    port = free_port()
    command = [sys.executable, "-m", "llmrs", "serve", "--port", str(port)]
    with open("/dev/full", "wb") as full:
        process = subprocess.Popen(
            command, stdout=full, stderr=full, stdin=subprocess.DEVNULL, env=clean_environment(**env)
        )
    server = Server(process, Path(os.devnull), f"http://127.0.0.1:{port}")
    try:
        wait_until(lambda: listens(port), 60, server)
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_full_disk_under_the_log_stops_nothing(backend: Service, form: str) -> None:
    with mute(BACKEND_URL=backend.url, LOG_FORMAT=form, LOG_LEVEL="debug", **GATEWAY) as server:
        with Bystander(server) as other:
            other.wait_for_more()
            for text in ("status 500 1", "not HTTP 1"):  # which are worth a line
                assert error_of(post(server, {"input": text}))["code"] == "upstream_error"
            with connect(server) as connection:
                assert ask(connection, b"nonsense\r\n\r\n").status == 400
            other.wait_for_more()
        killed = server.worker_pid
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: _children(server) not in ([], [killed]), 30, server)
        with Bystander(server, may_fail=True) as other:
            other.wait_for_more()
        server.signal(signal.SIGTERM)
        assert server.wait(30) == 0


@pytest.mark.parametrize("step", ["-86400", "86400"])
def test_a_jump_of_the_clock_changes_no_deadline(backend: Service, step: str) -> None:
    with (
        watched(
            BACKEND_URL=backend.url, CLOCK_STEP=step, REQUEST_TIMEOUT="5", KEEPALIVE="60", **GATEWAY
        ) as server,
        recovers(server, kept=16),
        connect(server) as idle,
        Bystander(server) as other,
    ):
        assert ask(idle, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").status == 200
        other.wait_for_more()
        with ThreadPoolExecutor(2) as pool:
            late = pool.submit(post, server, {"input": "late 1"})
            never = pool.submit(post, server, {"input": "hangs 1"})
            time.sleep(LATE_SECONDS / 2)
            os.kill(server.worker_pid, signal.SIGRTMIN + 1)
            began = time.monotonic()
            assert late.result().status == 200
            assert error_of(never.result())["code"] == "timeout"
            assert time.monotonic() - began < 30
        other.wait_for_more()
        answer = ask(idle, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.status == 200, "no idle connection was taken for an old one"
        told = parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()
        assert abs(told - float(step)) < 60, "the clock was moved"
        total = answer.headers["server-timing"].rsplit("total;dur=", 1)[1]
        assert 0 <= float(total) < 60_000


@pytest.mark.parametrize("left", [0, 8 << 20])
def test_memory_that_ends_costs_requests_or_the_worker_but_no_vector(left: int) -> None:
    """A model that could not allocate may give wrong vectors from then on, so its worker ends."""
    with watched(QUEUE_CAPACITY="1000", MAX_REQUEST_TOKENS="10000000") as server:
        probe = post(server, {"input": "probe"}).body
        pid = server.worker_pid
        size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
        before = resource.prlimit(pid, resource.RLIMIT_AS, (size + left, resource.RLIM_INFINITY))
        for n in range(200, 2000, 200):
            texts = [f"{n} {i} " + "word " * 220 for i in range(n)]
            if not _answer(server, {"input": texts, "encoding_format": "base64"}):
                break
        else:
            pytest.fail("the limit was never reached")
        # One that is out of memory in the middle of Python may go on, now that there is some again.
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_AS, before)

        def probed() -> bool:
            answer = _answer(server, {"input": "probe"})
            assert answer in (b"", probe), "another vector than before"
            return bool(answer)

        wait_until(probed, 60, server)
        for texts in (["word " * 220] * 100, [f"{n} " + "word " * (2 * n) for n in range(100)]):
            asked = {"input": texts, "encoding_format": "base64"}
            wait_until(lambda asked=asked: len(_answer(server, asked)) > 100 * 384 * 4, 60, server)
        assert probed()


def _answer(server: Server, asked: object) -> bytes:
    """The body of a good answer; nothing where there is none, for a reason that lack of memory gives."""
    try:
        answer = post(server, asked, timeout=60)
    except (OSError, http.client.HTTPException):
        return b""  # the worker has ended
    if answer.status == 200:
        return answer.body
    assert (answer.status, error_of(answer)["code"]) in ((500, "internal_error"), (503, "not_ready"))
    assert b"alloc" not in answer.body
    return b""


def test_a_bystander_notices_vectors_that_are_not_its_own(backend: Service) -> None:
    """Or none of these tests could fail."""
    with watched(BACKEND_URL=backend.url) as server:
        other = Bystander(server, lambda text: unit(f"{text}!"))
        with pytest.raises(AssertionError), other:
            wait_until(lambda: bool(other.wrong), 30)
