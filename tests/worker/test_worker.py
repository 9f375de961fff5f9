"""Our worker class as a process: what applications and clients may rely on."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import ROOT, Server, wait_until
from tests.worker.client import GET, answers, ask, connect, exchange, read_all, read_answer
from tests.worker.conftest import OURS, gunicorn

RESET = b"\x01\0\0\0\0\0\0\0"
"""SO_LINGER of zero seconds: closing sends a reset."""


def get(path: bytes) -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path


def post(path: bytes, length: int, *headers: bytes) -> bytes:
    return b"\r\n".join(
        (b"POST %b HTTP/1.1" % path, b"Host: x", b"Content-Length: %d" % length, *headers, b"", b"")
    )


def test_it_obeys_wsgi() -> None:
    with gunicorn(OURS, app="tests.worker.apps:validated") as server:
        for request in (GET, post(b"/", 3) + b"abc"):
            (answer,) = answers(exchange(server, request))
            assert answer.told == (200, b"valid"), server.log


def test_head_and_body_come_in_one_segment(ours: Server) -> None:
    with connect(ours) as connection:
        for _ in range(20):
            connection.sendall(GET)
            assert answers(connection.recv(65536))[0].status == 200, "one recv gets it all"
        assert ask(connection, get(b"/socket")).body == b"1", "TCP_NODELAY"


def test_a_continue_is_sent_when_the_body_is_asked_for(ours: Server) -> None:
    with connect(ours) as connection:
        connection.sendall(post(b"/", 5, b"Expect: 100-continue"))
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        answer = ask(connection, b"hello")
        assert isinstance(answer.json, dict)
        assert answer.json["body"] == "hello"
        assert ask(connection).status == 200


def test_no_continue_is_sent_to_a_request_that_is_refused(ours: Server) -> None:
    with connect(ours) as connection:
        answer = ask(connection, post(b"/unread", 5, b"Expect: 100-continue"))
        assert answer.status == 200
        assert answer.headers["connection"] == "close", "the body was never asked for, and may come or not"


def test_no_continue_is_sent_in_the_middle_of_an_answer(ours: Server) -> None:
    with connect(ours) as connection:
        connection.sendall(post(b"/read-late", 5, b"Expect: 100-continue"))
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"hello")
        rest = read_all(connection)
        assert b"hello" in rest
        assert b"100" not in rest


@pytest.mark.parametrize("path", [b"/raise", b"/bad-header", b"/silent", b"/leave"])
def test_an_application_that_fails_is_a_500_without_details(ours: Server, path: bytes) -> None:
    before = len(ours.log)
    (answer,) = answers(exchange(ours, get(path)))
    assert answer.status == 500
    assert isinstance(answer.json, dict)
    assert answer.json["error"]["code"] == "internal_error"
    assert b"secret" not in answer.body
    wait_until(lambda: "the application failed" in ours.log[before:])
    assert "Traceback" in ours.log[before:]


def test_an_answer_that_fails_half_way_is_cut_off(ours: Server) -> None:
    raw = exchange(ours, get(b"/cut"))
    assert raw.startswith(b"HTTP/1.1 200 ")
    assert raw.endswith(b"beginning\r\n"), "and no last chunk"


def test_an_answer_shorter_than_declared_ends_the_connection(ours: Server) -> None:
    raw = exchange(ours, get(b"/too-little") + GET)
    assert raw.count(b"HTTP/1.1") == 1
    assert b"\r\nConnection: close\r\n" in raw


def test_start_response_may_be_called_again(ours: Server) -> None:
    """gunicorn would send the headers of both."""
    (answer,) = answers(exchange(ours, get(b"/twice")))
    assert (answer.status, answer.body) == (500, b"replaced")


def test_bodies_of_iterables_are_closed(ours: Server) -> None:
    counts = [int(answers(exchange(ours, get(b"/stream")))[0].headers["x-closed"]) for _ in range(3)]
    assert counts[2] == counts[1] + 1 == counts[0] + 2


@pytest.mark.parametrize("path", [b"/close", b"/close?by=start_response"])
def test_an_application_can_end_the_connection(ours: Server, path: bytes) -> None:
    (answer,) = answers(exchange(ours, get(path) + GET))
    assert (answer.status, answer.headers["connection"]) == (200, "close")


def test_an_application_can_see_its_client_leave(ours: Server) -> None:
    before = int(answers(exchange(ours, get(b"/watch")))[0].body)
    connection = connect(ours)
    connection.sendall(get(b"/watch?wait"))
    time.sleep(0.2)
    connection.close()
    wait_until(lambda: int(answers(exchange(ours, get(b"/watch")))[0].body) == before + 1)


def test_a_small_unread_body_does_not_cost_the_connection(ours: Server) -> None:
    with connect(ours) as connection:
        connection.sendall(post(b"/unread", 5) + b"he")
        assert "connection" not in read_answer(connection).headers
        connection.sendall(b"llo")
        assert ask(connection).status == 200


def test_a_large_unread_body_does_not_cost_the_answer(ours: Server) -> None:
    with connect(ours) as connection:
        connection.sendall(post(b"/unread", 8 << 20) + bytes(8 << 20))
        answer = read_answer(connection)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert read_all(connection) == b""


def test_a_large_answer_arrives_whole_at_a_slow_reader(ours: Server) -> None:
    with connect(ours) as connection:
        connection.sendall(get(b"/big"))
        time.sleep(0.3)
        answer = read_answer(connection)
        assert (answer.status, len(answer.body)) == (200, 20_000_000)
        assert ask(connection).status == 200


def test_a_large_body_arrives_whole(ours: Server) -> None:
    body = bytes(range(256)) * 20_000
    (answer,) = answers(exchange(ours, post(b"/", len(body)), body))
    assert isinstance(answer.json, dict)
    assert answer.json["body"] == body.decode("latin-1")


def test_a_client_that_sends_without_end_is_held_back(ours: Server) -> None:
    with connect(ours) as connection:
        connection.sendall(get(b"/slow"))
        connection.settimeout(0.3)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 100 << 20:
                sent += connection.send(GET * 10_000)
        assert sent < 20 << 20, "the kernel's buffers, and one read of ours"


def test_the_scheme_is_taken_from_trusted_peers_only() -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-Proto: https\r\n\r\n"
    for allowed, scheme in (("10.1.1.1", "http"), ("127.0.0.0/8", "https"), ("*", "https")):
        with gunicorn(OURS, "--forwarded-allow-ips", allowed) as server:
            answer = answers(exchange(server, request))[0]
            assert isinstance(answer.json, dict)
            assert answer.json["scheme"] == scheme


def test_a_thousand_idle_connections() -> None:
    with gunicorn(OURS, "--worker-connections", "1100", "--keep-alive", "60") as server:
        idle = [connect(server) for _ in range(1000)]
        try:
            for connection in idle[::50]:
                assert ask(connection).status == 200
        finally:
            for connection in idle:
                connection.close()


def test_more_connections_than_allowed_wait() -> None:
    with gunicorn(OURS, "--worker-connections", "2") as server:
        first, second, third = connect(server), connect(server), connect(server)
        with first, second, third:
            assert ask(first).status == ask(second).status == 200
            third.sendall(GET)
            third.settimeout(0.5)
            with pytest.raises(TimeoutError):
                third.recv(1)
            first.close()
            third.settimeout(10)
            assert read_answer(third).status == 200


def test_over_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    with (
        gunicorn(OURS, "--bind", f"unix:{path}"),
        socket.socket(socket.AF_UNIX) as connection,
    ):
        connection.connect(str(path))
        assert ask(connection, get(b"/")).status == 200


def test_clients_that_reset_leave_no_trace(ours: Server) -> None:
    before = len(ours.log)
    for request in (GET[:20], GET, get(b"/big"), post(b"/", 100) + b"abc", b"nonsense\r\n\r\n" + b"x" * 1000):
        connection = connect(ours)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.sendall(request)
        connection.close()
    assert answers(exchange(ours, GET))[0].status == 200
    time.sleep(0.2)
    assert "Traceback" not in ours.log[before:]


def test_refusals_log_nothing_of_the_request(ours: Server) -> None:
    before = len(ours.log)
    exchange(ours, b"GET /\x00 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n\r\n")
    exchange(ours, GET[:-2] + b"Authorization: secret\r\nAuthorization: secret\r\n\r\n")
    assert "secret" not in ours.log[before:]


@pytest.mark.parametrize("setting", ["certfile", "proxy_protocol", "header_map"])
def test_what_it_does_not_do_ends_the_start(setting: str, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").touch()
    value = {"certfile": str(tmp_path / "cert.pem"), "proxy_protocol": "v1", "header_map": "dangerous"}[
        setting
    ]
    command = [
        sys.executable, "-m", "gunicorn", "--config", "/dev/null", "--worker-class", OURS,
        "--bind", "127.0.0.1:0", "--no-control-socket", "--" + setting.replace("_", "-"), value,
        "tests.worker.apps:app",
    ]  # fmt: skip
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 3
    assert f"{setting}: Worker does not support it" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_max_requests_ends_the_worker() -> None:
    """The first of the three has been the fixture's."""
    with gunicorn(OURS, "--max-requests", "3") as server, connect(server) as connection:
        first = server.worker_pid
        assert "connection" not in ask(connection).headers
        assert ask(connection).headers["connection"] == "close"
        wait_until(lambda: Path(f"/proc/{first}").exists() is False)
        wait_until(lambda: server.log.count("Booting worker") == 2)
        assert json.loads(answers(exchange(server, GET))[0].body)["method"] == "GET"
