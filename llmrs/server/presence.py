"""Whether a client is still there, while its answer is worked on.

A client that has closed its connection and one that has only ended its sending side look the same: both
have sent a FIN, and no state of the socket tells them apart. What tells is a write. The kernel of a client
that has left answers it with a reset, that of one which waits keeps it. So, once a client has ended its
side, the first byte of its answer is sent ahead: all answers of HTTP/1 begin with the same one, and the
rest follows when it is known. Nothing is sent that the client would not have got anyway.

What is known is as old as the way to the client and back: the reset of a byte sent now comes later.
"""

from __future__ import annotations

import select
import socket
from typing import Any

from gevent import monkey

FIRST = b"H"
"""Of `HTTP/1.1 200 OK` and of every other status line."""

GONE = "llmrs.client_gone"
"""Key of the WSGI environ: a callable that tells whether the client is gone; None where nobody can."""

_poll: Any = monkey.get_original("select", "poll")


class Presence:
    """Looks after the client at the other end of a plain socket.

    Args:
        sock: the socket below gevent's, whose calls never wait.

    Attributes:
        begun: whether the first byte of the answer to come has been sent.
    """

    __slots__ = ("_sock", "begun")

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self.begun = False

    def gone(self) -> bool:
        """Whether the client has closed its connection or lost it. A microsecond if it is there."""
        try:
            if self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) and not self._has(select.POLLRDHUP):
                return False  # the rest of its request, or the next one
        except BlockingIOError:
            return False  # nothing to read: it waits for our answer
        except OSError:
            return True
        return self._hung_up() or (not self.begun and self._begin() and self._hung_up())

    def rest(self, parts: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """What is still to be sent of the beginning of an answer."""
        if not self.begun:
            return parts
        self.begun = False
        return (parts[0][len(FIRST) :], *parts[1:])

    def _begin(self) -> bool:
        try:
            self.begun = self._sock.send(FIRST, socket.MSG_DONTWAIT) == len(FIRST)
        except BlockingIOError:
            return False
        except OSError:
            pass  # which has hung up the socket
        return True

    def _hung_up(self) -> bool:
        """Whether the connection is closed in both directions, as by a reset."""
        return self._has(select.POLLHUP | select.POLLERR | select.POLLNVAL)

    def _has(self, wanted: int) -> bool:
        poll = _poll()
        poll.register(self._sock, wanted)
        return any(events & wanted for _, events in poll.poll(0))


class _Answered:
    """A socket of the stock worker whose answer may have begun."""

    def __init__(self, sock: Any, presence: Presence) -> None:
        self._sock = sock
        self._presence = presence

    def sendall(self, data: bytes) -> None:
        (data,) = self._presence.rest((data,))
        self._sock.sendall(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def watch_stock(environ: dict[str, Any], start_response: Any) -> None:
    """Have `GONE` tell about a client of gunicorn's own gevent worker.

    gunicorn's start_response is a method of its response, which writes to a socket of its own. A client
    that comes by TLS or HTTP/2 cannot be sent a bare byte: it is taken to be there.
    """
    response = getattr(start_response, "__self__", None)
    sock = getattr(response, "sock", None)
    plain = getattr(sock, "_sock", None)
    is_http1 = environ.get("SERVER_PROTOCOL", "").startswith("HTTP/1")
    if plain is None or hasattr(sock, "cipher") or not is_http1:
        environ[GONE] = None
        return
    presence = Presence(plain)
    environ[GONE] = presence.gone
    response.sock = _Answered(sock, presence)  # type: ignore[union-attr]
