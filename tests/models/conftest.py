"""The default model from the installed wheel, loaded once; and a small random one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from llmrs.backends.local import LocalBackend
from llmrs.models.resolve import DEFAULT_MODEL, resolve
from tests.models.makers import Made, make_model

REFERENCES = Path(__file__).parent / "references"


@pytest.fixture(scope="session")
def default_folder() -> Path:
    """The default model's folder. Fails where the wheel is missing: these tests are the point."""
    return resolve(DEFAULT_MODEL, offline=True)


@pytest.fixture(scope="session")
def default_f32(default_folder: Path) -> LocalBackend:
    return LocalBackend(DEFAULT_MODEL, dtype="f32", offline=True)


@pytest.fixture(scope="session")
def references() -> tuple[list[str], list[list[int]], np.ndarray]:
    """Texts, their token ids, and their vectors by sentence-transformers in fp32."""
    about = json.loads((REFERENCES / "all-MiniLM-L6-v2.json").read_text(encoding="utf-8"))
    return about["texts"], about["token_ids"], np.load(REFERENCES / "all-MiniLM-L6-v2.npy")


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A small BERT with mean pooling, in a folder that the test may damage."""
    return make_model(tmp_path / "tiny-bert")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The same, not to be damaged."""
    return make_model(tmp_path_factory.mktemp("models") / "tiny-bert")


@pytest.fixture(scope="session")
def tiny_backend(tiny: Made) -> LocalBackend:
    return LocalBackend(str(tiny.folder), dtype="f32", threads=1)
