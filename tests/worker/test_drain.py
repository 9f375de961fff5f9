"""The end of a worker: nothing in progress is lost, and nothing idle holds it up."""

from __future__ import annotations

import signal
import threading
import time

from tests.processes import Server, listens, wait_until
from tests.worker.client import GET, Answer, ask, connect, read_all, read_answer
from tests.worker.conftest import OURS, gunicorn

SLOW = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
"""Takes a second."""


def terminate(server: Server) -> float:
    """Tell it to end; when it has heard."""
    server.signal(signal.SIGTERM)
    began = time.monotonic()
    wait_until(lambda: not listens(server.port))
    return began


def test_requests_are_finished_and_quiet_connections_closed_at_once() -> None:
    with gunicorn(OURS, "--keep-alive", "60") as server, connect(server) as idle, connect(server) as busy:
        assert ask(idle).status == 200
        time.sleep(1.2)  # quiet for long enough
        busy.sendall(SLOW)
        time.sleep(0.2)
        began = terminate(server)
        assert idle.recv(1) == b""
        assert time.monotonic() - began < 9
        answer = read_answer(busy)
        assert (answer.status, answer.body, answer.headers["connection"]) == (200, b"ok", "close")
        answered = time.monotonic()
        assert server.wait(10) == 0
        assert time.monotonic() - answered < 9, "it ends when the last request does"


def test_idle_it_ends_at_once() -> None:
    with gunicorn(OURS) as server:
        began = terminate(server)
        assert server.wait(10) == 0
        assert time.monotonic() - began < 9


def test_a_connection_in_use_gets_one_more_answer() -> None:
    with gunicorn(OURS, "--keep-alive", "60") as server, connect(server) as connection:
        assert ask(connection).status == 200
        terminate(server)
        answer = ask(connection)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert server.wait(10) == 0


def test_a_connection_that_falls_quiet_is_closed_after_a_second() -> None:
    with gunicorn(OURS, "--keep-alive", "60") as server, connect(server) as connection:
        assert ask(connection).status == 200
        began = terminate(server)
        assert connection.recv(1) == b""
        assert 0.5 < time.monotonic() - began < 9
        assert server.wait(10) == 0


def test_who_has_connected_already_is_still_served() -> None:
    """The hub is busy: when it hears of the end, these clients still wait in the listener's queue."""
    with gunicorn(OURS) as server, connect(server) as busy:
        busy.sendall(b"GET /busy?1000 HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.2)
        waiting = [connect(server) for _ in range(30)]
        for connection in waiting:
            connection.sendall(GET)
        server.signal(signal.SIGTERM)
        for connection in waiting:
            with connection:
                answer = read_answer(connection)
                assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert server.wait(10) == 0


def test_under_load_no_request_is_lost() -> None:
    """Clients that begin anew whenever they are told to. Refused connections are no lost requests."""
    lost: list[str] = []
    count = [0]

    def client(server: Server) -> None:
        while True:
            try:
                connection = connect(server)
            except ConnectionRefusedError:
                return
            with connection:
                while True:
                    try:
                        answer: Answer = ask(connection)
                    except (AssertionError, OSError) as error:
                        lost.append(repr(error))
                        return
                    count[0] += 1
                    if answer.headers.get("connection") == "close":
                        break

    with gunicorn(OURS, "--keep-alive", "60") as server:
        clients = [threading.Thread(target=client, args=(server,)) for _ in range(8)]
        for thread in clients:
            thread.start()
        time.sleep(0.5)
        server.signal(signal.SIGTERM)
        assert server.wait(10) == 0
        for thread in clients:
            thread.join(10)
        assert count[0] > 100
        assert lost == []


def test_what_does_not_end_is_ended_within_graceful_timeout() -> None:
    with gunicorn(OURS, "--graceful-timeout", "3") as server, connect(server) as connection:
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.2)
        began = terminate(server)
        assert read_all(connection) == b""
        assert server.wait(10) == 0
        assert 1.5 < time.monotonic() - began < 9
        assert "stopped with 1 requests in progress" in server.log
        assert "Worker exiting" in server.log, "in order: the hooks of the process have run"


def test_an_interrupt_ends_it_without_waiting() -> None:
    with gunicorn(OURS) as server, connect(server) as connection:
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.2)
        began = time.monotonic()
        server.signal(signal.SIGINT)
        assert server.wait(10) == 0
        assert time.monotonic() - began < 9
