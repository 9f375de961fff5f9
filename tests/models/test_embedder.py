"""The in-process API."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

import llmrs
from llmrs.embedder import Embedder
from llmrs.embeddings import Vectors
from llmrs.errors import ContextLengthExceeded, EngineError, ModelError, NonFiniteEmbedding
from tests.models.makers import HIDDEN, make_model, write_json

TEXTS = ["hello world", "a", "", "a b c d e f g h i j k l m n o p", "hello", "query : hello"] * 5


@pytest.fixture(scope="module")
def embedder(tiny):
    with Embedder(str(tiny.folder), dtype="f32", batch_size=4, threads=1) as embedder:
        yield embedder


def expected(tiny, embedder, texts):
    prepared = embedder._backend.prepare(texts, truncate="end")
    vectors = np.stack([tiny.oracle(each.payload) for each in prepared])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_package_offers_it_without_loading_it():
    assert llmrs.Embedder is Embedder
    assert llmrs.__version__ == "0.1.0"
    with pytest.raises(AttributeError, match="nothing"):
        llmrs.nothing  # noqa: B018
    heavy = ("numpy", "openvino", "tokenizers", "gevent", "falcon", "requests", "huggingface_hub")
    code = f"import sys, llmrs; assert not set({heavy}) & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_embedding_loads_no_server():
    code = (
        "import sys; from llmrs import Embedder;"
        "assert not {'gevent', 'falcon', 'gunicorn', 'requests', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_order_and_values(tiny, embedder):
    vectors = embedder.embed(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), HIDDEN) == (len(TEXTS), embedder.dimensions)
    np.testing.assert_allclose(vectors, expected(tiny, embedder, TEXTS), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_one_text_gives_one_row(embedder):
    np.testing.assert_allclose(embedder.embed("hello"), embedder.embed(["hello"]), atol=1e-6)
    assert embedder.embed("hello").shape == (1, HIDDEN)


def test_no_text_gives_no_row(embedder):
    assert embedder.embed([]).shape == (0, HIDDEN)


def test_batches_stay_within_the_limits(embedder, monkeypatch):
    batches = []
    embed = embedder._backend.embed

    def watched(batch, *, timeout):
        batches.append([each.n_tokens for each in batch])
        return embed(batch, timeout=timeout)

    monkeypatch.setattr(embedder._backend, "embed", watched)
    embedder.embed(TEXTS)
    assert max(map(len, batches)) == 4
    flat = [tokens for batch in batches for tokens in batch]
    assert flat == sorted(flat)
    assert len(flat) == len(TEXTS)


def test_the_token_budget_counts_too(tiny):
    with Embedder(str(tiny.folder), dtype="f32", threads=1) as embedder:
        long = embedder._backend.prepare(["a b c d e f g h i j k l m n"] * 9)
        object.__setattr__(embedder._backend.limits, "batch_tokens", 40)
        assert [len(batch) for batch in embedder._batches(long)] == [2, 2, 2, 2, 1]


def test_without_normalization(tiny):
    with Embedder(str(tiny.folder), dtype="f32", normalize=False, threads=1) as embedder:
        vectors = embedder.embed(TEXTS)
        prepared = embedder._backend.prepare(TEXTS)
    raw = np.stack([tiny.oracle(each.payload) for each in prepared])
    np.testing.assert_allclose(vectors, raw, rtol=1e-3, atol=1e-4)


def test_truncation(embedder, tiny):
    long = "a b " * 100
    with pytest.raises(ContextLengthExceeded, match=r"input\[1\]"):
        embedder.embed(["a", long], truncate="none")
    room = tiny.max_tokens - 2
    np.testing.assert_allclose(embedder.embed(long), embedder.embed("a b " * (room // 2)), atol=1e-6)
    np.testing.assert_allclose(
        embedder.embed("c " * 100 + "d", truncate="start"), embedder.embed("c " * (room - 1) + "d"), atol=1e-6
    )


def test_prompts(tmp_path):
    made = make_model(tmp_path)
    prompts = {"query": "query: ", "document": "passage: ", "plain": "hello "}
    write_json(
        tmp_path / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": "plain"}
    )
    with Embedder(str(made.folder), dtype="f32", threads=1) as embedder:
        for input_type, prompt in (("query", "query: "), ("document", "passage: "), (None, "hello ")):
            with_prompt = embedder.embed("a", input_type=input_type)
            np.testing.assert_allclose(with_prompt, expected(made, embedder, [prompt + "a"]), atol=1e-5)


@pytest.mark.parametrize("texts", [["a", 3], [None], [["a"]], [b"a"]])
def test_only_strings(embedder, texts):
    with pytest.raises(TypeError, match="must be strings"):
        embedder.embed(texts)


def test_batch_size_must_be_positive(tiny):
    with pytest.raises(ValueError, match="batch_size"):
        Embedder(str(tiny.folder), batch_size=0)


def test_a_model_that_is_not_there():
    with pytest.raises(ModelError):
        Embedder("/no/such/folder", offline=True)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_vectors_are_never_handed_out(embedder, monkeypatch, bad):
    embed = embedder._backend.embed

    def broken(batch, *, timeout):
        matrix = embed(batch, timeout=timeout).matrix
        matrix[[each.n_tokens == 2 for each in batch], 3] = bad
        return Vectors(matrix)

    monkeypatch.setattr(embedder._backend, "embed", broken)
    with pytest.raises(NonFiniteEmbedding, match="index 2"):
        embedder.embed(["hello", "a", "", "world"])


def test_large_and_zero_vectors_are_scaled_safely(embedder):
    matrix = np.array([[3e38, 3e38], [0, 0], [1e-30, 0]], np.float32)
    scaled = embedder._finished(matrix)
    np.testing.assert_allclose(scaled, [[0.5**0.5, 0.5**0.5], [0, 0], [1, 0]], rtol=1e-6)
    assert scaled.dtype == np.float32


def test_threads(tiny, embedder):
    wanted = expected(tiny, embedder, TEXTS)
    failures = []

    def work(shift):
        texts = TEXTS[shift:] + TEXTS[:shift]
        vectors = embedder.embed(texts)
        if not np.allclose(vectors, np.roll(wanted, -shift, axis=0), rtol=1e-3, atol=1e-5):
            failures.append(shift)

    threads = [threading.Thread(target=work, args=(shift,)) for shift in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_closed(tiny):
    with Embedder(str(tiny.folder), dtype="f32", threads=1) as embedder:
        assert len(embedder.embed("a")) == 1
    with pytest.raises(EngineError, match="unloaded"):
        embedder.embed("a")
