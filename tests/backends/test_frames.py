"""Token ids and vectors between the processes of one service."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from llmrs.backends.frames import read_batch, read_vectors, write_batch
from llmrs.embeddings import Prepared


@given(st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=20), min_size=1, max_size=20))
def test_a_batch_comes_back_as_it_was(texts: list[list[int]]) -> None:
    batch = [Prepared(np.array(ids, np.int32), len(ids)) for ids in texts]
    read = read_batch(write_batch(batch))
    assert [text.payload.tolist() for text in read] == texts
    assert [text.n_tokens for text in read] == [len(ids) for ids in texts]
    assert [text.key for text in read] == [text.key for text in batch]


@given(st.binary(max_size=200))
def test_anything_else_is_refused(frame: bytes) -> None:
    try:
        batch = read_batch(frame)
    except ValueError:
        return
    assert write_batch(batch) == frame


def test_vectors_of_another_size_are_refused() -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert (read_vectors(matrix.tobytes(), 2, 3) == matrix).all()
    for rows, dimensions in ((3, 3), (2, 2), (1, 3)):
        with pytest.raises(ValueError, match="reshape"):
            read_vectors(matrix.tobytes(), rows, dimensions)
