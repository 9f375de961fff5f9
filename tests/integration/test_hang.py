"""A model that hangs in native code: the server says so, ends, and is there again."""

from __future__ import annotations

import os
from pathlib import Path

import requests

from tests.processes import ROOT, Server, llmrs, wait_until

PLUGIN = """
import time

from tests.engines import FakeBackend


class Hanging(FakeBackend):
    def embed(self, batch, *, timeout):
        if any(text.payload.startswith("hang") for text in batch):
            time.sleep(1000)  # of the unpatched kind: a native thread that nobody can wake
        return super().embed(batch, timeout=timeout)


def open_backend(config):
    return Hanging()
"""
ENTRY_POINTS = "[llmrs.backends]\nhanging = hanging_backend:open_backend\n"


def install(folder: Path) -> str:
    """The PYTHONPATH with which the plugin is an installed package."""
    (folder / "hanging_backend.py").write_text(PLUGIN)
    metadata = folder / "hanging_backend-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: hanging-backend\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    return os.pathsep.join((str(folder), str(ROOT)))


def post(server: Server, text: str) -> requests.Response:
    return requests.post(f"{server.url}/v1/embeddings", json={"input": text}, timeout=30)


def test_a_hanging_model_ends_its_worker_and_the_next_one_serves(tmp_path: Path) -> None:
    settings = {"BACKEND_TYPE": "hanging", "REQUEST_TIMEOUT": "1", "HANG_TIMEOUT": "1"}
    with llmrs(PYTHONPATH=install(tmp_path), **settings) as server:
        worker = server.worker_pid
        assert post(server, "a text").status_code == 200
        hanging = post(server, "hang")
        assert (hanging.status_code, hanging.json()["error"]["code"]) == (504, "timeout")
        wait_until(lambda: requests.get(f"{server.url}/readyz", timeout=5).status_code == 503, 10, server)
        assert requests.get(f"{server.url}/livez", timeout=5).status_code == 200
        refused = post(server, "a text")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
        assert int(refused.headers["retry-after"]) >= 1
        wait_until(lambda: server.log.count("; try: ") == 2, 30, server)
        assert server.worker_pid != worker
        assert post(server, "a text").status_code == 200
        assert "has not come back" in server.log
