"""What the processes of one service say to each other: token ids one way, vectors the other.

Arrays as they are in memory, because both ends are the same program on the same machine:

    batch    the model's digest, then int32: n, the lengths of n texts, their token ids one after the other
    vectors  the model's digest, then float32: the rows, one after the other

Both name the model (see `identity`), so that neither end takes one model's for another's. Beside them there
is a question in JSON: whether a model is computed, and will it be, please.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from llmrs.backends.identity import DIGEST_BYTES
from llmrs.embeddings import Matrix, Prepared

BATCH = "/batch"
MODEL = "/model"
"""The engine's routes: a batch to compute, and a model to have."""


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """A model that is asked for: its digest, and the settings it is to be loaded by."""

    digest: bytes
    settings: dict[str, Any]


class Standing(msgspec.Struct):
    """How a model stands with the engine, why it is not ready, and whether it is in memory.

    One that is loaded on request is ready without that.
    """

    state: Literal["ready", "loading", "failed"]
    reason: str = ""
    memory: Literal["unloaded", "loading", "loaded"] = "unloaded"


def write_batch(model: bytes, batch: Sequence[Prepared]) -> bytes:
    """The frame of texts whose payloads are int32 token ids, for the model of that digest."""
    head = np.array([len(batch), *(len(text.payload) for text in batch)], np.int32)
    return b"".join((model, head.tobytes(), *(text.payload.tobytes() for text in batch)))


def read_batch(frame: bytes) -> tuple[bytes, list[Prepared]]:
    """The model's digest and the texts of a frame; raises ValueError where it is none."""
    model, numbers = frame[:DIGEST_BYTES], np.frombuffer(frame[DIGEST_BYTES:], np.int32)
    count = int(numbers[0]) if len(numbers) else 0
    lengths = numbers[1 : 1 + count]
    if count < 1 or len(lengths) != count or lengths.min() < 1:
        raise ValueError("not a batch of texts")
    ends = lengths.cumsum(dtype=np.int64) + 1 + count
    if ends[-1] != len(numbers):
        raise ValueError("not as many token ids as were announced")
    texts = np.split(numbers[1 + count :], ends[:-1] - 1 - count)
    return model, [Prepared(text, len(text)) for text in texts]


def write_vectors(model: bytes, matrix: Matrix) -> bytes:
    """The frame of a matrix that the model of that digest has computed."""
    return b"".join((model, matrix.data))


def read_vectors(frame: bytes, model: bytes, rows: int, dimensions: int) -> Matrix:
    """The matrix of a frame, float32 [rows, dimensions].

    Raises:
        ValueError: it is another model's, or of another shape.
    """
    if frame[:DIGEST_BYTES] != model:
        raise ValueError("vectors of another model")
    return np.frombuffer(frame, np.float32, offset=DIGEST_BYTES).reshape(rows, dimensions)
