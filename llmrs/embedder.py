"""Embedding in this process, without a server.

from llmrs import Embedder

with Embedder() as embedder:
    vectors = embedder.embed(["first text", "second text"])
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Literal

import numpy as np

from llmrs.backends.local import LocalBackend
from llmrs.embeddings import Matrix, ModelInfo, Prepared, Truncate
from llmrs.errors import NonFiniteEmbedding


class Embedder:
    """A local model as a function from texts to vectors. Thread-safe.

    Args:
        model: a folder in the sentence-transformers layout, or a Hugging Face model id.
        dtype: what to compute in: `auto` for what suits the CPU, `f32` or `bf16`.
        normalize: scale vectors to length 1.
        batch_size: most texts computed together.
        threads: threads computing, 0 for all usable cores.
        offline: never download the model.

    Raises:
        ModelError: the model cannot be found, read or built.
        ConfigError: this CPU does not compute in `dtype`.
    """

    def __init__(
        self,
        model: str = "sentence-transformers/all-MiniLM-L6-v2",
        *,
        dtype: str = "auto",
        normalize: bool = True,
        batch_size: int = 32,
        threads: int = 0,
        offline: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ValueError("batch_size must be at least 1")
        self._backend = LocalBackend(
            model, dtype=dtype, threads=threads, batch_size=batch_size, offline=offline
        )
        self._normalize = normalize
        # As many threads as the backend takes calls; shared by all callers of `embed`.
        self._slots = ThreadPoolExecutor(self._backend.limits.slots, "llmrs-embedder")

    @property
    def info(self) -> ModelInfo:
        """What the model's folder says about it: name, longest input, prompts and more."""
        return self._backend.info

    @property
    def dimensions(self) -> int:
        """Width of the vectors."""
        dimensions = self._backend.info.dimensions
        assert dimensions is not None  # a local model's is always known
        return dimensions

    def embed(
        self,
        texts: str | Sequence[str],
        *,
        truncate: Truncate = "end",
        input_type: Literal["query", "document"] | None = None,
    ) -> Matrix:
        """Vectors of texts, float32 [n, dimensions], in order; one text gives one row.

        Args:
            truncate: which end an over-long text loses, or `none` to refuse it.
            input_type: puts the model's prompt for queries or documents in front, if it has one.

        Raises:
            ContextLengthExceeded: a text is too long and `truncate` is `none`.
            NonFiniteEmbedding: the model gave NaN or infinity for a text.
            TypeError: something is not a string.
        """
        wanted = [texts] if isinstance(texts, str) else list(texts)
        for text in wanted:
            if not isinstance(text, str):
                raise TypeError(f"texts must be strings, not {type(text).__name__}")
        prompt = self.info.prompts.get(input_type or "", "")
        prepared = self._backend.prepare(wanted, truncate=truncate, prompt=prompt)
        matrix = np.empty((len(prepared), self.dimensions), np.float32)

        def compute(rows: list[int]) -> None:
            batch = [prepared[row] for row in rows]
            matrix[rows] = self._backend.embed(batch, timeout=float("inf")).matrix

        deque(self._slots.map(compute, self._batches(prepared)), maxlen=0)  # raises what one has raised
        return self._finished(matrix)

    def close(self) -> None:
        """Release the model. `embed` fails afterwards."""
        self._backend.close()  # the threads end with the executor

    def __enter__(self) -> Embedder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _batches(self, prepared: Sequence[Prepared]) -> list[list[int]]:
        """Indices of texts by length, in batches within the backend's limits.

        Neighbours in length share a batch, so that little of it is padding.
        """
        limits = self._backend.limits
        most = min(limits.batch_size, -(-len(prepared) // limits.slots))
        batches: list[list[int]] = [[]]
        tokens = 0
        for index in sorted(range(len(prepared)), key=lambda index: prepared[index].n_tokens):
            tokens += prepared[index].n_tokens
            if batches[-1] and (tokens > limits.batch_tokens or len(batches[-1]) == most):
                batches.append([])
                tokens = prepared[index].n_tokens
            batches[-1].append(index)
        return batches if prepared else []

    def _finished(self, matrix: Matrix) -> Matrix:
        """Refuse non-finite rows, and scale rows to length 1 if wanted; a zero row stays zero."""
        finite = np.isfinite(matrix).all(axis=1)
        if not finite.all():
            raise NonFiniteEmbedding(int(np.argmin(finite)))
        if not self._normalize:
            return matrix
        # In float64: the squares of large float32 values overflow.
        lengths = np.sqrt(np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64))
        scaled: Matrix = (matrix / np.where(lengths > 0, lengths, 1.0)[:, None]).astype(np.float32)
        return scaled
