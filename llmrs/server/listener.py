"""Accepting connections, within the descriptors that the process may open.

A worker that accepts until the kernel refuses has none left for its backend, for names and for files,
and gevent then writes a traceback a second. So no more connections are taken than leave some over,
and a refusal that comes all the same (the whole machine may be out of them) is waited out.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import resource
import socket
import struct
from time import monotonic
from typing import Any

from gevent.server import StreamServer

log = logging.getLogger("llmrs.server")

SPARE = 128
"""Descriptors beside those of clients: connections to backends, name resolution, files."""

PAUSE_SECONDS = 0.1
"""How long nothing is accepted after the kernel has refused, unless a connection ends before."""

TELL_SECONDS = 60.0
"""How often that is worth a line in the log."""

EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
_DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)
"""A classic BPF program of one instruction: return 0, which is how many bytes of a packet are kept."""


def usable_connections(wanted: int) -> int:
    """How many connections the process may hold: `wanted`, or fewer where its limit is lower.

    The soft limit is raised as far as that takes and the hard one allows: the usual 1,024 is there for
    programs that use select(), and gevent does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/dev/fd"))
    needed = wanted + used + SPARE
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    spare = min(SPARE, (soft - used) // 2)  # where there are few of them, half
    usable = max(1, soft - used - spare)
    log.warning(
        "at most %d connections at a time, not %d: the process may open %d files (ulimit -n)",
        usable, wanted, soft,
    )  # fmt: skip
    return usable


class Listener(StreamServer):  # type: ignore[misc]
    """gevent's server, which waits when the process cannot open another connection."""

    _told_at = float("-inf")

    def do_read(self) -> Any:
        """A connection and its address; None when there is none, or no descriptor for it."""
        try:
            return super().do_read()
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            self._pause(error)
            return None

    def _pause(self, error: OSError) -> None:
        now = monotonic()
        if now >= self._told_at + TELL_SECONDS:
            self._told_at = now
            log.warning("no connection can be accepted for now: %s", error.strerror)
        self.stop_accepting()
        self._timer = self.loop.timer(PAUSE_SECONDS)
        self._timer.start(self._start_accepting_if_started)

    def finish(self) -> None:
        """Accept what has connected already, and close; who comes meanwhile has to knock again.

        A client who connects between the last accept and the close is connected, and then reset. So the
        kernel drops what arrives in that time, where it can (Linux), and the client's kernel repeats it.
        """
        self.stop_accepting()
        program = ctypes.create_string_buffer(_DROP_ALL)
        with contextlib.suppress(OSError):
            attached = struct.pack("HP", 1, ctypes.addressof(program))
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, attached)
        while not self.full() and (accepted := self.do_read()):
            self.do_handle(*accepted)
        with contextlib.suppress(OSError):  # the master has the same socket, maybe for another worker
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
        self.socket.close()
        self.close()
