"""A log that nobody reads holds up neither requests nor a stop."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
import requests

from tests.processes import clean_environment, free_port, wait_until


@contextlib.contextmanager
def unread(port: int, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """The service with a pipe of a page for its log, full from the start."""
    reading, writing = os.pipe()
    size = fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writing, b"." * size)
    command = [sys.executable, "-m", "llmrs", "serve", "--port", str(port)]
    process = subprocess.Popen(command, stdout=writing, stderr=writing, env=clean_environment(**env))
    os.close(writing)
    try:
        yield process
    finally:
        os.close(reading)
        process.kill()
        process.wait()


@pytest.mark.parametrize("processes", ["1", "2"])
def test_requests_and_a_stop_go_on(processes: str) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"{url}/readyz", timeout=5).ok
        return False

    with unread(port, LOG_LEVEL="debug", LOG_REQUESTS="1", PROCESSES=processes) as process:
        wait_until(lambda: process.poll() is not None or ready(), 120)
        for _ in range(50):  # each is a line of the log, more than the pipe would hold
            with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
                client.sendall(b"no HTTP at all\r\n\r\n")
                assert b" 400 " in client.recv(4096)
        for _ in range(30):
            answer = requests.post(f"{url}/v1/embeddings", json={"input": "hello"}, timeout=30)
            assert answer.status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
