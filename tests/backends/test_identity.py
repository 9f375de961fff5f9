"""Digests: equal for one model in two processes, and for nothing else."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from llmrs.backends.identity import ANSWERING, COMPUTING, digest_of, files_of, settings_of
from llmrs.config import OPTIONS, Config, load

VALUES = {
    "backend_type": "local",
    "model_name": "x",
    "model_path": "/elsewhere",
    "engine": "torch",
    "device": "cuda:1",
    "model_file": "onnx/model.onnx",
    "dtype": "f32",
    "inference_threads": 3,
    "batch_size": 5,
    "max_batch_tokens": 7,
    "workers": 2,
    "hang_timeout": 9.0,
    "load_on": "request",
    "unload_after": 5.0,
}


@pytest.fixture
def config() -> Config:
    return load({}, environ={}, path=os.devnull)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "1_Pooling" / "config.json").write_text("{}")
    return tmp_path


def test_every_setting_of_a_model_is_one_of_computing_or_of_answering() -> None:
    per_model = {option.name for option in OPTIONS if option.per_model}
    assert per_model >= ANSWERING
    assert set(COMPUTING) == per_model - ANSWERING
    assert {"model_path", "model_name", "dtype", "engine", "model_file"} <= set(COMPUTING)


def test_a_model_has_one_digest(config: Config, folder: Path) -> None:
    assert digest_of(config, files_of(folder)) == digest_of(replace(config, port=5), files_of(folder))
    again = replace(config, **settings_of(config))
    assert digest_of(again, files_of(folder)) == digest_of(config, files_of(folder))


@pytest.mark.parametrize("key", VALUES)
def test_every_setting_of_computing_makes_another_model(config: Config, folder: Path, key: str) -> None:
    other = replace(config, **{key: VALUES[key]})
    assert digest_of(other, files_of(folder)) != digest_of(config, files_of(folder))


def test_answering_otherwise_is_the_same_model(config: Config, folder: Path) -> None:
    other = replace(config, model_aliases=("a",), queue_capacity=5, normalize_embeddings=False)
    assert digest_of(other, files_of(folder)) == digest_of(config, files_of(folder))


@pytest.mark.parametrize("name", ["config.json", "1_Pooling/config.json"])
def test_replaced_files_are_another_model(config: Config, folder: Path, name: str) -> None:
    before = digest_of(config, files_of(folder))
    (folder / name).write_text("[]")  # of the same size
    os.utime(folder / name, ns=(1, 1))
    assert digest_of(config, files_of(folder)) != before


def test_equal_files_elsewhere_are_another_model(config: Config, folder: Path, tmp_path_factory) -> None:
    twin = tmp_path_factory.mktemp("twin") / "model"
    folder.rename(twin)
    before = digest_of(config, files_of(twin))
    twin.rename(folder)
    assert digest_of(config, files_of(folder)) != before
