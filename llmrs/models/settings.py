"""A JSON object of a model folder, read with checks.

Model folders come from anywhere, so nothing in them is taken on trust: every value is asked for
by name and type, and what is missing or of another type ends the start with the file's name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from llmrs.errors import ModelError

T = TypeVar("T")

OTHER_WAYS = (
    "pip install 'llmrs[torch]' and set ENGINE=torch, or serve this model elsewhere and set BACKEND_URL"
)
"""What may be done about a model that cannot be built."""

LFS_POINTER = b"version https://git-lfs"

MAX_BYTES = 64 << 20
"""Far above any honest configuration; keeps a mistaken file from filling the memory."""


class Settings:
    """The values of one JSON object, by name.

    Several names may be given for one value, the first that is present counts: the same setting
    is called differently by different models. Without a default a missing value is a ModelError.

    Attributes:
        path: the file, for messages.
        values: all of them as they are, unchecked.
    """

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path = path
        self.values = values

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def is_null(self, name: str) -> bool:
        """Whether the value is there and null: some settings mean something else by that than by default."""
        return name in self.values and self.values[name] is None

    def integer(self, *names: str, default: int | None = None, minimum: int = 1) -> int:
        """A whole number of at least `minimum`. 128.0 is one, as it is to the libraries that write it."""
        found = self._get(names, default, (int, float))
        value = int(found) if isinstance(found, int) or found.is_integer() else None
        if value is None:
            raise ModelError(f"{self.path}: {names[0]} is {found}, expected a whole number")
        if value < minimum:
            raise ModelError(f"{self.path}: {names[0]} is {value}, expected at least {minimum}")
        return value

    def number(self, *names: str, default: float | None = None) -> float:
        """A number; whole ones are numbers too."""
        return float(self._get(names, default, (int, float)))

    def text(self, *names: str, default: str | None = None) -> str:
        """A string."""
        return self._get(names, default, str)

    def flag(self, *names: str, default: bool | None = None) -> bool:
        """true or false."""
        return self._get(names, default, bool)

    def object(self, name: str) -> Settings:
        """An object inside this one, empty when it is missing."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, dict):
            raise ModelError(f"{self.path}: {name} is of the wrong type ({type(value).__name__})")
        return Settings(self.path, value or {})

    def raw(self, name: str) -> Any:
        """The value as it is; None when it is missing."""
        return self.values.get(name)

    def _get(self, names: tuple[str, ...], default: T | None, types: type[T] | tuple[type, ...]) -> T:
        for name in names:
            value = self.values.get(name)
            if value is None:
                continue
            # JSON's true is an int to Python, and never one to whoever wrote the file.
            if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
                raise ModelError(f"{self.path}: {name} is of the wrong type ({type(value).__name__})")
            return value  # type: ignore[return-value]
        if default is None:
            raise ModelError(f"{self.path}: {names[0]} is missing, so the model cannot be read")
        return default


def remedy_for(path: Path) -> str:
    """What may be done about a file that cannot be read, which may be what a clone without Git LFS leaves."""
    try:
        with path.open("rb") as file:
            pointer = file.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError:
        pointer = False
    return "it is a pointer of Git LFS, run `git lfs pull` there" if pointer else "copy or download it again"


def read_json(path: Path) -> Any:
    """The value of a JSON file; ModelError when it cannot be read."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{path} is larger than {MAX_BYTES >> 20} MiB, which no such file is")
        return json.loads(path.read_bytes().decode())  # of bytes it would take UTF-16, too
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror}): the model folder is incomplete"
        ) from None
    except (ValueError, RecursionError):
        raise ModelError(f"{path} is not valid JSON: {remedy_for(path)}") from None


def read_settings(path: Path, *, optional: bool = False) -> Settings:
    """The JSON object in `path`; an `optional` file that is missing reads as an empty object."""
    if optional and not path.exists():
        return Settings(path, {})
    values = read_json(path)
    if not isinstance(values, dict):
        raise ModelError(f"{path} is not a JSON object: copy or download the model again")
    return Settings(path, values)
