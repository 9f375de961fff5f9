"""Token ids and vectors between the processes of one service."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from llmrs.backends.frames import read_batch, read_vectors, write_batch, write_vectors
from llmrs.backends.identity import DIGEST_BYTES
from llmrs.embeddings import Prepared

ONE, OTHER = b"1" * DIGEST_BYTES, b"2" * DIGEST_BYTES


@given(st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=20), min_size=1, max_size=20))
def test_a_batch_comes_back_as_it_was(texts: list[list[int]]) -> None:
    batch = [Prepared(np.array(ids, np.int32), len(ids)) for ids in texts]
    model, read = read_batch(write_batch(ONE, batch))
    assert model == ONE
    assert [text.payload.tolist() for text in read] == texts
    assert [text.n_tokens for text in read] == [len(ids) for ids in texts]
    assert [text.key for text in read] == [text.key for text in batch]


@given(st.binary(max_size=200))
def test_anything_else_is_refused(frame: bytes) -> None:
    try:
        model, batch = read_batch(frame)
    except ValueError:
        return
    assert write_batch(model, batch) == frame


def test_vectors_of_another_size_are_refused() -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    frame = write_vectors(ONE, matrix)
    assert (read_vectors(frame, ONE, 2, 3) == matrix).all()
    for rows, dimensions in ((3, 3), (2, 2), (1, 3)):
        with pytest.raises(ValueError, match="reshape"):
            read_vectors(frame, ONE, rows, dimensions)


def test_vectors_of_another_model_are_refused_though_they_fit() -> None:
    matrix = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match="another model"):
        read_vectors(write_vectors(OTHER, matrix), ONE, 2, 3)
