"""The plain form of a FastAPI service around sentence-transformers."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from llmrs.backends.protocols.base import Protocol, Reply, decode, no_vectors
from llmrs.backends.vectors import to_matrix
from llmrs.errors import UpstreamError


class _EmbedAnswer(msgspec.Struct):
    vectors: list[msgspec.Raw] | None = None
    embeddings: list[msgspec.Raw] | None = None


class Embed(Protocol):
    """`/embed` with `texts`: the plain form of a FastAPI service around sentence-transformers.

    It can be told nothing of long texts: sentence-transformers cuts their end without a word.
    """

    name = "embed"
    path = "/embed"
    keeps_lengths = True

    def __init__(self, *, batch_size: int) -> None:
        super().__init__({"normalize_embeddings": False, "batch_size": batch_size}, "texts")

    def read(self, body: bytes, headers: Mapping[str, str], count: int) -> Reply:
        answer = decode(_EMBED_ANSWER, body)
        rows = answer.embeddings if answer.vectors is None else answer.vectors
        if rows is None:
            raise UpstreamError(no_vectors(body))
        return Reply(to_matrix(rows, count), None)


_EMBED_ANSWER = msgspec.json.Decoder(_EmbedAnswer)
