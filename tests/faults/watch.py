"""What every fault test watches: the process, and somebody else who asks while things go wrong.

A `Footprint` counts what a process could leak. A `Bystander` asks for texts whose vectors are known,
one after the other, and notes every answer that is not theirs.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.backends.services.vectors import vector
from tests.processes import Server, llmrs, wait_until
from tests.worker.client import Answer, ask, connect

INSIDE = Path(__file__).parent / "inside"
KEYS = {"message", "type", "param", "code"}
HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"

Known = Callable[[str], np.ndarray]


# -- asking -----------------------------------------------------------------------------------


def post(server: Server, body: Any, path: str = "/v1/embeddings", *, timeout: float = 60) -> Answer:
    """The answer to a value as JSON, over a connection of its own that is closed for certain.

    (One of requests stays open for as long as its response lives, and would look like a leak.)
    """
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)) as client:
        return exchange(client, body, path)


def exchange(client: http.client.HTTPConnection, body: Any, path: str = "/v1/embeddings") -> Answer:
    """The answer to a value as JSON, over this connection."""
    client.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    with client.getresponse() as response:
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read())


def request(body: bytes | str | dict[str, Any]) -> bytes:
    """A whole POST request of these bytes, or of this value as JSON."""
    if isinstance(body, dict):
        body = json.dumps(body)
    raw = body.encode() if isinstance(body, str) else body
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(raw) + raw


def rows(body: bytes) -> np.ndarray:
    """The vectors of a good answer, in order; fails unless they are finite and numbered."""
    data = json.loads(body)["data"]
    assert [row["index"] for row in data] == list(range(len(data)))
    found = np.array([row["embedding"] for row in data], np.float64)
    assert found.ndim == 2
    assert np.isfinite(found).all()
    return found


def error_of(answer: Answer) -> dict[str, Any]:
    """The error object of an answer; fails unless it is what the contract promises of every error."""
    status, document = answer.status, answer.json
    assert isinstance(document, dict), document
    error: dict[str, Any] = document["error"]
    assert set(error) == KEYS
    assert isinstance(error["message"], str)
    assert 0 < len(error["message"]) <= 1024
    mendable = status < 500 and status not in (401, 408, 429, 499)
    assert (error["type"] == "invalid_request_error") == mendable
    if status in (401, 429) or status >= 500:
        assert "invalid_request_error" not in json.dumps(document)
    if status in (429, 503):
        assert 1 <= int(answer.headers["retry-after"]) <= 120
        assert int(answer.headers["retry-after-ms"]) >= 1
    return error


def unit(text: str) -> np.ndarray:
    """What a gateway gives for a text of the services in tests/backends."""
    found = np.array(vector(text), np.float64)
    return found / np.linalg.norm(found)


# -- the process ------------------------------------------------------------------------------


class Footprint(NamedTuple):
    """What a worker process holds."""

    descriptors: int
    greenlets: int
    rss_mb: float


@contextlib.contextmanager
def watched(*arguments: str, **env: str) -> Iterator[Server]:
    """`processes.llmrs`, able to tell its greenlets."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/greenlets"
        given = {"PYTHONPATH": str(INSIDE), "GREENLETS_FILE": path, "WORKER_CLASS": "llmrs"} | env
        with llmrs(*arguments, **given) as server:
            server.greenlets_file = path  # type: ignore[attr-defined]
            with connect(server, 60) as first:  # it says that it is ready just before it listens
                ask(first, b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            yield server


def greenlets(server: Server) -> int:
    """How many greenlets live in the worker, started by `watched`. Those of its start are not counted."""
    path = Path(server.greenlets_file)  # type: ignore[attr-defined]
    path.unlink(missing_ok=True)
    os.kill(server.worker_pid, signal.SIGRTMIN)
    wait_until(path.exists, 30, server)
    return int(path.read_text())


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def rss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def footprint(server: Server) -> Footprint:
    pid = server.worker_pid
    return Footprint(descriptors(pid), greenlets(server), rss_mb(pid))


def connections(port: int, state: str = "01") -> int:
    """TCP connections on this local port, in the state of /proc/net/tcp (established: 01)."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    local = f":{port:04X}"
    return sum(line.split()[1].endswith(local) and line.split()[3] == state for line in lines)


@contextlib.contextmanager
def recovers(server: Server, *, kept: int = 0, growth_mb: float = 64) -> Iterator[None]:
    """What happens in the block leaves nothing behind in a process that lives on.

    Args:
        kept: connections that may stay: those kept to a backend.
        growth_mb: by which the process may have grown, its allocator's reserves included.
    """
    pid = server.worker_pid
    before = footprint(server)
    yield

    def settled() -> bool:
        now = footprint(server)
        return now.descriptors <= before.descriptors + kept and now.greenlets <= before.greenlets

    try:
        wait_until(settled, 30, server)
    except BaseException:
        print(f"before {before}, after {footprint(server)}")
        raise
    assert rss_mb(pid) <= before.rss_mb + growth_mb
    assert server.worker_pid == pid, "it recovers without a restart"


# -- somebody else ----------------------------------------------------------------------------


class Bystander:
    """Asks for known texts over one kept connection, again and again.

    Attributes:
        answered: how many texts got their vectors.
        refused: statuses of the answers that were errors in the form of the contract.
        lost: requests whose connection broke although it had served others before.
        unserved: connections that were never taken up.
        wrong: everything else that happened, where `may_fail` all of these but vectors of their own.
            Nothing may have.
    """

    def __init__(self, server: Server, known: Known = unit, *, may_fail: bool = False) -> None:
        self._server = server
        self._known = known
        self._may_fail = may_fail
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._served = False
        self.answered = 0
        self.refused: list[int] = []
        self.lost: list[str] = []
        self.unserved: list[str] = []
        self.wrong: list[str] = []

    def __enter__(self) -> Bystander:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._end.set()
        self._thread.join(90)
        if raised[0] is None:
            assert not self._thread.is_alive(), "an answer never came"
            assert self.wrong == [], self.wrong
            assert self.answered > 0

    def wait_for_more(self, count: int = 5) -> None:
        """Until so many more texts have got their vectors."""
        goal = self.answered + count
        wait_until(lambda: self.answered >= goal or bool(self.wrong), 60, self._server)
        assert self.wrong == [], self.wrong

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=60)
        number = 0
        while not self._end.is_set() and len(self.wrong) < 20:
            number += 1
            text = f"bystander {number % 97}"
            try:
                self._ask(connection, text)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self._failed(self.lost if self._served else self.unserved, f"{text}: {error!r}")
                self._served = False
                time.sleep(0.05)
            except Exception as error:
                self.wrong.append(f"{text}: {error!r}")
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, text: str) -> None:
        if connection.sock is None:
            self._served = False
        answer = exchange(connection, {"input": text})
        self._served = True
        if answer.status != 200:
            error_of(answer)
            self._failed(self.refused, answer.status)
            time.sleep(0.02)
            return
        found = rows(answer.body)
        assert found.shape[0] == 1
        np.testing.assert_allclose(found[0], self._known(text), atol=1e-6)
        self.answered += 1

    def _failed(self, kind: list[Any], what: object) -> None:
        kind.append(what)
        if not self._may_fail:
            self.wrong.append(str(what))
