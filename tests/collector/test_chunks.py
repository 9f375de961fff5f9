"""The mean of chunks against the sum written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrs.chunks import gather, spread
from llmrs.embeddings import Prepared


def text(weights):
    """An input of chunks with these weights; of one that is none without."""
    chunks = tuple(Prepared(f"chunk {i}", weight + 2, weight=weight) for i, weight in enumerate(weights))
    return Prepared(None if chunks else "text", 3, chunks=chunks)


def test_inputs_without_chunks_are_left_alone():
    prepared = [text([]), text([])]
    matrix = np.ones((2, 3), np.float32)
    assert spread(prepared) is prepared
    assert gather(matrix, prepared, None, True) is matrix


def test_chunks_take_the_place_of_their_input_and_know_it():
    texts = spread([text([]), text([5, 2]), text([])])
    assert [(each.payload, each.owner) for each in texts] == [
        ("text", 0), ("chunk 0", 1), ("chunk 1", 1), ("text", 2),
    ]  # fmt: skip


@given(
    weights=st.lists(st.lists(st.integers(1, 500), max_size=6), min_size=1, max_size=6),
    scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e30]),
    width=st.sampled_from([None, 1, 3, 7]),
    normalize=st.booleans(),
    seed=st.integers(0, 100),
)
def test_it_is_the_weighted_mean_of_the_answers(weights, scale, width, normalize, seed):
    prepared = [text(each) for each in weights]
    count = len(spread(prepared))
    matrix = (np.random.default_rng(seed).standard_normal((count, 7)) * scale).astype(np.float32)
    found = gather(matrix, prepared, width, normalize)
    assert found.dtype == np.float32
    answers = matrix[:, :width].astype(np.longdouble)
    if normalize:
        answers = answers / np.sqrt((answers * answers).sum(axis=1, keepdims=True))
    row = 0
    for index, each in enumerate(weights):
        if each:
            expected = sum(weight * answers[row + i] for i, weight in enumerate(each)) / sum(each)
            atol = 1e-6 * (1 if normalize else scale)
            np.testing.assert_allclose(found[index, :width], expected.astype(float), rtol=1e-5, atol=atol)
        else:
            assert np.array_equal(found[index], matrix[row])
        row += len(each) or 1


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_chunk_that_is_not_finite_makes_its_input_so(bad, normalize):
    matrix = np.ones((4, 3), np.float32)
    matrix[2, 1] = bad
    found = gather(matrix, [text([1, 1]), text([1, 1])], None, normalize)
    assert np.isfinite(found[0]).all()
    assert not np.isfinite(found[1]).all()


def test_a_zero_vector_adds_nothing():
    matrix = np.array([[0, 0], [3, 4], [0, 0], [0, 0]], np.float32)
    found = gather(matrix, [text([1, 1]), text([1, 1])], None, True)
    np.testing.assert_allclose(found, [[0.3, 0.4], [0, 0]], rtol=1e-6)
