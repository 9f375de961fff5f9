"""How the processes that answer tell each other of a reload: by small files in their common folder.

Whoever was asked for a reload puts up a notice with a number; the others look for it once a second, reload,
and leave the number with what has come of it. Numbers are readings of the machine's monotonic clock, taken
before the configuration is read: who has done a number has read what was there at that time, or later.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

PREFIX = "reload-"
SUFFIX = ".reloaded"


class Outcome(msgspec.Struct):
    """What a process serves since it has done the reload of that number, and why it does not serve others."""

    number: int
    models: list[str]
    failed: dict[str, str]


class Notices:
    """The notices of one service, and this process's part in them.

    Args:
        folder: that of its processes.
        pid: this process's.
    """

    def __init__(self, folder: Path, pid: int) -> None:
        self._folder = folder
        self._own = folder / f"{pid}{SUFFIX}"
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(Outcome)

    @staticmethod
    def number() -> int:
        """That of a reload which begins now."""
        return time.monotonic_ns()

    def ask(self, number: int) -> None:
        """Ask the others for a reload."""
        (self._folder / f"{PREFIX}{number}").touch()
        for old in self._asked():
            if old < number:
                (self._folder / f"{PREFIX}{old}").unlink(missing_ok=True)

    def latest(self) -> int:
        """The number of the last reload that somebody has asked for; 0 without one."""
        return max(self._asked(), default=0)

    def tell(self, outcome: Outcome) -> None:
        """Leave what has come of a reload here."""
        draft = self._own.with_suffix(".draft-reloaded")
        with contextlib.suppress(FileNotFoundError):  # the master was faster, and all is over
            draft.write_bytes(self._encoder.encode(outcome))
            draft.replace(self._own)

    def keep(self) -> None:
        """Let what was left look new: those who tidy up temporary folders look for what is old."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._own)

    def others(self) -> Iterator[Outcome]:
        """What the other processes that live have left last."""
        for path in self._folder.glob(f"*{SUFFIX}"):
            if path != self._own and os.path.exists(f"/proc/{path.stem}"):
                with contextlib.suppress(FileNotFoundError):
                    yield self._decoder.decode(path.read_bytes())

    def close(self) -> None:
        """Take this process's part away: nobody waits for it any more."""
        self._own.unlink(missing_ok=True)

    def _asked(self) -> list[int]:
        return [int(path.name.removeprefix(PREFIX)) for path in self._folder.glob(f"{PREFIX}*")]
