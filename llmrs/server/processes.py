"""Several processes behind one port: some answer HTTP and, for a local model, one computes for them all.

One master, gunicorn's, starts and watches all of them as workers of the same kind. The first that gets
the engine's lock computes; the others are gateways and reach it over a Unix socket, which the master
has opened and keeps: while an engine starts again, calls wait in its backlog. Locks end with their
process, however it ends, so there is always one engine, and never two:

- A worker that is started in place of a dead engine finds the lock free.
- A reload (HUP) begins a new time, with a lock and a socket of its own: its engine loads while that of the
  old time serves, and that one goes on until the gateways of its time are gone.
- If the master starts no worker for a dead engine (it was told to have one less), a gateway that finds the
  lock free keeps it, ends, and so makes room for a worker that computes.

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

from llmrs.server.scratch import scratch_folder

BACKLOG = 1024
"""Connections that may wait for an engine that starts."""


class Room:
    """Where the processes of one master meet: a folder that only its user can enter.

    Attributes:
        role: what this process is: `alone` with its model or its HTTP backends, a `gateway`, or the
            `engine`.
        folder: None where there is only one process.
        is_later: whether this process was started in place of another one, and not with the first: others
            may be serving, and what was served at the first start may be no more.
    """

    def __init__(self) -> None:
        self.role: Literal["alone", "gateway", "engine"] = "alone"
        self.folder: Path | None = None
        self.is_later = False
        self._listener: socket.socket | None = None
        self._locks: list[int] = []  # open as long as the process is
        self._owner = 0
        self._time = 0
        self._was_free = False

    @property
    def address(self) -> str:
        """The engine's, for a backend: `unix:/...`."""
        return f"unix:{self._path('engine')}"

    def open(self, processes: int, *, engine: bool) -> None:
        """In the master, at its start and at every reload: a new time begins for the workers to come.

        Args:
            processes: that answer HTTP.
            engine: whether one more computes for them.

        Raises:
            ConfigError: there is no folder that can be written to.
        """
        if self._listener is not None:
            self._listener.close()  # the engine of the old time has it, too
            self._listener = None
        if processes == 1:
            return
        if self.folder is None:
            self._owner = os.getpid()
            self.folder = Path(tempfile.mkdtemp(prefix="llmrs-", dir=scratch_folder()))
        self._time += 1
        if engine:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(self._path("engine")))
            self._listener.listen(BACKLOG)

    def join(self) -> socket.socket | None:
        """In a worker, after the fork: find out its role. Returns what an engine listens on."""
        if self._listener is None:
            return None
        if self._lock("engine.lock", fcntl.LOCK_EX, os.O_CREAT):
            self.role = "engine"
            return self._listener
        self.role = "gateway"
        self._lock("gateways.lock", fcntl.LOCK_SH, os.O_CREAT)
        self._listener.close()
        return None

    def engine_is_missing(self) -> bool:
        """In a gateway, once a second: whether nobody computes, and nobody will before this process ends.

        Twice in a row: between an engine's end and its successor's start the lock is free, too.
        """
        if self.role != "gateway":
            return False
        was_free, self._was_free = self._was_free, self._is_free("engine.lock")
        return was_free and self._was_free and self._lock("engine.lock", fcntl.LOCK_EX)

    def is_needed(self) -> bool:
        """In a worker that has been told to end: whether others still need it."""
        return self.role == "engine" and not self._is_free("gateways.lock")

    def fails_first(self) -> bool:
        """In a worker that cannot start: whether none has failed before it."""
        if self.folder is None:
            return True
        try:
            self._path("failed").touch(0o600, exist_ok=False)
        except FileExistsError:
            return False
        return True

    def close(self) -> None:
        """In the master, at its end: leave nothing behind."""
        if self.folder is not None and os.getpid() == self._owner:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, name: str) -> Path:
        """A file of this time."""
        assert self.folder is not None
        return self.folder / f"{name}-{self._time}"

    def _is_free(self, name: str) -> bool:
        """Whether nobody holds a lock: it is taken for a moment."""
        free = self._lock(name, fcntl.LOCK_EX)
        if free:
            os.close(self._locks.pop())
        return free

    def _lock(self, name: str, kind: int, create: int = 0) -> bool:
        """Take a lock for the rest of this process's life, unless others hold it."""
        path = self._path(name)
        try:
            lock = os.open(path, os.O_RDWR | create, 0o600)
        except FileNotFoundError:
            return False  # somebody has tidied up: what is unknown is not free
        os.utime(path)  # those who tidy up look for what is old
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
            self._locks.append(lock)
            return True
        os.close(lock)
        return False


room = Room()
"""This process's. One for the whole process, because gunicorn may read its settings again (HUP)."""
