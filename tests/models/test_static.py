"""Static models: what is read of their folders, what is refused, and how they are computed."""

from __future__ import annotations

import mmap

import numpy as np
import pytest

from llmrs.backends.local import FEWEST_NUMBERS, INLINE_NUMBERS, LocalBackend
from llmrs.errors import ConfigError, EngineError, InvalidRequest, ModelError
from llmrs.models.folder import read_folder
from llmrs.models.static import StaticEngine
from llmrs.models.wordtable import MOST_TOKENS, Static
from tests.models.makers import VOCABULARY, change_json, make_static, write_json, write_safetensors

WIDTH = 24


@pytest.fixture
def made(tmp_path):
    return make_static(tmp_path / "static", WIDTH)


def embed(folder, ids, **options):
    engine = StaticEngine(read_folder(folder), **options)
    return engine.embed([np.array(text, np.int32) for text in ids]).matrix


def weights_of(folder, dtype="F32", **tensors):
    return write_safetensors(folder / "model.safetensors", tensors, dtype)


def test_what_is_known_of_it(made):
    folder = read_folder(made.folder)
    assert folder.encoder == Static(WIDTH, VOCABULARY, MOST_TOKENS)
    assert (folder.dimensions, folder.max_tokens, folder.steps) == (WIDTH, MOST_TOKENS, ())
    assert not folder.normalized
    backend = LocalBackend(str(made.folder))
    assert (backend.precision, backend.info.max_input_tokens) == ("f32", MOST_TOKENS)
    assert backend.limits.inline_tokens == INLINE_NUMBERS // FEWEST_NUMBERS
    assert not backend.limits.spread
    assert backend.computing_since() is None
    assert not backend.is_broken


def test_the_table_stays_in_its_file(made):
    """It is mapped and not copied: processes share it, and starting costs nothing."""
    memory = StaticEngine(read_folder(made.folder))._table.numbers
    while isinstance(memory, np.ndarray):
        memory = memory.base
    assert isinstance(memory.obj, mmap.mmap)


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F64"])
def test_other_dtypes_are_converted(made, dtype):
    stored = weights_of(made.folder, dtype, **{"embedding.weight": made.table})["embedding.weight"]
    found = embed(made.folder, [[5, 6], [7]])
    np.testing.assert_allclose(found, [stored[5:7].mean(axis=0), stored[7]], rtol=1e-6)


def test_bytes_are_numbers(made):
    table = np.arange(VOCABULARY * WIDTH).reshape(VOCABULARY, WIDTH) % 251 - 125
    weights_of(made.folder, "I8", embeddings=table)
    np.testing.assert_allclose(embed(made.folder, [[5, 6], [7]]), [table[5:7].mean(axis=0), table[7]])


def test_normalize_comes_before_the_cut(made):
    change_modules(made.folder, "StaticEmbedding", "Normalize")
    assert read_folder(made.folder).normalized
    unit = made.table[5] / np.linalg.norm(made.table[5])
    np.testing.assert_allclose(embed(made.folder, [[5], []]), [unit, np.zeros(WIDTH)], rtol=1e-6)
    write_json(made.folder / "config_sentence_transformers.json", {"truncate_dim": 10})
    assert not read_folder(made.folder).normalized
    np.testing.assert_allclose(embed(made.folder, [[5]]), [unit[:10]], rtol=1e-6)


def change_modules(folder, *kinds):
    modules = [
        {"idx": index, "name": str(index), "path": "", "type": f"sentence_transformers.models.{kind}"}
        for index, kind in enumerate(kinds)
    ]
    write_json(folder / "modules.json", modules)


def test_token_ids_from_a_client(made):
    backend = LocalBackend(str(made.folder))
    prepared = backend.prepare([[5, 6], "hello"])
    assert prepared[0].payload.tolist() == [5, 6]
    assert prepared[1].n_tokens == 1
    with pytest.raises(InvalidRequest, match="vocabulary"):
        backend.prepare([[VOCABULARY]])


def test_a_token_outside_the_table_is_an_error_of_the_model(made):
    with pytest.raises(EngineError):
        embed(made.folder, [[VOCABULARY]])


@pytest.mark.parametrize("kinds", [("Pooling",), ("Dense",), ("Normalize", "Pooling")])
def test_steps_that_are_not_supported(made, kinds):
    change_modules(made.folder, "StaticEmbedding", *kinds)
    write_json(made.folder / "config.json", {"in_features": WIDTH, "out_features": 4})
    with pytest.raises(ModelError, match="only Normalize is supported after a StaticEmbedding"):
        read_folder(made.folder)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"engine": "openvino"}, "which needs none; use auto"),
        ({"model_file": "tokenizer.json"}, "only model.safetensors can be read"),
        ({"model_file": "onnx/model.onnx"}, "has no such file"),
    ],
)
def test_what_cannot_be_asked_for(made, options, reason):
    with pytest.raises(ModelError, match=reason):
        read_folder(made.folder, **options)
    assert read_folder(made.folder, model_file="model.safetensors").dimensions == WIDTH


def test_a_dtype_that_it_does_not_compute_in(made):
    assert embed(made.folder, [[5]], dtype="f32").shape == (1, WIDTH)
    with pytest.raises(ConfigError, match="dtype = bf16"):
        embed(made.folder, [[5]], dtype="bf16")


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"other": np.ones((9, 4))}, "embedding.weight is missing"),
        ({"embeddings": np.ones(9)}, "expected rows of numbers"),
        ({"embeddings": np.ones((0, 4))}, "expected rows of numbers"),
        ({"embeddings": np.ones((9, 4)), "mapping": np.ones((4, 2))}, "expected 1"),
        ({"embeddings": np.full((VOCABULARY, 4), np.nan)}, "NaN or infinity"),
        ({"embeddings": np.ones((VOCABULARY, 4)), "weights": np.ones(3)}, "weights has shape"),
        ({"embeddings": np.ones((9, 4)), "mapping": np.ones(VOCABULARY)}, "names rows"),
    ],
)
def test_tensors_that_do_not_fit(made, tensors, reason):
    weights_of(made.folder, **tensors)
    with pytest.raises(ModelError, match=reason):
        LocalBackend(str(made.folder))


@pytest.mark.parametrize("row", [-1, 9])
def test_a_mapping_that_leaves_the_table(made, row):
    mapping = np.zeros(VOCABULARY)
    mapping[-1] = row
    weights_of(made.folder, "I8", embeddings=np.ones((9, 4)), mapping=mapping)
    with pytest.raises(ModelError, match="names rows that the table does not have"):
        LocalBackend(str(made.folder))


def test_a_table_for_another_tokenizer(made):
    weights_of(made.folder, embeddings=np.ones((9, 4)))
    with pytest.raises(ModelError, match="another model's"):
        LocalBackend(str(made.folder))


def test_model2vecs_own_folder(made):
    """Without modules.json: config.json says what it is."""
    (made.folder / "modules.json").unlink()
    write_json(made.folder / "config.json", {"model_type": "model2vec", "normalize": True})
    folder = read_folder(made.folder)
    assert folder.normalized
    encoder = folder.encoder
    assert (encoder.max_tokens, encoder.max_characters, encoder.unknown) == (512, 512, 1)
    change_json(made.folder / "config.json", max_length=None, normalize=False)
    encoder = read_folder(made.folder).encoder
    assert (encoder.max_tokens, encoder.max_characters, encoder.unknown) == (MOST_TOKENS, None, 1)
    change_json(made.folder / "tokenizer.json", model={"vocab": [1, 2]})
    with pytest.raises(ModelError, match="no list of tokens"):
        read_folder(made.folder)
