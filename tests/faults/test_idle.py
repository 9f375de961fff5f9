"""Ten thousand idle connections: the service answers all the same, and what they held is given back."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterator

import pytest

from tests.backends.services.wire import Service
from tests.faults.watch import Bystander, connections, descriptors, greenlets, rss_mb, watched
from tests.processes import wait_until
from tests.worker.client import ask, connect

COUNT = 10_000
KEEPALIVE = 15
LIVE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"

IDLE_KB = 24
"""Memory that one of them may cost: greenlet and stack, channel, parser, environ. Measured: 12 KB."""


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many descriptors for this process, and for those that it starts, as the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < COUNT + 500:
        pytest.skip(f"only {hard} files may be open here (ulimit -H -n)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_ten_thousand_idle_connections(backend: Service, many_files: None) -> None:
    options = {"WORKER_CONNECTIONS": str(COUNT + 2000), "KEEPALIVE": str(KEEPALIVE)}
    with watched(BACKEND_URL=backend.url, **options) as server, contextlib.ExitStack() as open_:
        pid = server.worker_pid
        with Bystander(server) as other:
            other.wait_for_more(200)
        before, files, alive = rss_mb(pid), descriptors(pid), greenlets(server)
        clients = [open_.enter_context(connect(server, 60)) for _ in range(COUNT)]
        wait_until(lambda: descriptors(pid) >= files + COUNT, 60, server)
        with Bystander(server) as other:
            other.wait_for_more(50)
            for client in clients[:: COUNT // 100]:
                assert ask(client, LIVE).status == 200
            assert connections(server.port) >= COUNT
            peak = rss_mb(pid)
            assert (peak - before) * 1024 / COUNT < IDLE_KB
            time.sleep(KEEPALIVE)
            for client in clients:
                assert client.recv(1) == b"", "the server closes it"
            other.wait_for_more(50)
        wait_until(lambda: descriptors(pid) <= files + 8, 30, server)
        wait_until(lambda: greenlets(server) <= alive, 30, server)
        assert rss_mb(pid) < peak, "some of it goes back to the system"
        open_.close()
        # The rest is there for the next ones: as many again need no more.
        for _ in range(COUNT):
            open_.enter_context(connect(server, 60))
        wait_until(lambda: descriptors(pid) >= files + COUNT, 60, server)
        assert rss_mb(pid) < peak * 1.1
        assert server.worker_pid == pid
