"""LlamaIndex's own code with our vectors. Run by test_adapters.py, where llama-index-core is installed."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode

from llmrs.embedder import Embedder
from llmrs.errors import ContextLengthExceeded
from llmrs.llamaindex import LlmrsEmbedding

TEXTS = ["hello world", "a b c", "d e"]


@pytest.fixture
def adapter(embedder: Embedder) -> LlmrsEmbedding:
    return LlmrsEmbedding(embedder=embedder)


def test_it_is_llamaindexes_interface(adapter, embedder):
    assert isinstance(adapter, BaseEmbedding)
    assert adapter.model_name == embedder.info.name
    assert adapter.embed_batch_size == 256


def test_texts_and_queries_get_their_prompts(adapter, embedder):
    rows = adapter.get_text_embedding_batch(TEXTS)
    assert all(type(number) is float for row in rows for number in row)
    np.testing.assert_allclose(rows, embedder.embed(["passage: " + text for text in TEXTS]), atol=1e-6)
    assert adapter.get_text_embedding("a b c") == pytest.approx(rows[1], abs=1e-6)
    np.testing.assert_allclose([adapter.get_query_embedding("a")], embedder.embed(["query: a"]), atol=1e-6)


def test_its_tasks_get_the_same(adapter):
    async def main():
        return (
            await adapter.aget_query_embedding("a"),
            await adapter.aget_text_embedding("a b c"),
            await adapter.aget_text_embedding_batch(TEXTS),
        )

    query, text, rows = asyncio.run(main())
    assert query == pytest.approx(adapter.get_query_embedding("a"), abs=1e-6)
    assert text == pytest.approx(rows[1], abs=1e-6)
    np.testing.assert_allclose(rows, adapter.get_text_embedding_batch(TEXTS), atol=1e-6)


def test_nodes_of_a_pipeline_get_vectors(adapter):
    nodes = adapter([TextNode(text=text) for text in TEXTS])
    assert [len(node.embedding) for node in nodes] == [len(adapter.get_query_embedding("a"))] * 3


def test_it_can_be_stored_and_made_again(folder):
    adapter = LlmrsEmbedding(folder, dimensions=4, truncate="none", embed_batch_size=7)
    again = LlmrsEmbedding.from_dict(adapter.to_dict())
    assert (again.model_name, again.dimensions, again.embed_batch_size) == (folder, 4, 7)
    assert again.get_query_embedding("a") == pytest.approx(adapter.get_query_embedding("a"), abs=1e-6)
    assert len(again.get_query_embedding("a")) == 4
    with pytest.raises(ContextLengthExceeded):
        again.get_query_embedding("a b " * 100)


def test_a_setting_that_it_does_not_have(embedder):
    with pytest.raises(ValueError, match="embed_batch_size"):
        LlmrsEmbedding(embedder=embedder, embed_batch_size=0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"dimensions": 10**6}, "dimensions must be"), ({"dimensions": "x"}, "dimensions must be"),
        ({"truncate": "middle"}, "truncate must be one of none, start, end"),
        ({"truncate": 5}, "truncate"),
    ],
)  # fmt: skip
def test_a_wrong_argument_says_what_is_allowed(embedder, arguments, words):
    with pytest.raises(ValueError, match=words):
        LlmrsEmbedding(embedder=embedder, **arguments)


def test_a_wrong_embedder_or_model():
    with pytest.raises(TypeError, match="embedder must be an llmrs"):
        LlmrsEmbedding(embedder="a model")
    with pytest.raises(ValueError, match="expected a folder or a model id"):
        LlmrsEmbedding(3)
