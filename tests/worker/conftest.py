"""The same application under both workers, as real gunicorn processes."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.processes import ROOT, Server, start
from tests.worker.client import GET, answers, exchange

OURS = "llmrs.server.worker.Worker"
QUICK = "tests.worker.quick.QuickWorker"
STOCK = "gevent"


@contextmanager
def gunicorn(worker: str, *arguments: str, app: str = "tests.worker.apps:app") -> Iterator[Server]:
    """A gunicorn with one worker process of this class on a free port."""
    command = [
        sys.executable, "-m", "gunicorn", "--config", "/dev/null", "--worker-class", worker,
        "--bind", "127.0.0.1:0", "--no-control-socket", "--keep-alive", "5", *arguments, app,
    ]  # fmt: skip

    def ready(server: Server) -> bool:
        found = re.search(r"Listening at: (http://127\.0\.0\.1:\d+)", server.log)
        if found is None:
            return False
        server.url = found[1]
        # A signal that comes before the worker has set up its handlers would be lost.
        return answers(exchange(server, GET))[0].status == 200

    with start(command, ready, cwd=ROOT) as server:
        yield server


@pytest.fixture(scope="session")
def ours() -> Iterator[Server]:
    with gunicorn(OURS) as server:
        yield server


@pytest.fixture(scope="session")
def stock() -> Iterator[Server]:
    with gunicorn(STOCK) as server:
        yield server
