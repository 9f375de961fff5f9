"""LangChain's own code with our vectors. Run by test_adapters.py, where langchain-core is installed."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore

from llmrs.embedder import Embedder
from llmrs.errors import ContextLengthExceeded
from llmrs.langchain import LlmrsEmbeddings

TEXTS = ["hello world", "a b c", ""]


@pytest.fixture
def adapter(embedder: Embedder) -> LlmrsEmbeddings:
    return LlmrsEmbeddings(embedder=embedder)


def test_it_is_langchains_interface(adapter):
    assert isinstance(adapter, Embeddings)


def test_documents_and_queries_get_their_prompts(adapter, embedder):
    documents = adapter.embed_documents(TEXTS)
    assert all(type(number) is float for row in documents for number in row)
    np.testing.assert_allclose(documents, embedder.embed(["passage: " + text for text in TEXTS]), atol=1e-6)
    np.testing.assert_allclose([adapter.embed_query("a")], embedder.embed(["query: a"]), atol=1e-6)
    assert adapter.embed_documents([]) == []


def test_its_tasks_get_the_same(adapter):
    assert asyncio.run(adapter.aembed_query("a")) == pytest.approx(adapter.embed_query("a"), abs=1e-6)
    rows = asyncio.run(adapter.aembed_documents(TEXTS))
    np.testing.assert_allclose(rows, adapter.embed_documents(TEXTS), atol=1e-6)


def test_a_vector_store_finds_what_was_put_in(adapter):
    store = InMemoryVectorStore(adapter)
    store.add_texts(["a b c", "k l m", "hello world"])
    assert len(store.similarity_search("k l m", k=2)) == 2


def test_its_own_model_width_and_truncation(folder):
    adapter = LlmrsEmbeddings(folder, dimensions=4, truncate="none")
    with adapter.embedder:
        assert len(adapter.embed_query("a")) == 4
        with pytest.raises(ContextLengthExceeded):
            adapter.embed_query("a b " * 100)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"dimensions": 10**6}, "dimensions must be"), ({"dimensions": "4"}, "dimensions must be"),
        ({"truncate": "middle"}, "truncate must be one of none, start, end"),
        ({"truncate": 5}, "truncate"),
    ],
)  # fmt: skip
def test_a_wrong_argument_says_what_is_allowed(embedder, arguments, words):
    with pytest.raises(ValueError, match=words):
        LlmrsEmbeddings(embedder=embedder, **arguments)


def test_a_wrong_embedder_or_model():
    with pytest.raises(TypeError, match="embedder must be an llmrs"):
        LlmrsEmbeddings(embedder="a model")
    with pytest.raises(ValueError, match="expected a folder or a model id"):
        LlmrsEmbeddings(3)
