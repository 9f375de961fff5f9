"""API keys at rest: names and digests, and the file that holds more of them.

A key in clear is never kept: what stays in memory is its SHA-256 digest beside its name, which is
what logs and limits say. A line of the file is `KEY` or `KEY NAME`; what follows a `#` at the
beginning of a word is a comment, except in the key itself. Keys may share a name: that is how a
caller changes its key without a gap.

Nothing here knows HTTP.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

from llmrs.errors import ConfigError

log = logging.getLogger("llmrs.server")

LOOK_SECONDS = 1.0
"""The file is looked at when a request comes, at most this often: opening and asking takes 10 us."""

MAX_FILE_BYTES = 1 << 18
MAX_KEYS = 1000
"""A request is compared with every key: a thousand take 0.1 ms of the hub's time."""

KEY = re.compile(r"[!-~]{1,4096}")
"""A key travels in a header, so it is visible ASCII; any other could never be matched."""

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Key(NamedTuple):
    """One key: what it is called, and the SHA-256 digest that stands for it."""

    name: str
    digest: bytes


class _Unfit(Exception):
    """Why a file gives no keys. Its text quotes nothing of the file."""


def digest(key: str) -> bytes:
    """SHA-256 of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def unnamed(keys: Iterable[str]) -> tuple[Key, ...]:
    """Keys without names get their position as one, which tells nothing about them."""
    return tuple(Key(f"key-{position}", digest(key)) for position, key in enumerate(keys, 1))


class KeyFile:
    """A file of keys that is read again when it changes.

    What it says is taken whole or not at all: while it is gone, empty or malformed, the keys it had
    before stay, so that an accident neither opens the door nor locks everyone out.

    Args:
        path: a symbolic link is followed at every look, so that the swap of a link (Kubernetes) and a
            rename over the file are both seen. It may be a pipe, too, which is read once.

    Raises:
        ConfigError: the file gives no keys at the start.
    """

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._failed: str | None = None
        try:
            with _opened(path, os.O_RDONLY) as file:
                self._seen = _identity(os.fstat(file.fileno()))
                self.keys = _keys_in(file)
        except _Unfit as reason:
            raise ConfigError(f"api_key_file {path!r} {reason}") from None
        self._look_at = clock() + LOOK_SECONDS if self._seen else float("inf")

    def look(self) -> bool:
        """Read the file again if it is due and has changed; whether its keys are others now."""
        now = self._clock()
        if now < self._look_at:
            return False
        self._look_at = now + LOOK_SECONDS
        before = self.keys
        try:
            self._read_changed()
        except _Unfit as reason:
            if str(reason) != self._failed:  # once, and not every second
                self._failed = str(reason)
                log.error("api_key_file %r %s; the keys it had before stay valid", self._path, reason)
        return self.keys != before

    def _read_changed(self) -> None:
        # Without O_NONBLOCK, a pipe in the place of the file would hold up everyone.
        with _opened(self._path, os.O_RDONLY | os.O_NONBLOCK) as file:
            found = _identity(os.fstat(file.fileno()))
            if not found:
                raise _Unfit("is no regular file any more")
            if found == self._seen:
                return
            same_file = found[:2] == self._seen[:2]
            self._seen = found  # fit or not: nobody needs to read it twice
            self.keys = _keys_in(file, may_be_cut=same_file)
        self._failed = None
        log.info("api_key_file was read again: %d keys", len(self.keys))


def _identity(found: os.stat_result) -> tuple[int, ...]:
    """What is another when the content is; empty for what cannot be read twice."""
    if not stat.S_ISREG(found.st_mode):
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@contextmanager
def _opened(path: str, flags: int) -> Iterator[BinaryIO]:
    try:
        with open(path, "rb", opener=lambda path, _: os.open(path, flags | os.O_CLOEXEC)) as file:
            yield file
    except OSError as error:
        raise _Unfit(f"cannot be read: {error.strerror or type(error).__name__}") from None


def _keys_in(file: BinaryIO, *, may_be_cut: bool = False) -> tuple[Key, ...]:
    """The keys in a file. One that is being written may end in the middle of a key, which is no key."""
    content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise _Unfit(f"is larger than {MAX_FILE_BYTES} bytes")
    if may_be_cut and content and not content.endswith(b"\n"):
        raise _Unfit("was changed in place and its last line does not end: end it, or replace the file")
    try:
        return parse(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise _Unfit("is not UTF-8") from None


def parse(text: str) -> tuple[Key, ...]:
    """The keys in the text of a file, in its order; of a key that stands twice, the first.

    Raises:
        _Unfit: a line is malformed, or there is no key at all, or there are too many.
    """
    keys: dict[bytes, Key] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        comment = next((i for i, word in enumerate(words) if i and word.startswith("#")), len(words))
        secret, *names = words[:comment]
        if not KEY.fullmatch(secret) or len(names) > 1 or not all(map(NAME.fullmatch, names)):
            raise _Unfit(
                f"line {number} is malformed: expected KEY or KEY NAME, the key of visible ASCII "
                "characters, the name of letters, digits, dots, dashes and underscores"
            )
        key = Key(names[0] if names else f"file-{len(keys) + 1}", digest(secret))
        keys.setdefault(key.digest, key)
    if not keys:
        raise _Unfit("holds no key")
    if len(keys) > MAX_KEYS:
        raise _Unfit(f"holds more than {MAX_KEYS} keys")
    return tuple(keys.values())
