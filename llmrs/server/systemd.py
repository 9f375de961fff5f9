"""Tell systemd how the service is (`Type=notify`): ready once it answers, stopping when it is told to end.

gunicorn says READY=1 as soon as its port is open, seconds before a model is loaded, and also for one that
cannot be. So NOTIFY_SOCKET is taken away from gunicorn before it starts. Workers report to the master over a
pipe, and the master tells systemd, which believes only the process that it started itself.

Imported by gunicorn's master: no gevent in here.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import socket
from collections.abc import Callable, MutableMapping
from types import FrameType
from typing import Any

log = logging.getLogger("llmrs.server")

VARIABLE = "NOTIFY_SOCKET"

PATIENCE_SECONDS = 150.0
"""What a start may take from now on, said again and again while it goes on: more than gunicorn gives a
worker to load its models, and more than any time between two reports."""

REPEAT_SECONDS = 10.0
"""How often a start that goes on is reported."""

MAX_STATUS = 400
"""Characters of a status. A line shorter than PIPE_BUF is written as a whole."""

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class ServiceManager:
    """What systemd is told. All methods do nothing where systemd has not asked to be told.

    Args:
        workers: how many of them must be ready before the service is.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._address: str | None = None
        self._master = 0
        self._reading = self._writing = -1
        self._ready: set[int] = set()
        self._is_told = False
        self._is_stopping = False

    def take_over(self, environ: MutableMapping[str, str]) -> None:
        """In the master, before gunicorn starts: from now on it is this object that tells systemd."""
        if (address := environ.pop(VARIABLE, "")) and address[0] in "/@":
            self._address = "\0" + address[1:] if address[0] == "@" else address
            self._master = os.getpid()

    def is_loading(self, what: str) -> None:
        """In the master: the start goes on, and may take longer than the unit's TimeoutStartSec."""
        if not self._is_told:
            self._tell(f"STATUS={what[:MAX_STATUS]}\nEXTEND_TIMEOUT_USEC={PATIENCE_SECONDS * 1e6:.0f}")

    def listen(self) -> None:
        """In the master, before the first worker is forked: hear what workers report, and stops."""
        if self._address is None:
            return
        self.is_loading("loading")
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._reading, False)
        os.set_blocking(self._writing, False)
        # A signal interrupts the master's wait. It has no loop that could watch a descriptor.
        signal.signal(signal.SIGIO, self._hear)
        fcntl.fcntl(self._reading, fcntl.F_SETOWN, self._master)
        fcntl.fcntl(self._reading, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        for number in STOPS:
            signal.signal(number, self._before(signal.getsignal(number)))

    def join(self) -> None:
        """In a worker, after the fork."""
        if self._reading >= 0:
            os.close(self._reading)
            self._reading = -1

    @property
    def is_asking(self) -> bool:
        """In a worker: whether anybody wants to know when it is ready."""
        return self._writing >= 0

    def report(self, reason: str | None) -> None:
        """In a worker: it is ready, or it is not for this reason."""
        line = f"{os.getpid()} {' '.join((reason or '').split())[:MAX_STATUS]}".rstrip()
        with contextlib.suppress(OSError):  # the master has gone
            os.write(self._writing, f"{line}\n".encode())

    def forget(self, pid: int) -> None:
        """In the master: a worker has ended."""
        self._ready.discard(pid)

    def is_stopping(self) -> None:
        """In the master: the service ends."""
        if not self._is_stopping:
            self._is_stopping = True
            self._tell("STOPPING=1\nSTATUS=finishing requests")

    def _hear(self, number: int, frame: FrameType | None) -> None:
        """Read the reports of workers."""
        if os.getpid() != self._master:
            return
        with contextlib.suppress(BlockingIOError):
            while lines := os.read(self._reading, 65536):
                for line in lines.decode(errors="replace").splitlines():
                    self._take(line)

    def _take(self, line: str) -> None:
        pid, _, reason = line.partition(" ")
        if self._is_told or not pid.isdigit():
            return
        if reason:
            self._ready.discard(int(pid))
            self.is_loading(f"waiting: {reason}")
            return
        self._ready.add(int(pid))
        if len(self._ready) >= self._workers:
            self._is_told = True
            self._tell("READY=1\nSTATUS=ready")

    def _before(self, handler: Any) -> Callable[[int, FrameType | None], None]:
        """A handler of a signal that stops the master, and tells first."""

        def stop(number: int, frame: FrameType | None) -> None:
            self.is_stopping()
            if callable(handler):
                handler(number, frame)

        return stop

    def _tell(self, state: str) -> None:
        if self._address is None or os.getpid() != self._master:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(state.encode(), self._address)
        except OSError as error:
            log.warning("systemd cannot be told of the service's state: %s", error.strerror)
