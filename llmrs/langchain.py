"""A local model as LangChain's `Embeddings`, computed in this process. Wraps langchain-core.

from llmrs.langchain import LlmrsEmbeddings

vectors = LlmrsEmbeddings("BAAI/bge-small-zh-v1.5").embed_documents(["first text", "second text"])

Documents get the model's prompt for documents and queries that for queries, where it has them. The
calls of many threads and tasks share batches, see `llmrs.Embedder`.
"""

from __future__ import annotations

from typing import Any

from llmrs.embedder import Embedder, InputType, embedder_of
from llmrs.embeddings import Truncate

try:
    from langchain_core.embeddings import Embeddings
except ImportError as missing:
    raise ImportError("llmrs.langchain needs langchain-core: pip install 'llmrs[langchain]'") from missing


class LlmrsEmbeddings(Embeddings):
    """Vectors for LangChain.

    Args:
        model: a folder in the sentence-transformers layout, or a Hugging Face model id.
        embedder: what to compute with instead; whoever made it closes it.
        dimensions: a smaller width, see `Embedder.embed`.
        truncate: which end an over-long text loses, or `none` to refuse it; None for the model's own end.

    Raises:
        ModelError: the model cannot be found, read or built.
        ConfigError, InvalidRequest: an argument has a value that it cannot have.
        TypeError: `embedder` is not an Embedder.
    """

    def __init__(
        self,
        model: str = "sentence-transformers/all-MiniLM-L6-v2",
        *,
        embedder: Embedder | None = None,
        dimensions: int | None = None,
        truncate: Truncate | None = None,
    ) -> None:
        self.embedder = embedder_of(model, embedder)
        self.embedder.check_arguments(dimensions, truncate)
        self._settings: dict[str, Any] = {"dimensions": dimensions, "truncate": truncate}

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of documents, in order."""
        return self._embed(texts, "document")

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query."""
        return self._embed([text], "query")[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of documents, in order; other tasks run meanwhile."""
        return await self._aembed(texts, "document")

    async def aembed_query(self, text: str) -> list[float]:
        """The vector of a query; other tasks run meanwhile."""
        return (await self._aembed([text], "query"))[0]

    def _embed(self, texts: list[str], input_type: InputType) -> list[list[float]]:
        rows: list[list[float]] = self.embedder.embed(texts, input_type=input_type, **self._settings).tolist()
        return rows

    async def _aembed(self, texts: list[str], input_type: InputType) -> list[list[float]]:
        matrix = await self.embedder.aembed(texts, input_type=input_type, **self._settings)
        rows: list[list[float]] = matrix.tolist()
        return rows
