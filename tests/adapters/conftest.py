"""A small random model with prompts for queries and documents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmrs.embedder import Embedder
from tests.models.makers import make_model, write_json


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = make_model(Path(tmp_path_factory.mktemp("models")) / "tiny")
    prompts = {"prompts": {"query": "query: ", "document": "passage: "}}
    write_json(made.folder / "config_sentence_transformers.json", prompts)
    return str(made.folder)


@pytest.fixture(scope="session")
def embedder(folder: str) -> Iterator[Embedder]:
    with Embedder(folder, dtype="f32", threads=1) as embedder:
        yield embedder
