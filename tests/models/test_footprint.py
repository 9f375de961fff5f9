"""Which files count for a model's memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from llmrs.errors import ModelError
from llmrs.models.exported import Exported
from llmrs.models.folder import ModelFolder, read_folder
from llmrs.models.footprint import weight_files


def exported(folder: ModelFolder, file: Path) -> ModelFolder:
    encoder = Exported(file, 32, 100, 64, 0, False, 1000)
    return replace(folder, encoder=encoder)


def names(folder: ModelFolder) -> dict[str, int]:
    return {file.path.name: file.size for file in weight_files(folder)}


def test_safetensors_whole_or_in_parts(made) -> None:
    folder = read_folder(made.folder)
    (made.folder / "model-00001-of-00002.safetensors").write_bytes(b"12")
    whole = made.folder / "model.safetensors"
    assert names(folder) == {"model.safetensors": whole.stat().st_size}
    whole.rename(made.folder / "model-00002-of-00002.safetensors")
    assert list(names(folder)) == [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]


def test_an_exported_model_with_the_weights_beside_it(made) -> None:
    graph = made.folder / "onnx" / "model.onnx"
    graph.parent.mkdir()
    for name, size in {"model.onnx": 3, "model.onnx_data": 5, "model_other.onnx": 7}.items():
        (graph.parent / name).write_bytes(b"x" * size)
    assert names(exported(read_folder(made.folder), graph)) == {"model.onnx": 3, "model.onnx_data": 5}


def test_files_that_are_gone(made) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        weight_files(exported(read_folder(made.folder), made.folder / "none" / "model.onnx"))
