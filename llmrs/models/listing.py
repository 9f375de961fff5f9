"""What a hub says a revision of a model holds: files, their sizes and their checksums.

A hub is a stranger: a name becomes a path and a checksum a file's name on this machine, so both are checked
before anything else sees them. Knows no network and no cache.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from llmrs.errors import ModelError

COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
REVISION = re.compile(r"(?!.*\.\.)[\w.-]+(/[\w.-]+)*", re.ASCII)
"""A branch, a tag, `refs/pr/1` or a commit: what can be a path below `refs/` and leads nowhere else."""

CHECKSUM = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)
FORBIDDEN = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|]')

MAX_FILES = 20_000
MAX_NAME = 512
BLOCK = 1 << 20


class Listed(NamedTuple):
    """One file.

    Attributes:
        name: relative to the model's folder, with slashes.
        size: in bytes.
        checksum: in hex; SHA-256 of files in LFS, of others git's SHA-1. The cache calls the file by it.
    """

    name: str
    size: int
    checksum: str


@dataclass(frozen=True)
class Listing:
    """All files of one commit, by name."""

    commit: str
    files: dict[str, Listed]

    @classmethod
    def of(cls, commit: Any, entries: Iterable[tuple[Any, Any, Any]]) -> Listing:
        """A listing as somebody tells it: names, sizes and checksums.

        Raises:
            ModelError: it cannot be a model's.
        """
        if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
            raise ModelError("the hub names no commit of it")
        files = {}
        for name, size, checksum in entries:
            _check_name(name)
            if type(size) is not int or size < 0:
                raise ModelError(f"the hub gives no size of {name}")
            if not isinstance(checksum, str) or not CHECKSUM.fullmatch(checksum):
                raise ModelError(f"the hub gives no checksum of {name}")
            files[name] = Listed(name, size, checksum)
            if len(files) > MAX_FILES:
                raise ModelError(f"it has more than {MAX_FILES} files")
        return cls(commit, files)

    @classmethod
    def from_json(cls, value: Any) -> Listing:
        """One that was written by `as_json`. Raises ModelError."""
        if not isinstance(value, dict) or not isinstance(value.get("files"), dict):
            raise ModelError("this is no listing")
        rows = [(name, *entry) for name, entry in value["files"].items() if isinstance(entry, list)]
        if any(len(row) != 3 for row in rows):
            raise ModelError("this is no listing")
        return cls.of(value.get("commit"), rows)

    def as_json(self) -> dict[str, Any]:
        """The listing in the types of JSON."""
        return {
            "commit": self.commit,
            "files": {name: [file.size, file.checksum] for name, file in self.files.items()},
        }


def checksum_of(path: Path, like: str) -> str:
    """A file's checksum, of the kind that `like` is. Reads all of it: 1 GB in about a second.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256() if len(like) == 64 else hashlib.sha1(usedforsecurity=False)
    with path.open("rb") as file:
        if len(like) == 40:
            digest.update(b"blob %d\0" % path.stat().st_size)  # as git does
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or len(name) > MAX_NAME or FORBIDDEN.search(name):
        raise ModelError("the hub lists a file whose name is none")
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise ModelError(f"the hub lists a file outside the model's folder: {name[:100]!r}")
