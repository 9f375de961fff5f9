"""Weights that lie beside an ONNX file, where OpenVINO would not take them.

It takes them from the graph's own folder only, after following links, so that a graph cannot name any file of
the machine. But the hub's cache keeps all files elsewhere, and in the model's folder links to them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from llmrs.models.files import companions


@contextlib.contextmanager
def with_weights(file: Path) -> Iterator[Path]:
    """A path of the exported graph `file` with its weights beside it, to be read in this context."""
    linked = [path for path in companions(file) if path.is_symlink()]
    if not linked:
        yield file
        return
    home = linked[0].resolve().parent  # on the same filesystem, so nothing is copied
    with tempfile.TemporaryDirectory(dir=home if os.access(home, os.W_OK) else None) as folder:
        for path in (file, *linked):
            _bring(path.resolve(), Path(folder) / path.name)
        yield Path(folder) / file.name


def _bring(file: Path, place: Path) -> None:
    try:
        os.link(file, place)
    except OSError:  # of another filesystem or another user
        shutil.copyfile(file, place)
