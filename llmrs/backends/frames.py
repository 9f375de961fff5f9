"""What the processes of one service say to each other: token ids one way, vectors the other.

Arrays as they are in memory, because both ends are the same program on the same machine:

    batch    int32: n, the lengths of n texts, their token ids one after the other
    vectors  float32: the rows, one after the other
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmrs.embeddings import Matrix, Prepared

BATCH = "/batch"
"""The engine's route."""


def write_batch(batch: Sequence[Prepared]) -> bytes:
    """The frame of texts whose payloads are int32 token ids."""
    head = np.array([len(batch), *(len(text.payload) for text in batch)], np.int32)
    return b"".join((head.tobytes(), *(text.payload.tobytes() for text in batch)))


def read_batch(frame: bytes) -> list[Prepared]:
    """The texts of a frame; raises ValueError where it is none."""
    numbers = np.frombuffer(frame, np.int32)
    count = int(numbers[0]) if len(numbers) else 0
    lengths = numbers[1 : 1 + count]
    if count < 1 or len(lengths) != count or lengths.min() < 1:
        raise ValueError("not a batch of texts")
    ends = lengths.cumsum(dtype=np.int64) + 1 + count
    if ends[-1] != len(numbers):
        raise ValueError("not as many token ids as were announced")
    texts = np.split(numbers[1 + count :], ends[:-1] - 1 - count)
    return [Prepared(text, len(text)) for text in texts]


def read_vectors(frame: bytes, rows: int, dimensions: int) -> Matrix:
    """The matrix of a frame, float32 [rows, dimensions]; raises ValueError where it is another."""
    return np.frombuffer(frame, np.float32).reshape(rows, dimensions)
