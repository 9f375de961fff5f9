"""The check at load: a model whose vectors depend on their neighbours does not start."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from llmrs.errors import EngineError, ModelError
from llmrs.models import engine as engine_module
from llmrs.models import golden
from llmrs.models.engine import Engine
from llmrs.models.folder import read_folder
from tests.models.makers import make_model


@pytest.fixture(autouse=True)
def short_warm_up(monkeypatch):
    monkeypatch.setattr(engine_module, "WARM_UP_SECONDS", 0.0)


def own(text):
    """A vector that depends on nothing but its text."""
    return np.array([text.sum(), len(text), text[0]], np.float32)


def check(embed, *, precision="f32", longest=64):
    golden.check(embed, vocabulary=50, longest=longest, precision=precision, place="the folder")


def test_a_model_that_agrees_with_itself():
    check(lambda texts: np.stack([own(text) for text in texts]))
    check(lambda texts: np.zeros((len(texts), 3), np.float32))


@pytest.mark.parametrize(
    ("precision", "error"), [("f32", 0.001), ("f16", 0.005), ("bf16", 0.03)], ids=["f32", "f16", "bf16"]
)
def test_rounding_is_no_disagreement_and_more_is(precision, error):
    def embed(texts, error):
        return np.stack([own(text) * (1 + error * (len(texts) > 1)) for text in texts])

    check(lambda texts: embed(texts, error), precision=precision)
    with pytest.raises(ModelError, match=rf"the folder: .* than alone, computed in {precision}"):
        check(lambda texts: embed(texts, 3 * error), precision=precision)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda matrix: matrix[::-1],
        lambda matrix: np.concatenate([matrix[:-1], matrix[:1]]),
        lambda matrix: np.where(matrix == matrix.max(), np.nan, matrix),
        lambda matrix: matrix * 0,
    ],
    ids=["rows swapped", "a row twice", "not finite", "zero"],
)
def test_a_batch_that_is_spoilt(spoil):
    def embed(texts):
        matrix = np.stack([own(text) for text in texts])
        return spoil(matrix) if len(texts) > 1 else matrix

    with pytest.raises(ModelError, match="than alone"):
        check(embed)


def test_a_text_that_is_never_finite_is_the_models_own():
    poison = []

    def embed(texts):
        poison.extend([len(texts[0])] if not poison else [])
        return np.stack([own(text) * (np.nan if len(text) == poison[0] else 1) for text in texts])

    check(embed)
    with pytest.raises(ModelError, match="damaged"):
        check(lambda texts: np.full((len(texts), 3), np.inf, np.float32))


def test_texts_are_no_longer_than_the_model_takes():
    seen = []
    check(lambda texts: seen.extend(map(len, texts)) or np.stack([own(text) for text in texts]), longest=5)
    assert max(seen) == 5


def test_an_engine_that_fails():
    def embed(texts):
        raise EngineError("no")

    with pytest.raises(ModelError, match="the folder"):
        check(embed)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_mask_that_leaks_is_found(kind, tmp_path, monkeypatch):
    made = make_model(tmp_path, kind)
    Engine(read_folder(made.folder), dtype="f32", threads=1)
    monkeypatch.setattr("llmrs.models.attention.MASKED", 0.0)
    with pytest.raises(ModelError, match="than alone"):
        Engine(read_folder(made.folder), dtype="f32", threads=1)


def test_weights_of_which_nothing_is_finite(tmp_path):
    made = make_model(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    tensors["embeddings.LayerNorm.bias"][:] = np.nan
    save_file(tensors, path)
    with pytest.raises(ModelError, match="damaged"):
        Engine(read_folder(made.folder), dtype="f32", threads=1)
