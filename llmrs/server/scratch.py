"""A folder that can be written to, for what must be a file: heartbeats, sockets between processes.

Imported by gunicorn's master: no gevent in here.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable

from llmrs.errors import ConfigError

MEMORY = "/dev/shm"
"""Where files never wait for a disk."""


def scratch_folder(*, in_memory: bool = False) -> str:
    """The first folder in which a file can be made: in memory if that is better, or for temporary files.

    Raises:
        ConfigError: there is none.
    """
    if (folder := next(filter(_takes_files, _candidates(in_memory)), None)) is not None:
        return folder
    raise ConfigError(
        f"no writable folder: a small file is needed in {MEMORY} or in the folder for temporary files; set "
        "the environment variable TMPDIR to a folder that can be written to and is not full"
    )


def _candidates(in_memory: bool) -> Iterable[str]:
    if in_memory:
        yield MEMORY
    with contextlib.suppress(FileNotFoundError):  # it has tried all that it knows
        yield tempfile.gettempdir()
    if not in_memory:
        yield MEMORY


def _takes_files(folder: str) -> bool:
    """Tried, not asked: a file system may be full, or without a place for one more file."""
    try:
        tempfile.NamedTemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True
