"""How many connections there are: open ones, and those that wait to be accepted.

Imported by gunicorn's master: no gevent in here.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable
from typing import Any

_UNACKED = 24
"""Where the kernel's tcp_info has, of a listening socket, how many connections wait to be accepted."""


def count_connections(worker: Any) -> Callable[[], int]:
    """Have gunicorn's own worker count its connections, before it accepts any; returns what tells them."""
    count = 0
    handle = worker.handle

    def counting(listener: Any, client: Any, address: Any) -> None:
        nonlocal count
        count += 1
        try:
            handle(listener, client, address)
        finally:
            count -= 1

    worker.handle = counting
    return lambda: count


def backlog(listeners: Iterable[Any]) -> int:
    """How many connections wait to be accepted; one, where that cannot be found out (on a Unix socket)."""
    return sum(map(_backlog_of, listeners))


def _backlog_of(listener: Any) -> int:
    try:
        info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKED + 4)
        return int(struct.unpack_from("=I", info, _UNACKED)[0])
    except (OSError, struct.error, AttributeError):
        return 1
