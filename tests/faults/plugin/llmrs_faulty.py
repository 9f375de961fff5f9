"""A local engine that fails for some texts, as a package of its own that llmrs finds by its entry point."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from gevent.monkey import get_original

from llmrs.backends.base import Backend
from llmrs.config import Config
from llmrs.embeddings import Input, Limits, ModelInfo, Prepared, Truncate, Vectors

WIDTH = 8
SLOW_SECONDS = 1.0
_sleep = get_original("time", "sleep")  # gevent's would make a hub of its own on the engine's thread


def vector_of(text: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    return np.random.default_rng(seed).normal(size=WIDTH).astype(np.float32)


class Faulty(Backend):
    """The first word of a text says what happens to its batch."""

    kind = "faulty"
    waits_on = "cpu"

    @property
    def info(self) -> ModelInfo:
        return ModelInfo("faulty", dimensions=WIDTH, max_input_tokens=512)

    @property
    def limits(self) -> Limits:
        return Limits(batch_size=32, batch_tokens=16384, slots=1)

    def prepare(
        self, inputs: Sequence[Input], *, truncate: Truncate = "none", prompt: str = ""
    ) -> list[Prepared]:
        texts = [prompt + str(each) for each in inputs]
        if any(text.startswith("unpreparable") for text in texts):
            raise RuntimeError("a bug before the queue")
        return [Prepared(text, len(text.split()) + 2) for text in texts]

    def embed(self, batch: Sequence[Prepared], *, timeout: float) -> Vectors:
        texts = [str(each.payload) for each in batch]
        said = {text.split(" ")[0] for text in texts}
        if "slow" in said:
            _sleep(SLOW_SECONDS)
        if "bug" in said:
            raise ZeroDivisionError("a secret of the engine")
        if "exit" in said:
            raise SystemExit(1)
        if "memory" in said:
            raise MemoryError
        matrix = np.stack([vector_of(text) for text in texts])
        matrix[[text.startswith("nan") for text in texts]] = np.nan
        if "short" in said:
            matrix = matrix[:-1]
        if "flat" in said:
            return Vectors(matrix[0])
        if "none" in said:
            return None  # type: ignore[return-value]
        if "wide" in said:
            matrix = np.hstack([matrix, matrix])
        return Vectors(matrix)

    def check(self, *, timeout: float) -> None:
        return None


def open_faulty(config: Config) -> Backend:
    return Faulty()
