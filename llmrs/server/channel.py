"""An accepted socket whose every wait has an end.

There is no timer per wait: whoever waits notes what for and until when, and `expire`, called for
every channel about once a second, ends what has taken too long. Creating and cancelling a timer
cost more than reading a request. Nothing here knows HTTP.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from time import monotonic
from typing import Any, NamedTuple

import gevent

RECEIVE_BYTES = 64 * 1024
"""Most bytes of one read, and so of what lies unparsed while a request is answered. (CPython
allocates the whole of it for each read; from 128 KiB that means mapping memory.)"""

LINGER_BYTES = 32 << 20
FAR = float("inf")

IDLE, HEAD, BODY, WORK, WRITE, LINGER = "idle", "head", "body", "work", "write", "linger"
"""What a channel waits for: the next request, the rest of its head, the next piece of its body, the
application (which has its own deadlines), the client to take the answer, its last bytes."""

_ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER: drop what has not been sent, instead of keeping it for a client that does not read."""


class Timeouts(NamedTuple):
    """Seconds for each kind of wait. The one for writing starts anew whenever the client takes
    something; a body must also come at a pace (see `connection`)."""

    idle: float = 75.0
    head: float = 10.0
    body: float = 30.0
    write: float = 60.0
    linger: float = 2.0


class ClientGone(Exception):
    """The client takes nothing any more."""


class Channel:
    """An accepted socket: reads, writes and their deadlines.

    Attributes:
        expired: whether a wait was ended by `expire` or `retire`. The reading side is shut then.
    """

    __slots__ = ("_deadline", "_hub", "_raw", "_readable", "_sock", "_state", "_timeouts", "_wait", "expired")

    def __init__(self, sock: Any, timeouts: Timeouts) -> None:
        self._sock = sock
        self._raw = sock._sock  # below gevent's socket: where the kernel is asked without a detour
        self._hub = gevent.get_hub()
        self._wait = self._hub.wait
        self._readable = self._hub.loop.io(sock.fileno(), 1)
        self._timeouts = timeouts
        self._state = IDLE
        self._deadline = monotonic() + timeouts.idle
        self.expired = False

    def close(self) -> None:
        """Release the watcher and the socket."""
        self._readable.close()
        self._sock.close()

    def receive(self) -> bytes:
        """The next bytes; empty at their end, after a reset, or when the wait has expired.

        It waits before it reads: a client that has just got its answer has not sent yet.
        """
        while True:
            self._wait(self._readable)
            try:
                data: bytes = self._raw.recv(RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                return b""
            return data

    def send(self, *parts: bytes) -> None:
        """Send all of the parts. Most answers fit the socket's buffer: one system call, no waiting.

        Raises:
            ClientGone: the connection is closed, or the client took nothing for too long.
        """
        try:
            sent = self._raw.send(parts[0]) if len(parts) == 1 else self._raw.sendmsg(parts)
        except BlockingIOError:
            sent = 0
        except OSError:
            raise ClientGone from None
        if sent < (len(parts[0]) if len(parts) == 1 else sum(map(len, parts))):
            self._send_rest(parts, sent)

    def _send_rest(self, parts: tuple[bytes, ...], sent: int) -> None:
        writable = self._hub.loop.io(self._sock.fileno(), 2)
        try:
            for part in parts:
                left = memoryview(part)[sent:]
                sent = max(0, sent - len(part))
                while left:
                    self._state, self._deadline = WRITE, monotonic() + self._timeouts.write
                    self._wait(writable)
                    with contextlib.suppress(BlockingIOError):
                        left = left[self._raw.send(left) :]
        except OSError:
            raise ClientGone from None
        finally:
            writable.close()
            self._state, self._deadline = WORK, FAR

    def linger(self) -> None:
        """After the last answer, take in what the client still sends, for a while.

        If bytes are left unread at the close, the kernel resets the connection, and the client may
        lose an answer that it has not read yet (RFC 9112, 9.6).
        """
        self._state, self._deadline = LINGER, monotonic() + self._timeouts.linger
        self._sock.shutdown(socket.SHUT_WR)
        left = LINGER_BYTES
        while left > 0 and not self.expired and (data := self.receive()):
            left -= len(data)

    # -- called from another greenlet ---------------------------------------------------------

    def expire(self, now: float) -> None:
        """End the present wait if its time is over at `now`, a reading of time.monotonic()."""
        if now < self._deadline:
            return
        if self._state == WRITE:
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
                self._sock.shutdown(socket.SHUT_WR)
        self._stop_reading()

    def retire(self, now: float, quiet: float) -> None:
        """End the connection if nothing is going on and its client has been quiet for so long."""
        idle_since = self._deadline - self._timeouts.idle
        if self._state == LINGER or (self._state == IDLE and now >= idle_since + quiet):
            self._stop_reading()

    def _stop_reading(self) -> None:
        """Shut the reading side only: what has arrived is still read, and can be answered."""
        self.expired = True
        self._deadline = FAR
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RD)
