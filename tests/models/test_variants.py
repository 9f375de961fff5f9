"""Folders that say something in another way than most, against sentence-transformers: see variants.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from llmrs.backends.local import LocalBackend
from tests.models.oracles import run_oracle
from tests.models.test_families import same

NAMES = (
    "as-written-by-6.2",
    "bare-bert",
    "bare-causal",
    "bare-causal-both-ways",
    "bare-masked",
    "bare-qwen3",
    "both-ways",
    "call-length",
    "fewer-layers",
    "gelu-python",
    "gemma-scaling",
    "head-of-keys",
    "heads",
    "linear-scaling",
    "loading-length",
    "modernbert-scaling",
    "negative-padding",
    "negative-padding-roberta",
    "no-prompt",
    "own-prefix",
    "own-prefix-qwen3",
    "settings-of-another-name",
    "theta-in-scaling",
)
"""Those of variants.py."""


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("variants")
    run_oracle("variants.py", folder)
    return folder


@pytest.fixture(autouse=True)
def short_warm_up(monkeypatch):
    monkeypatch.setattr("llmrs.models.engine.WARM_UP_SECONDS", 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_vectors_are_those_of_sentence_transformers(variants, name):
    """A text that is too long is cut, as the library does."""
    texts = json.loads((variants / "texts.json").read_text())
    backend = LocalBackend(str(variants / name / "model"), dtype="f32", threads=1)
    vectors = backend.embed(backend.prepare(texts, truncate="end"), timeout=60).matrix
    same(vectors, np.load(variants / name / "alone.npy"))


def test_every_variant_is_compared(variants):
    assert {place.parent.name for place in variants.glob("*/alone.npy")} == set(NAMES)
