"""Clients of OpenAI's API as they come, against a server with default settings.

Run by test_adapters.py, where they are installed. LLMRS_URL is the server's address. All that is set are the
address, a key and the model's name.
"""

from __future__ import annotations

import asyncio
import os

import numpy as np
import pytest
import requests
from haystack import Document
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.utils import Secret
from langchain_openai import OpenAIEmbeddings
from llama_index.core import Document as LlamaDocument
from llama_index.core.node_parser import SentenceSplitter
from llama_index.embeddings.openai import OpenAIEmbedding

URL = os.environ["LLMRS_URL"]
MODEL = "sentence-transformers/all-MiniLM-L6-v2"

SENTENCES = [f"Sentence {i} tells how lock {i % 7} of the canal is opened by hand." for i in range(400)]
LONG = " ".join(SENTENCES)
"""About 6,000 tokens, where the model takes 256."""

TEXTS = ["hello world", "", "你好，世界 😀", LONG[:2000], LONG]


def plain(texts: list[str]) -> np.ndarray:
    """The vectors of texts, asked for without any client."""
    answer = requests.post(f"{URL}/v1/embeddings", json={"input": texts}, timeout=60)
    assert answer.status_code == 200, answer.text
    return np.array([row["embedding"] for row in answer.json()["data"]])


def assert_same(found: object, texts: list[str]) -> None:
    rows = np.array(found)
    assert rows.shape == (len(texts), 384)
    # bfloat16, where the machine has it, computes a text a little differently beside other texts.
    assert (rows * plain(texts)).sum(1).min() > 0.9998


def test_langchain_with_token_ids():
    embeddings = OpenAIEmbeddings(base_url=f"{URL}/v1", api_key="any", model=MODEL)
    assert embeddings.check_embedding_ctx_length
    texts = [text for text in TEXTS if text]
    assert_same(embeddings.embed_documents(texts), texts)
    assert_same([embeddings.embed_query("hello world")], ["hello world"])
    assert_same(asyncio.run(embeddings.aembed_documents(texts)), texts)


@pytest.mark.parametrize("chunk_size", [1024, 512])
def test_llamaindex_with_its_default_splitter(chunk_size):
    default = SentenceSplitter()
    assert default.chunk_size == 1024
    splitter = default if chunk_size == 1024 else SentenceSplitter(chunk_size=chunk_size, chunk_overlap=20)
    model = OpenAIEmbedding(api_base=f"{URL}/v1", api_key="any", model_name=MODEL)
    nodes = model(splitter([LlamaDocument(text=LONG)]))
    assert len(nodes) >= 4
    assert_same([node.embedding for node in nodes], [node.get_content("embed") for node in nodes])
    assert_same([model.get_query_embedding("hello world")], ["hello world"])


def test_haystack():
    settings = {"api_base_url": f"{URL}/v1", "api_key": Secret.from_token("any"), "model": MODEL}
    documents = [Document(content=text) for text in TEXTS]
    found = OpenAIDocumentEmbedder(**settings, progress_bar=False).run(documents)["documents"]
    assert_same([document.embedding for document in found], TEXTS)
    assert_same([OpenAITextEmbedder(**settings).run("hello world")["embedding"]], ["hello world"])
