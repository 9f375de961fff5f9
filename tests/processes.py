"""Real processes for tests: started on free ports, waited for, ended by pid, bounded in time."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import NoReturn

import pytest
import requests

from llmrs.config import Config

ROOT = Path(__file__).parent.parent
READY = re.compile(r"; try: curl -s (?:--unix-socket (\S+) )?(http://\S+?)/v1/embeddings")
START_SECONDS = 60.0

PATIENCE = 4.0
"""How many times longer than on a quiet machine anything may take here. No wait of a test says how fast
something is: it only ends a test that would never end."""


class Server:
    """A running service process.

    Attributes:
        url: its address, without a path.
        pid: of the process that was started; `worker_pid` of the one that serves.
    """

    def __init__(self, process: subprocess.Popen[bytes], log_file: Path, url: str = "") -> None:
        self._process = process
        self._log_file = log_file
        self.url = url

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    @property
    def log(self) -> str:
        """All that it wrote so far."""
        return self._log_file.read_text(encoding="utf-8", errors="replace")

    @property
    def worker_pid(self) -> int:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        assert len(children) == 1, children
        return int(children[0])

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, seconds: float = 30.0) -> int:
        """Its exit code; fails the test if it does not end in time."""
        try:
            return self._process.wait(seconds * PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            pytest.fail(f"the process did not end within {seconds} s:\n{self.log[-3000:]}")

    def stop(self) -> int:
        """Ask it to end at once and wait for it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        return self.wait()


def clean_environment(**extra: str) -> dict[str, str]:
    """The environment less everything that configures llmrs, with a home of its own for caches."""
    ours = {option.name.upper() for option in fields(Config)}
    ours |= {"LLMRS_CONFIG", "WEB_CONCURRENCY", "GUNICORN_CMD_ARGS"}
    return {name: value for name, value in os.environ.items() if name not in ours} | extra


@contextlib.contextmanager
def start(
    command: Sequence[str], ready: Callable[[Server], bool], *, cwd: Path | None = None, **env: str
) -> Iterator[Server]:
    """Run a command until the block ends; the block begins when `ready` is true."""
    with tempfile.TemporaryDirectory() as folder:
        log_file = Path(folder) / "log"
        with log_file.open("wb") as sink:
            process = subprocess.Popen(
                command, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL, cwd=cwd or folder,
                env=clean_environment(**env),
            )  # fmt: skip
        server = Server(process, log_file)
        try:
            wait_until(lambda: ready(server), START_SECONDS, server)
            yield server
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(10)


@contextlib.contextmanager
def llmrs(
    *arguments: str, command: Sequence[str] = (), cwd: Path | None = None, **env: str
) -> Iterator[Server]:
    """`llmrs serve` on a free port (or another command that serves), ready.

    Runs on the worker class in TEST_WORKER_CLASS, if that is set and the test asks for none.
    """
    if worker_class := os.environ.get("TEST_WORKER_CLASS"):
        env = {"WORKER_CLASS": worker_class} | env

    def ready(server: Server) -> bool:
        found = READY.search(server.log)
        if found:
            server.url = found[2]
        return found is not None

    command = command or [sys.executable, "-m", "llmrs", "serve", "--port", "0", *arguments]
    with start(command, ready, cwd=cwd, **env) as server:
        yield server


@contextlib.contextmanager
def uvicorn(module: str, *, port: int = 0, **env: str) -> Iterator[Server]:
    """An ASGI service of tests/services under uvicorn."""
    port = port or free_port()
    command = [sys.executable, "-m", "uvicorn", module, "--port", str(port), "--log-level", "warning"]

    def ready(server: Server) -> bool:
        server.url = f"http://127.0.0.1:{port}"
        return listens(port)

    with start(command, ready, cwd=ROOT, **env) as server:
        yield server


def run(
    *arguments: str, cwd: Path | None = None, timeout: float = 60, **env: str
) -> subprocess.CompletedProcess[str]:
    """`llmrs` with these arguments, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "llmrs", *arguments], capture_output=True, text=True,
        timeout=timeout * PATIENCE, cwd=cwd, env=clean_environment(**env), stdin=subprocess.DEVNULL,
    )  # fmt: skip


def wait_until(condition: Callable[[], bool], seconds: float = 15.0, server: Server | None = None) -> None:
    """Wait for a condition; fails the test when it does not come, or its process ends before.

    `seconds` are those of a quiet machine. A question that gets no answer in its time is asked again.
    """
    until = time.monotonic() + seconds * PATIENCE
    while not _holds(condition):
        if server is not None and server._process.poll() is not None:
            pytest.fail(f"the process ended with {server._process.returncode}:\n{server.log[-3000:]}")
        if time.monotonic() > until:
            pytest.fail(f"not within {seconds} s" + (f":\n{server.log[-3000:]}" if server else ""))
        time.sleep(0.02)


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except requests.Timeout:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def packages(environment: str) -> dict[str, str]:
    """Variables of a process that finds another environment's packages behind its own.

    It is made by `make ENVIRONMENT/installed`: without it, a failure under CI and else a skip.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folder = ROOT / environment / "lib" / version / "site-packages"
    if not folder.exists():
        missing(f"an environment is missing: make {environment}/installed")
    return {**clean_environment(), "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}


def tool(name: str) -> str:
    """The path of a program the test needs: without it, a failure under CI and else a skip."""
    path = shutil.which(name)
    if path is None:
        missing(f"{name} is not installed")
    return path


def missing(what: str) -> NoReturn:
    """End a test that lacks something: a failure under CI, else a skip."""
    pytest.fail(what) if os.environ.get("CI") else pytest.skip(what)
