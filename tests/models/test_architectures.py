"""Random small models of every kind against the float64 oracle."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from llmrs.models.engine import Engine
from llmrs.models.folder import read_folder
from tests.models.makers import HIDDEN, VOCABULARY, make_model

KINDS = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert")
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


@pytest.fixture(autouse=True)
def short_warm_up(monkeypatch):
    monkeypatch.setattr("llmrs.models.engine.WARM_UP_SECONDS", 0.0)


def cosines(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return (a * b).sum(axis=-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def random_texts(max_tokens, *, seed=1):
    """Texts of every length that matters, in no order; some hold the padding ids 0 and 1."""
    random = np.random.default_rng(seed)
    lengths = [1, 2, 3, 7, 8, 9, 16, 17, max_tokens - 1, max_tokens, 5, 5, 5]
    return [random.integers(0, VOCABULARY, length).astype(np.int32) for length in lengths]


def agree(made, *, dtype="f32"):
    """The model's vectors of a mixed batch are the oracle's."""
    engine = Engine(read_folder(made.folder), dtype=dtype, threads=1)
    texts = random_texts(made.max_tokens)
    vectors = engine.embed(texts).matrix
    expected = np.stack([made.oracle(text) for text in texts])
    assert vectors.dtype == np.float32
    assert vectors.shape == expected.shape
    assert cosines(vectors, expected).min() >= 0.99999
    scale = np.abs(expected).max()
    assert np.abs(vectors - expected).max() <= 1e-4 * scale
    for text, vector in zip(texts, vectors, strict=True):
        assert cosines(engine.embed([text]).matrix[0], vector) >= 0.99999


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(kind, tmp_path):
    agree(make_model(tmp_path, kind))


@pytest.mark.parametrize("mode", MODES)
def test_pooling(mode, tmp_path):
    agree(make_model(tmp_path, pooling=(mode,)))


def test_several_poolings_are_concatenated_in_a_fixed_order(tmp_path):
    made = make_model(tmp_path, pooling=("cls", "max", "mean"))
    agree(made)
    assert read_folder(made.folder).dimensions == 3 * HIDDEN


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish"])
def test_activations(activation, tmp_path):
    agree(make_model(tmp_path, activation=activation))


@pytest.mark.parametrize("activation", ["tanh", "identity", "relu"])
@pytest.mark.parametrize("bias", [True, False])
def test_dense(activation, bias, tmp_path):
    agree(make_model(tmp_path, dense=((24, activation, bias),), normalize=True))


def test_dense_after_dense(tmp_path):
    agree(make_model(tmp_path, "distilbert", dense=((64, "tanh", True), (8, "identity", False))))


def test_normalize(tmp_path):
    made = make_model(tmp_path, "roberta", pooling=("cls",), normalize=True)
    agree(made)
    assert read_folder(made.folder).normalized


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "F64"])
def test_dtypes_of_weights(dtype, tmp_path):
    agree(make_model(tmp_path, dtype=dtype))


@pytest.mark.parametrize(
    ("kind", "prefix"), [("bert", "bert."), ("xlm-roberta", "roberta."), ("distilbert", "distilbert.")]
)
def test_prefixes_of_tensor_names(kind, prefix, tmp_path):
    agree(make_model(tmp_path, kind, prefix=prefix))


def test_weights_in_parts(tmp_path):
    made = make_model(tmp_path, parts=3)
    assert not (tmp_path / "model.safetensors").exists()
    agree(made)


def test_tensorflow_names_of_layer_norms(tmp_path):
    made = make_model(tmp_path)
    data = (tmp_path / "model.safetensors").read_bytes()
    # Shorter names leave room in the header, which blanks fill.
    renamed = data.replace(b'LayerNorm.weight"', b'LayerNorm.gamma" ').replace(
        b'LayerNorm.bias"', b'LayerNorm.beta"'
    )
    assert renamed != data
    (tmp_path / "model.safetensors").write_bytes(renamed)
    agree(made)


def test_without_modules_json_the_mean_is_taken(tmp_path):
    made = make_model(tmp_path)
    (tmp_path / "modules.json").unlink()
    shutil.rmtree(tmp_path / "1_Pooling")
    agree(made)
    assert not read_folder(tmp_path).normalized


def test_padding_ids_inside_a_text_follow_transformers(tmp_path):
    """RoBERTa gives the padding token no position of its own, wherever it stands."""
    made = make_model(tmp_path, "roberta")
    engine = Engine(read_folder(made.folder), dtype="f32", threads=1)
    text = np.array([0, 5, 1, 6, 1, 1, 7, 2], np.int32)
    assert cosines(engine.embed([text]).matrix[0], made.oracle(text)) >= 0.99999


def test_low_precision_stays_close(tmp_path):
    """Whatever `auto` is on this machine."""
    made = make_model(tmp_path)
    engine = Engine(read_folder(made.folder), threads=1)
    texts = random_texts(made.max_tokens)
    expected = np.stack([made.oracle(text) for text in texts])
    assert cosines(engine.embed(texts).matrix, expected).min() >= (
        0.999 if engine.precision == "bf16" else 0.99999
    )


def test_neighbours_in_a_row_do_not_see_each_other(tmp_path):
    """Every pair of a text and its neighbours gives the text the vector it has alone."""
    made = make_model(tmp_path, pooling=("cls", "max", "mean", "lasttoken"))
    engine = Engine(read_folder(made.folder), dtype="f32", threads=1)
    random = np.random.default_rng(7)
    text = random.integers(0, VOCABULARY, 6).astype(np.int32)
    alone = engine.embed([text]).matrix[0]
    for length in range(1, made.max_tokens - 6):
        others = [random.integers(0, VOCABULARY, length).astype(np.int32) for _ in range(5)]
        among = engine.embed([*others[:3], text, *others[3:]]).matrix[3]
        np.testing.assert_allclose(among, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_a_vector_that_is_not_finite_spoils_no_other(poison, pooling, tmp_path):
    made = make_model(tmp_path, pooling=(pooling,))
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    tensors["embeddings.word_embeddings.weight"][9] = poison
    save_file(tensors, path)
    engine = Engine(read_folder(made.folder), dtype="f32", threads=1)
    good = [np.full(length, 5 + length, np.int32) for length in (1, 2, 3)]
    bad = np.array([5, 9, 6], np.int32)
    vectors = engine.embed([good[0], bad, good[1], bad, good[2]]).matrix
    if pooling == "mean":
        assert np.isfinite(vectors).all(axis=1).tolist() == [True, False, True, False, True]
    expected = np.stack([made.oracle(text) for text in good])
    np.testing.assert_allclose(vectors[[0, 2, 4]], expected, rtol=1e-4, atol=1e-5)
