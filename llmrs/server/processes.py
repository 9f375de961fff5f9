"""Several processes behind one port: some answer HTTP and, for a local model, one computes for them all.

One master, gunicorn's, starts and watches all of them as workers of the same kind. The first that gets
the engine's lock computes; the others are gateways and reach it over a Unix socket, which the master
has opened and keeps: while an engine starts again, calls wait in its backlog. Locks end with their
process, however it ends, so there is always one engine, and never two:

- a worker that is started in place of a dead engine finds the lock free;
- if the master does not start one (gunicorn's reload starts the new workers first), a gateway that finds
  the lock free keeps it, ends, and so makes room for a worker that computes;
- an engine that is told to end goes on while the gateways of its time are there: what they have
  accepted needs it. A reload begins a new time.

Imported by gunicorn's master: no gevent in here.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Literal

BACKLOG = 1024
"""Connections that may wait for an engine that starts."""


class Room:
    """Where the processes of one master meet: a folder that only its user can enter.

    Attributes:
        role: what this process is: `alone` with its model or its HTTP backends, a `gateway`, or the
            `engine`.
        folder: None where there is only one process.
    """

    def __init__(self) -> None:
        self.role: Literal["alone", "gateway", "engine"] = "alone"
        self.folder: Path | None = None
        self._listener: socket.socket | None = None
        self._locks: list[int] = []  # open as long as the process is
        self._owner = 0
        self._reloads = 0

    @property
    def address(self) -> str:
        """The engine's, for a backend: `unix:/...`."""
        return f"unix:{self._path('engine')}"

    def open(self, *, engine: bool) -> None:
        """In the master: make the folder, and listen for the gateways' calls if one worker computes."""
        if self.folder is not None:
            return
        self._owner = os.getpid()
        self.folder = Path(tempfile.mkdtemp(prefix="llmrs-"))
        if engine:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(self._path("engine")))
            self._listener.listen(BACKLOG)

    def reload(self) -> None:
        """In the master: all workers are about to be replaced."""
        self._reloads += 1

    def join(self) -> socket.socket | None:
        """In a worker, after the fork: find out its role. Returns what an engine listens on."""
        if self._listener is None:
            return None
        if self._lock("engine.lock", fcntl.LOCK_EX):
            self.role = "engine"
            return self._listener
        self.role = "gateway"
        self._lock(self._gateways, fcntl.LOCK_SH)
        self._listener.close()
        return None

    def engine_is_missing(self) -> bool:
        """In a gateway: whether nobody computes. If so, nobody will before this process has ended."""
        return self.role == "gateway" and self._lock("engine.lock", fcntl.LOCK_EX)

    def is_needed(self) -> bool:
        """In a worker that has been told to end: whether others still need it."""
        if self.role != "engine":
            return False
        gateways_are_gone = self._lock(self._gateways, fcntl.LOCK_EX)
        if gateways_are_gone:
            os.close(self._locks.pop())
        return not gateways_are_gone

    def close(self) -> None:
        """In the master, at its end: leave nothing behind."""
        if self.folder is not None and os.getpid() == self._owner:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _gateways(self) -> str:
        """The lock that all gateways of a time share."""
        return f"gateways-{self._reloads}.lock"

    def _path(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / name

    def _lock(self, name: str, kind: int) -> bool:
        """Take a lock for the rest of this process's life, unless others hold it."""
        lock = os.open(self._path(name), os.O_RDWR | os.O_CREAT, 0o600)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
            self._locks.append(lock)
            return True
        os.close(lock)
        return False


room = Room()
"""This process's. One for the whole process, because gunicorn may read its settings again (HUP)."""
