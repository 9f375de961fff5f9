"""Who is still there: what a write finds out about a client, and that its answer stays whole."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import pytest

from llmrs.server.presence import GONE, Presence, watch_stock
from tests.processes import wait_until

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
Pair = tuple[socket.socket, socket.socket]


def tcp() -> Pair:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return client, listener.accept()[0]


@pytest.fixture(params=[tcp, socket.socketpair], ids=["tcp", "unix"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A client's socket and the server's."""
    make: Callable[[], Pair] = request.param
    client, server = make()
    with closing(client), closing(server):
        server.setblocking(False)
        yield client, server


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def close_with_bytes_unread(client: socket.socket) -> None:
    client.close()


@pytest.mark.parametrize("leave", [socket.socket.close, reset, close_with_bytes_unread])
def test_who_has_left_is_gone(pair: Pair, leave: Callable[[socket.socket], None]) -> None:
    client, server = pair
    if leave is close_with_bytes_unread:
        server.sendall(b"never read")
    presence = Presence(server)
    leave(client)
    wait_until(presence.gone)
    assert presence.gone(), "and stays so"


@pytest.mark.parametrize("asked", [0, 1, 5])
def test_who_has_ended_the_sending_side_is_there_and_gets_the_whole_answer(pair: Pair, asked: int) -> None:
    client, server = pair
    presence = Presence(server)
    client.shutdown(socket.SHUT_WR)
    for _ in range(asked):
        assert not presence.gone()
    assert presence.begun == (asked > 0)
    for part in presence.rest((ANSWER[:20], ANSWER[20:])):
        server.sendall(part)
    assert presence.rest((b"more",)) == (b"more",)
    server.close()
    assert client.recv(1000, socket.MSG_WAITALL) == ANSWER


def test_who_waits_or_sends_is_there(pair: Pair) -> None:
    client, server = pair
    presence = Presence(server)
    assert not presence.gone()
    client.sendall(b"POST / HTTP/1.1\r\n")
    assert not presence.gone()
    assert not presence.begun
    client.shutdown(socket.SHUT_WR)
    assert not presence.gone(), "its next request is still to be read"


def test_who_has_left_behind_bytes_that_nobody_has_read_is_gone(pair: Pair) -> None:
    client, server = pair
    presence = Presence(server)
    client.sendall(b"the rest of a large body")
    client.close()
    wait_until(presence.gone)


def test_a_client_whose_socket_takes_nothing_is_there() -> None:
    client, server = socket.socketpair()
    with closing(client), closing(server):
        server.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                server.send(bytes(65536))
        presence = Presence(server)
        client.shutdown(socket.SHUT_WR)
        assert not presence.gone()
        assert not presence.begun


def test_nothing_can_be_told_of_a_client_without_a_plain_http_socket() -> None:
    class Tls:
        _sock = object()

        def cipher(self) -> None: ...

    class Response:
        sock = Tls()

        def start(self) -> None: ...

    for start_response in (lambda: None, Response().start):
        environ = {"SERVER_PROTOCOL": "HTTP/1.1"}
        watch_stock(environ, start_response)
        assert environ[GONE] is None
