"""What systemd is told (`Type=notify`): ready when it answers, and not for having been started."""

from __future__ import annotations

import contextlib
import secrets
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from llmrs.server.systemd import ServiceManager
from tests.backends.services import shapes
from tests.backends.services.wire import serve
from tests.processes import ROOT, Server, free_port, llmrs, run, start, wait_until

pytestmark = pytest.mark.chooses_worker_class


class Manager:
    """systemd's end of the socket."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{name[1:]}" if name.startswith("@") else name)

    def receive(self, seconds: float = 60.0) -> dict[str, str]:
        """The next message; fails the test if none comes."""
        self._socket.settimeout(seconds)
        return dict(line.split("=", 1) for line in self._socket.recv(4096).decode().split("\n"))

    def waits_for(self, key: str) -> list[dict[str, str]]:
        """The messages up to the one with this key."""
        messages = [self.receive()]
        while key not in messages[-1]:
            messages.append(self.receive())
        return messages

    def rest(self) -> list[dict[str, str]]:
        """What has been said meanwhile."""
        messages = []
        with contextlib.suppress(TimeoutError):
            while True:
                messages.append(self.receive(0.01))
        return messages

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    """Listens at a path, or where a test asks for that, at an abstract address."""
    abstract = getattr(request, "param", "path") == "abstract"
    manager = Manager(f"@llmrs-{secrets.token_hex(8)}" if abstract else str(tmp_path / "notify"))
    yield manager
    manager.close()


def ready(server: Server) -> int:
    return requests.get(f"{server.url}/readyz", timeout=30).status_code


@pytest.mark.parametrize(
    ("manager", "settings"),
    [("path", {}), ("abstract", {"PROCESSES": "2"}), ("path", {"WORKER_CLASS": "gevent"})],
    ids=["path", "abstract", "stock"],
    indirect=["manager"],
)
def test_ready_follows_readiness(manager: Manager, settings: dict[str, str]) -> None:
    """The port is known beforehand, so that the moment of the message is the one that is looked at."""
    port = str(free_port())
    said: list[dict[str, str]] = []

    def is_ready(server: Server) -> bool:
        said.extend(manager.waits_for("READY"))
        server.url = f"http://127.0.0.1:{port}"
        assert ready(server) == 200, "at once"
        return True

    command = [sys.executable, "-m", "llmrs", "serve", "--port", port]
    with start(command, is_ready, NOTIFY_SOCKET=manager.name, **settings) as server:
        assert [message.get("READY") for message in said] == [None] * (len(said) - 1) + ["1"]
        assert all(int(message["EXTEND_TIMEOUT_USEC"]) > 120e6 for message in said[:-1])
        assert "READY" not in str(manager.rest())
        server.signal(signal.SIGTERM)
        assert manager.receive()["STOPPING"] == "1"
        assert server.wait() == 0
    assert manager.rest() == []


def test_a_model_that_cannot_be_loaded_never_was_ready(manager: Manager, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    ended = run(
        "serve",
        "--port",
        "0",
        "--offline",
        "--model-path",
        str(tmp_path / "model"),
        NOTIFY_SOCKET=manager.name,
    )
    assert ended.returncode == 3
    assert not any("READY" in message for message in manager.rest())


def test_a_backend_that_is_down_is_waited_for(manager: Manager) -> None:
    """However long that takes: what waits may take longer than TimeoutStartSec, and says why."""
    with serve(shapes.openai()) as backend:
        url = backend.url
    with llmrs(BACKEND_URL=url, NOTIFY_SOCKET=manager.name) as server:
        assert ready(server) == 503
        messages = [manager.receive(), manager.receive()]
        assert messages[1]["STATUS"].startswith("waiting: ")
        assert "READY" not in str(messages)
        with serve(shapes.openai(), socket.create_server(("127.0.0.1", int(url.rsplit(":", 1)[1])))):
            manager.waits_for("READY")
            assert ready(server) == 200


def test_plain_gunicorn_tells_the_same(manager: Manager) -> None:
    gunicorn = str(Path(sys.executable).with_name("gunicorn"))
    with llmrs(command=[gunicorn], cwd=ROOT, PORT="0", NOTIFY_SOCKET=manager.name) as server:
        assert "READY" not in manager.receive()
        manager.waits_for("READY")
        server.signal(signal.SIGHUP)
        wait_until(lambda: server.log.count("; try: curl") == 2, 60)
        server.signal(signal.SIGTERM)
        assert manager.waits_for("STOPPING")
        assert server.wait() == 0


class TestServiceManager:
    def test_without_systemd_nothing_is_said_and_no_signal_is_taken(self) -> None:
        before = signal.getsignal(signal.SIGTERM)
        manager = ServiceManager(1)
        environ = {"PATH": "/bin"}
        manager.take_over(environ)
        manager.listen()
        assert environ == {"PATH": "/bin"}
        assert not manager.is_asking
        assert signal.getsignal(signal.SIGTERM) is before
        manager.is_loading("x")
        manager.is_stopping()

    def test_gunicorn_does_not_see_the_variable(self) -> None:
        environ = {"NOTIFY_SOCKET": "/run/systemd/notify"}
        ServiceManager(1).take_over(environ)
        assert environ == {}

    def test_all_workers_must_be_ready_and_be_there(self, manager: Manager) -> None:
        service = ServiceManager(2)
        service.take_over({"NOTIFY_SOCKET": manager.name})
        service._take("11")
        service._take("11")
        service.forget(11)
        service._take("12")
        assert manager.rest() == []
        service._take("13 the backend cannot be reached")
        service._take("14")
        assert [message.get("READY") for message in manager.rest()] == [None, "1"]
        service._take("15 down")
        assert manager.rest() == [], "what comes later is the monitoring's business"
