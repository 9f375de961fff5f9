"""Where nothing can listen, a line says which setting is at fault, before anything is started."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from llmrs.config import load
from llmrs.errors import ConfigError
from llmrs.server.listening import check_address


def refusal(**environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check_address(load(environ=environ, path=os.devnull))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_free_port_and_a_path_that_is_free(tmp_path: Path) -> None:
    for host in ("127.0.0.1", "0.0.0.0", "localhost"):
        check_address(load(environ={"HOST": host, "PORT": "0"}, path=os.devnull))
    check_address(load(environ={"HOST": f"unix:{tmp_path}/new.sock"}, path=os.devnull))


def test_a_name_that_does_not_resolve() -> None:
    """As conda's HOST, which names a compiler's target."""
    message = refusal(HOST="x86_64-conda-linux-gnu.invalid", PORT="0")
    assert message.startswith(
        'host = "x86_64-conda-linux-gnu.invalid" (environment HOST): the name cannot be'
    )
    assert "127.0.0.1" in message


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example"])
def test_what_is_no_name(host: str) -> None:
    assert "(environment HOST): the name cannot be resolved" in refusal(HOST=host, PORT="0")


def test_an_address_of_another_machine() -> None:
    assert "(environment HOST): this machine has no such address" in refusal(HOST="203.0.113.9", PORT="0")


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port = {port} (environment PORT): another program listens there" in refusal(PORT=port)


def test_a_port_that_needs_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", denied)
    assert "port = 80 (environment PORT): no permission" in refusal(PORT="80")


def test_paths_of_sockets(tmp_path: Path) -> None:
    assert "no such folder" in refusal(HOST=f"unix:{tmp_path}/none/http.sock")
    (tmp_path / "file").write_text("")
    assert "no socket" in refusal(HOST=f"unix:{tmp_path}/file")
    assert (tmp_path / "file").exists()
    path = f"{tmp_path}/live.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen(1)
        assert "another program listens there" in refusal(HOST=f"unix:{path}")
    check_address(load(environ={"HOST": f"unix:{path}"}, path=os.devnull))  # left behind: it is replaced


@pytest.mark.parametrize("variable", ["GUNICORN_FD", "LISTEN_FDS"])
def test_a_socket_that_is_there_already_is_not_looked_for(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "3")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        check_address(load(environ={"PORT": str(taken.getsockname()[1])}, path=os.devnull))
