"""A deterministic backend for tests: the vector of a text is a function of the text alone.

Some texts misbehave on purpose: see `FakeBackend.embed`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence

import numpy as np

from llmrs.backends.base import Backend
from llmrs.embeddings import Input, Limits, Matrix, ModelInfo, Prepared, Truncate, Vectors
from llmrs.errors import ContextLengthExceeded, EngineError, InvalidRequest, UpstreamError

DIMENSIONS = 8
MAX_TOKENS = 16
VOCABULARY = 1000


def vector_of(text: str, dimensions: int = DIMENSIONS) -> Matrix:
    """A vector of the text, float32 [dimensions], neither zero nor of length one."""
    seed = int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")
    vector: Matrix = np.random.default_rng(seed).normal(size=dimensions).astype(np.float32)
    return vector


class FakeBackend(Backend):
    """One token a word, plus two. `slow` sleeps, `poison` and `broken` raise, `nan` gives NaN."""

    waits_on = "cpu"

    def __init__(
        self,
        *,
        kind: str = "fake",
        info: ModelInfo | None = None,
        limits: Limits | None = None,
        seconds: float = 0.0,
    ) -> None:
        self.kind = kind
        self._info = info or ModelInfo(
            name="fake-model",
            dimensions=DIMENSIONS,
            max_input_tokens=MAX_TOKENS,
            prompts={"query": "query: ", "document": "passage: ", "sts": "similar: "},
        )
        self._limits = limits or Limits(batch_size=4, batch_tokens=1000, slots=1)
        self._seconds = seconds
        self.cells_per_text: int | None = None
        self.batches: list[list[str]] = []
        self.closed = False

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def limits(self) -> Limits:
        return self._limits

    def prepare(
        self, inputs: Sequence[Input], *, truncate: Truncate | None = "none", prompt: str = ""
    ) -> list[Prepared]:
        return [self._prepare(each, index, truncate, prompt) for index, each in enumerate(inputs)]

    def _prepare(self, each: Input, index: int, truncate: Truncate | None, prompt: str) -> Prepared:
        if isinstance(each, list):
            if max(each, default=0) >= VOCABULARY:
                raise InvalidRequest(f"input[{index}] holds an id outside the vocabulary", param="input")
            words = [f"#{token}" for token in each]
        else:
            words = (prompt + each).split()
        found = len(words) + 2
        if found > MAX_TOKENS:
            if truncate == "chunk_mean":
                return self._split(words, [] if isinstance(each, list) else prompt.split())
            if truncate == "none":
                raise ContextLengthExceeded(MAX_TOKENS, index=index, found=found)
            keep = MAX_TOKENS - 2
            words = words[-keep:] if truncate == "start" else words[:keep]
        return Prepared(" ".join(words), len(words) + 2, found > MAX_TOKENS)

    def _split(self, words: list[str], prompt: list[str]) -> Prepared:
        step = MAX_TOKENS - 2 - len(prompt)
        own = words[len(prompt) :]
        parts = [own[start : start + step] for start in range(0, len(own), step)]
        chunks = tuple(
            Prepared(" ".join(prompt + part), len(prompt + part) + 2, weight=len(part)) for part in parts
        )
        return Prepared(None, sum(chunk.n_tokens for chunk in chunks), chunks=chunks)

    def embed(self, batch: Sequence[Prepared], *, timeout: float) -> Vectors:
        texts = [text.payload for text in batch]
        self.batches.append(texts)
        time.sleep(self._seconds + 0.3 * any(text.startswith("slow") for text in texts))
        if any(text.startswith("poison") for text in texts):
            raise EngineError("the model could not compute a vector")
        if any(text.startswith("broken") for text in texts):
            raise ZeroDivisionError("a bug in the engine")
        if any(text.startswith("unreachable") for text in texts):
            raise UpstreamError("the backend cannot be reached")
        matrix = np.stack([vector_of(text, self._info.dimensions or DIMENSIONS) for text in texts])
        matrix[[text.startswith("nan") for text in texts]] = np.nan
        matrix[[text.startswith("zero") for text in texts]] = 0.0
        cells = None if self.cells_per_text is None else self.cells_per_text * len(batch)
        return Vectors(matrix, cells=cells)

    def check(self, *, timeout: float) -> None:
        return None

    def close(self) -> None:
        self.closed = True
