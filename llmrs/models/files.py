"""Which files of a model hold its weights: their names, and which of several is taken.

Knows names and places only, of a folder as of a listing of the Hugging Face hub; what is in the files is read
elsewhere. `model_file` names one of them, without it they are tried in the order that is written here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from llmrs.errors import ModelError

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"

SAFETENSORS = ("model*.safetensors", INDEX)
"""The weights that a graph is built from, in one file or several."""

EXPORTS = ("onnx/model.onnx", "model.onnx", "openvino/openvino_model.xml", "openvino_model.xml")
"""Exported models, as sentence-transformers and optimum call them, the first that exists counts."""

OTHER_EXPORTS = ("onnx/*.onnx", "*.onnx", "openvino/*.xml", "*.xml")
"""Where there is none of these: one of another name, a quantized one mostly. Never one of several."""

EXPORTED = (".onnx", ".xml")

COMPANIONS = ("{path}?*", "{stem}.bin", "{stem}.data", "{stem}_data")
"""What belongs to an exported model: weights that are not in the file itself."""

TRANSFORMER = "0_*"
"""The encoder's folder, where it has one of its own."""


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
        found = [path for pattern in OTHER_EXPORTS for path in place.glob(pattern) if path.is_file()]
        name = pick_export([path.relative_to(place).as_posix() for path in found], str(place))
        if name is not None:
            return place / name
    return None


def companions(file: Path) -> list[Path]:
    """The files beside an exported model that belong to it."""
    return [file.parent / name for name in _with_companions(file.name, os.listdir(file.parent))[1:]]


def pick_export(names: Iterable[str], place: str) -> str | None:
    """The exported model among the names of a folder's files, of which others are left alone.

    Raises:
        ModelError: there are several, and which one is meant is not clear.
    """
    names = set(names)
    for name in EXPORTS:
        if name in names:
            return name
    others = sorted(name for name in names if any(matches(name, pattern) for pattern in OTHER_EXPORTS))
    if len(others) > 1:
        listed = ", ".join(others[:8])
        raise ModelError(f"{place} has several exported models: set model_file to one of {listed}")
    return others[0] if others else None


def needed_weights(
    names: Sequence[str], *, model_file: str | None = None, buildable: bool = True, place: str = "the model"
) -> list[str]:
    """Those of a model's files that hold the weights of its encoder: what a download has to bring.

    The same rule as for a folder on this machine, see `choice`. Empty where there are none.

    Args:
        names: of all files, relative to the model's folder, with slashes.
        model_file: the one to take.
        buildable: whether a graph can be built of safetensors; if not, an exported one is taken first.
        place: what a message calls the model.

    Raises:
        ModelError: the file to take is not there, or which of several exported models is not clear.
    """
    if model_file is not None:
        for prefix in _prefixes(names):
            if prefix + model_file in names:
                return _with_companions(prefix + model_file, names)
        raise ModelError(f"model_file = {model_file[:200]!r}: {place} has no such file")
    built = [name for name in names if any(_below(name, pattern) for pattern in SAFETENSORS)]
    if built and buildable:
        return built
    for prefix in _prefixes(names):
        inside = [name[len(prefix) :] for name in names if name.startswith(prefix)]
        exported = pick_export(inside, place)
        if exported is not None:
            return _with_companions(prefix + exported, names)
    return built


def _prefixes(names: Iterable[str]) -> list[str]:
    """Where an encoder's files may be, the encoder's own folder first."""
    tops = {name.partition("/")[0] for name in names if "/" in name}
    return [*(f"{top}/" for top in sorted(tops) if fnmatchcase(top, TRANSFORMER)), ""]


def _with_companions(name: str, names: Iterable[str]) -> list[str]:
    patterns = [pattern.format(path=name, stem=name.rpartition(".")[0]) for pattern in COMPANIONS]
    return [name, *(each for each in names if any(matches(each, pattern) for pattern in patterns))]


def _below(name: str, pattern: str) -> bool:
    """Whether a file is of that pattern, in the model's folder or the encoder's."""
    return matches(name, pattern) or matches(name, f"{TRANSFORMER}/{pattern}")


def matches(name: str, pattern: str) -> bool:
    """As a shell does: a star stands for no slash."""
    return name.count("/") == pattern.count("/") and fnmatchcase(name, pattern)
