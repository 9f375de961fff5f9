"""Which files of a model folder hold its weights: their names, and how they are found.

Knows names and places only; what is in the files is read elsewhere. `model_file` names one of them,
without it they are tried in the order that is written here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from llmrs.errors import ModelError

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"

EXPORTS = ("onnx/model.onnx", "model.onnx", "openvino/openvino_model.xml", "openvino_model.xml")
"""Exported models, as sentence-transformers and optimum call them, the first that exists counts."""

OTHER_EXPORTS = ("onnx/*.onnx", "*.onnx", "openvino/*.xml", "*.xml")
"""Where there is none of these: one of another name, a quantized one mostly. Never one of several."""

EXPORTED = (".onnx", ".xml")


def has_safetensors(folder: Path) -> bool:
    """Whether there are weights that a graph could be built from, complete or not."""
    return (folder / FILE).exists() or (folder / INDEX).exists()


def find_named(places: Iterable[Path], name: str) -> Path:
    """The file `name`, in the first of these folders that has it.

    Raises:
        ModelError: it is in none of them, or the name leads out of them.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ModelError(f"model_file = {name[:200]!r} leaves the model folder")
    for place in places:
        if (place / path).is_file():
            return place / path
    raise ModelError(f"model_file = {name[:200]!r}: the model folder has no such file")


def find_export(places: Iterable[Path]) -> Path | None:
    """The exported model in the first of these folders that has one; None where there is none.

    Raises:
        ModelError: there are several, and which one is meant is not clear.
    """
    for place in places:
        for name in EXPORTS:
            if (place / name).is_file():
                return place / name
        others = list(_others(place))
        if len(others) > 1:
            names = ", ".join(str(path.relative_to(place)) for path in others[:8])
            raise ModelError(f"{place} has several exported models: set model_file to one of {names}")
        if others:
            return others[0]
    return None


def _others(place: Path) -> Iterator[Path]:
    for pattern in OTHER_EXPORTS:
        yield from (path for path in sorted(place.glob(pattern)) if path.is_file())
