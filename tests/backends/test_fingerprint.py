"""Whether two backends serve the same model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrs.backends.fingerprint import SAME, TEXTS, agreeing, difference, elect, fingerprint
from llmrs.errors import UpstreamError

rng = np.random.default_rng(7)


def model(width=64):
    return fingerprint(rng.standard_normal((len(TEXTS), width)).astype(np.float32))


A, B, C = model(), model(), model()


def in_bfloat16(matrix):
    return (matrix.view(np.uint32) & 0xFFFF0000).view(np.float32)


def test_lengths_and_rounding_make_no_difference():
    assert difference(A, fingerprint(A * 7)) is None
    assert difference(A, fingerprint(in_bfloat16(A))) is None


def test_another_model():
    assert "cosine" in difference(A, B)
    assert difference(model(32), A) == "32 dimensions instead of 64"


def test_one_text_that_differs_is_enough():
    changed = A.copy()
    changed[3] = B[3]
    assert "cosine" in difference(A, changed)


def test_coarse_weights_are_another_model():
    noisy = fingerprint(A + 0.19 / 8 * rng.standard_normal(A.shape).astype(np.float32))
    assert 0.9 < float((A * noisy).sum(1).min()) < SAME
    assert difference(A, noisy)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_vectors_without_a_direction(bad):
    matrix = A.copy()
    matrix[2] = bad
    with pytest.raises(UpstreamError, match="zero or not finite"):
        fingerprint(matrix)


@pytest.mark.parametrize(
    ("prints", "elected"),
    [
        ([None, None], None),
        ([None, B], 1),
        ([A, B], 0),
        ([A, None, None], 0),
        ([A, B, None], 0),
        ([A, B, B], 1),
        ([A, B, C], 0),
        ([A, B, A], 0),
        ([A, A, B, B], 0),  # no majority
        ([None, A, B, B], 1),
        ([A, B, B, B], 1),
        ([None, B, B], 1),
    ],
)
def test_whose_vectors_are_the_standard(prints, elected):
    assert elect(prints) == elected


@given(st.lists(st.sampled_from([None, A, B, C]), min_size=2, max_size=7))
def test_a_majority_of_three_or_more_is_always_followed(prints):
    elected = elect(prints)
    assert (elected is None) == all(each is None for each in prints)
    for each in (A, B, C) if len(prints) >= 3 else ():
        if sum(found is each for found in prints) * 2 > len(prints):
            assert prints[elected] is each
    if elected is not None:
        assert agreeing(prints, elected) == [i for i, p in enumerate(prints) if p is prints[elected]]
