"""What a model weighs, known before it is loaded: its weights' files.

That is what can be known at once and for every kind of model. What it takes of the memory depends on what
computes it: OpenVINO keeps the weights in its own order and in the dtype that it computes in, those of a
small encoder twice, and gives the pages of the file back.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from llmrs.errors import ModelError
from llmrs.models.exported import Exported
from llmrs.models.files import FILE, companions
from llmrs.models.folder import ModelFolder


class WeightFile(NamedTuple):
    """A file of weights; `size` in bytes, `changed` in nanoseconds as the file system counts them."""

    path: Path
    size: int
    changed: int


def weight_files(folder: ModelFolder) -> tuple[WeightFile, ...]:
    """The files that hold the weights of a model's encoder, as they are now.

    Raises:
        ModelError: they cannot be read.
    """
    try:
        states = [(path, path.stat()) for path in _paths(folder)]  # what links point at, as in a cache
    except OSError as error:
        raise ModelError(f"{folder.path} cannot be read ({error.strerror})") from None
    return tuple(WeightFile(path, state.st_size, state.st_mtime_ns) for path, state in states)


def _paths(folder: ModelFolder) -> list[Path]:
    if isinstance(folder.encoder, Exported):
        return [folder.encoder.file, *companions(folder.encoder.file)]
    if (folder.path / FILE).exists():
        return [folder.path / FILE]
    return sorted(folder.path.glob("*.safetensors")) or sorted(folder.path.glob("*.bin"))
