"""Ollama."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from llmrs.backends.protocols.base import Protocol, Reply, count_of, decode
from llmrs.backends.vectors import to_matrix


class _OllamaAnswer(msgspec.Struct):
    embeddings: list[msgspec.Raw]
    prompt_eval_count: Any = None


class Ollama(Protocol):
    """`/api/embed` of Ollama. It always normalizes, and by itself cuts long inputs' end without a word."""

    name = "ollama"
    path = "/api/embed"
    truncates = MappingProxyType({"none": {"truncate": False}, "end": {"truncate": True}})
    shortens = True

    def __init__(self, model: str) -> None:
        super().__init__({"model": model}, "input")

    def read(self, body: bytes, headers: Mapping[str, str], count: int) -> Reply:
        answer = decode(_OLLAMA_ANSWER, body)
        return Reply(to_matrix(answer.embeddings, count), count_of(answer.prompt_eval_count))


_OLLAMA_ANSWER = msgspec.json.Decoder(_OllamaAnswer)
