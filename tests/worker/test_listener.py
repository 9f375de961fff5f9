"""The end of listening: whoever was connected is served, and nobody is connected and then reset."""

from __future__ import annotations

import errno
import select
import socket
import sys
from typing import Any

import gevent
import pytest

from llmrs.server.listener import Listener


@pytest.mark.skipif(sys.platform != "linux", reason="needs a packet filter")
def test_who_connects_between_the_last_accept_and_the_close_is_refused() -> None:
    accepted: list[Any] = []
    late: list[socket.socket] = []

    class Interrupted(Listener):
        """Somebody comes just after it has found out that nobody else waits."""

        def do_read(self) -> Any:
            found = super().do_read()
            if found is None and not late:
                late.append(_connecting(address))
            return found

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        address = listening.getsockname()
        server = Interrupted(listening, handle=lambda *args: accepted.append(args))
        server.start()
        with socket.create_connection(address):
            server.finish()
            gevent.sleep(0)
            assert len(accepted) == 1
    with late[0]:
        select.select([], [late[0]], [], 30)
        assert late[0].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


def _connecting(address: tuple[str, int]) -> socket.socket:
    client = socket.socket()
    client.setblocking(False)
    assert client.connect_ex(address) == errno.EINPROGRESS
    return client
