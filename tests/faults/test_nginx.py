"""nginx in front is reloaded and restarted under load; behind it no request is lost or mixed up."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from tests.backends.services.wire import Service
from tests.faults.watch import Bystander, recovers, watched
from tests.integration.test_nginx import nginx
from tests.processes import Server, free_port

OPTIONS = {"BATCH_SIZE": "1", "WORKERS": "16", "QUEUE_CAPACITY": "1000"}


def test_a_reload_under_load_loses_nothing(backend: Service, tmp_path: Path) -> None:
    with (
        watched(BACKEND_URL=backend.url, **OPTIONS) as server,
        recovers(server, kept=16),
        contextlib.contextmanager(nginx)(f"127.0.0.1:{server.port}", tmp_path) as proxy,
        contextlib.ExitStack() as clients,
    ):
        # A worker that is replaced closes its kept connections: clients find that out when they ask.
        others = [clients.enter_context(Bystander(proxy, may_fail=True)) for _ in range(6)]
        for _ in range(3):
            for other in others:
                other.wait_for_more()
            proxy.signal(signal.SIGHUP)
        for other in others:
            other.wait_for_more()
            assert other.refused == []
        with Bystander(server) as direct:
            direct.wait_for_more()


def test_a_hard_restart_under_load_leaves_nothing_behind(backend: Service, tmp_path: Path) -> None:
    port = free_port()
    with contextlib.ExitStack() as around:
        server = around.enter_context(watched(BACKEND_URL=backend.url, **OPTIONS))
        around.enter_context(recovers(server, kept=16))
        direct = around.enter_context(Bystander(server))
        for i in range(2):
            (folder := tmp_path / str(i)).mkdir()
            with contextlib.contextmanager(nginx)(f"127.0.0.1:{server.port}", folder, port) as proxy:
                _kill_under_load(proxy)
            direct.wait_for_more()


def _kill_under_load(proxy: Server) -> None:
    with contextlib.ExitStack() as clients:
        others = [clients.enter_context(Bystander(proxy, may_fail=True)) for _ in range(6)]
        for other in others:
            other.wait_for_more()
            assert other.refused == []
        worker = proxy.worker_pid
        proxy.signal(signal.SIGKILL)
        proxy.wait()
        os.kill(worker, signal.SIGKILL)
