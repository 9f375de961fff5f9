"""Weights as read-only views of safetensors files.

The files stay mapped instead of being read: starting costs no copy, processes that serve the same
model share its pages, and pages that nobody uses go back to the system. So a model's file must
not be changed in place while it is served; replace it by renaming, as package managers and the
Hugging Face cache do.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from llmrs.errors import ModelError
from llmrs.models.files import FILE, INDEX
from llmrs.models.heads import unknown_tensors
from llmrs.models.settings import OTHER_WAYS, read_settings, remedy_for

DTYPES: dict[str, Any] = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "F64": np.float64}
"""Dtypes of tensors in NumPy's terms, which has no bfloat16: its bits stand in for it."""

INTEGERS: dict[str, Any] = {"I8": np.int8, "I32": np.int32, "I64": np.int64}

# Checkpoints converted from TensorFlow, bert-base-uncased among them, use its names.
TENSORFLOW_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}


@dataclass(frozen=True)
class Tensor:
    """One tensor: `data` is a view of the file; `dtype` is safetensors' name, `BF16` as uint16."""

    dtype: str
    data: NDArray[Any]

    def floats(self) -> NDArray[np.float32]:
        """The numbers as float32; a copy unless they are."""
        if self.dtype == "BF16":
            return (self.data.astype(np.uint32) << 16).view(np.float32)
        return self.data.astype(np.float32, copy=False)


class Weights:
    """The tensors of one or more safetensors files, by name."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._maps: list[mmap.mmap] = []
        self._tensors: dict[str, tuple[Path, mmap.mmap, int, dict[str, Any]]] = {}
        self._used: set[str] = set()
        for path in paths:
            self._open(path)
        self.place = paths[0]

    @classmethod
    def of(cls, folder: Path) -> Weights:
        """The weights in `folder`: one file, or the parts that an index names.

        Raises:
            ModelError: none there, incomplete, or corrupt.
        """
        if (folder / FILE).exists():
            return cls([folder / FILE])
        if (folder / INDEX).exists():
            return cls(_parts(folder / INDEX))
        raise ModelError(
            f"{folder / FILE} is missing: download the model again, or convert its weights to safetensors"
        )

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of the tensor of that name; None if there is none."""
        found = self._tensors.get(name)
        return None if found is None else tuple(found[3]["shape"])

    def get(self, name: str, shape: tuple[int, ...], *, integers: bool = False) -> Tensor:
        """The tensor of that name, which must have that shape.

        Raises:
            ModelError: missing, of another shape, or of a dtype that is not floating point; `integers`
                may be those of INTEGERS, too.
        """
        asked = name
        if name not in self._tensors:
            name = _tensorflow_name(name)
        found = self._tensors.get(name)
        if found is None:
            raise ModelError(f"{self.place}: tensor {asked} is missing, the file is not the model's")
        self._used.add(name)
        path, mapped, start, entry = found
        if tuple(entry["shape"]) != shape:
            raise ModelError(f"{path}: tensor {name} has shape {entry['shape']}, expected {list(shape)}")
        dtype = entry["dtype"]
        dtypes = {**DTYPES, **INTEGERS} if integers else DTYPES
        if dtype not in dtypes:
            raise ModelError(f"{path}: tensor {name} is {dtype}, only {', '.join(dtypes)} are supported")
        data = np.frombuffer(mapped, dtypes[dtype], math.prod(shape), start).reshape(shape)
        if dtype == "F64":
            return Tensor("F32", data.astype(np.float32))
        return Tensor(dtype, data)

    def prefix_of(self, name: str, prefixes: Sequence[str] = ()) -> str:
        """What stands before `name` in the files: nothing, or one of `prefixes`.

        Raises:
            ModelError: there is no such tensor, or more than one.
        """
        found = [prefix for prefix in ("", *prefixes) if prefix + name in self._tensors]
        if len(found) == 1:
            return found[0]
        others = [full for full in self._tensors if full.endswith(f".{name}")]
        if not found and not others:
            raise ModelError(f"{self.place}: tensor {name} is missing, the file is not the model's")
        said = " and ".join(sorted(others + [name] * ("" in found)))[:200]
        known = ", ".join(repr(prefix) for prefix in ("", *prefixes))
        raise ModelError(
            f"{self.place} has {said}, so which encoder is meant is not clear; it must be one, and "
            f"what stands before its names one of {known}"
        )

    def check_all_known(self, prefix: str = "") -> None:
        """Check that every tensor has been asked for, or is known to be of no account.

        Args:
            prefix: what stands before the names of the encoder's tensors.

        Raises:
            ModelError: there is one that could change the vectors; names it.
        """
        unknown = unknown_tensors(self._tensors, self._used, prefix)
        if unknown:
            path = self._tensors[unknown[0]][0]
            raise ModelError(
                f"{path}: tensor {unknown[0][:120]} is not known and could change the vectors "
                f"({len(unknown)} such in all); remove it if it does not, or {OTHER_WAYS}"
            )

    def read_ahead(self) -> None:
        """Ask for all pages before they are needed: whoever needs one first would wait for the disk."""
        if hasattr(mmap, "MADV_WILLNEED"):
            for mapped in self._maps:
                mapped.madvise(mmap.MADV_WILLNEED)

    def release_pages(self) -> None:
        """Give back the pages read so far; those that are used again are mapped again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            for mapped in self._maps:
                mapped.madvise(mmap.MADV_DONTNEED)

    def _open(self, path: Path) -> None:
        try:
            # Checks the header against the file: lengths, offsets, overlaps.
            with safe_open(path, framework="numpy"):
                pass
            with path.open("rb") as file:
                # OpenVINO shares arrays only if they are writeable; written pages would be ours alone.
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(
                f"{path} is truncated or corrupt ({type(error).__name__}): {remedy_for(path)}"
            ) from None
        length = int.from_bytes(mapped[:8], "little")
        header = json.loads(mapped[8 : 8 + length])
        header.pop("__metadata__", None)
        for name, entry in header.items():
            self._tensors[name] = path, mapped, 8 + length + entry["data_offsets"][0], entry
        self._maps.append(mapped)


def _parts(index: Path) -> list[Path]:
    names = read_settings(index).raw("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise ModelError(f"{index}: weight_map is missing or empty: download the model again")
    parts = sorted(set(names.values()))
    for name in parts:
        if name != Path(name).name:
            raise ModelError(f"{index}: weight_map names a file outside the model folder")
        if not (index.parent / name).exists():
            raise ModelError(f"{index.parent / name} is missing: download the model again")
    return [index.parent / name for name in parts]


def _tensorflow_name(name: str) -> str:
    for ours, theirs in TENSORFLOW_NAMES.items():
        if name.endswith(ours):
            return name[: -len(ours)] + theirs
    return name
