"""A local model as LlamaIndex's `BaseEmbedding`, computed in this process. Wraps llama-index-core.

from llmrs.llamaindex import LlmrsEmbedding

Settings.embed_model = LlmrsEmbedding("BAAI/bge-small-zh-v1.5")

Texts get the model's prompt for documents and queries that for queries, where it has them. The calls
of many threads and tasks share batches, see `llmrs.Embedder`.
"""

from __future__ import annotations

from typing import Any

from llmrs.embedder import Embedder, InputType, embedder_of
from llmrs.embeddings import Truncate

try:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import PrivateAttr
except ImportError as missing:
    raise ImportError("llmrs.llamaindex needs llama-index-core: pip install 'llmrs[llamaindex]'") from missing

BATCH_TEXTS = 256
"""Texts that LlamaIndex hands over at once. With its default of 10 the engine would wait for each ten to
be taken away before it gets the next."""


class LlmrsEmbedding(BaseEmbedding):
    """Vectors for LlamaIndex.

    Args:
        model_name: a folder in the sentence-transformers layout, or a Hugging Face model id.
        embedder: what to compute with instead; whoever made it closes it.
        dimensions: a smaller width, see `Embedder.embed`.
        truncate: which end an over-long text loses, or `none` to refuse it; None for the model's own end.
        settings: BaseEmbedding's own, such as `embed_batch_size` and `callback_manager`.

    Raises:
        ModelError: the model cannot be found, read or built.
        ValueError: an argument has a value that it cannot have; pydantic's, ConfigError or InvalidRequest.
        TypeError: `embedder` is not an Embedder.
    """

    dimensions: int | None = None
    truncate: Truncate | None = None
    _embedder: Embedder = PrivateAttr()

    def __init__(
        self,
        model_name: str = "sentence-transformers/all-MiniLM-L6-v2",
        *,
        embedder: Embedder | None = None,
        dimensions: int | None = None,
        truncate: Truncate | None = None,
        **settings: Any,
    ) -> None:
        settings.setdefault("embed_batch_size", BATCH_TEXTS)
        own = embedder_of(model_name, embedder)
        own.check_arguments(dimensions, truncate)
        name = (own.info.name or model_name) if embedder is not None else model_name
        super().__init__(model_name=name, dimensions=dimensions, truncate=truncate, **settings)
        self._embedder = own

    @classmethod
    def class_name(cls) -> str:
        """What LlamaIndex calls it where it is stored."""
        return "LlmrsEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embed([query], "query")[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._embed([text], "document")[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embed(texts, "document")

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return (await self._aembed([query], "query"))[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aembed([text], "document"))[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await self._aembed(texts, "document")

    def _embed(self, texts: list[str], input_type: InputType) -> list[list[float]]:
        matrix = self._embedder.embed(
            texts, input_type=input_type, dimensions=self.dimensions, truncate=self.truncate
        )
        rows: list[list[float]] = matrix.tolist()
        return rows

    async def _aembed(self, texts: list[str], input_type: InputType) -> list[list[float]]:
        matrix = await self._embedder.aembed(
            texts, input_type=input_type, dimensions=self.dimensions, truncate=self.truncate
        )
        rows: list[list[float]] = matrix.tolist()
        return rows
