"""Whole bodies against NumPy and the standard library: shape, base64, normalization, refusals."""

from __future__ import annotations

import base64
import json
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrs import _fast
from llmrs.errors import NonFiniteEmbedding
from tests.wire.oracles import matrix_of, normalized, vectors_of
from tests.wire.variants import EVERY_VARIANT

MAX = np.float32(3.4028235e38)
TINY = np.float32(1e-45)


def body_of(matrix, dimensions=None, normalize=True, base64=True, n_tokens=0):
    return _fast.encode_openai(
        matrix,
        dimensions=dimensions or matrix.shape[1],
        normalize=normalize,
        base64=base64,
        model_json=b'"a/b"',
        n_tokens=n_tokens,
    )


def assert_close(found, exact):
    """Equal to the exact value rounded to float32, give or take one unit in the last place."""
    np.testing.assert_array_max_ulp(found, exact.astype(np.float32), maxulp=1)


@pytest.mark.parametrize("form", [True, False], ids=["base64", "float"])
@pytest.mark.parametrize("count", [1, 2, 9, 10, 11, 70, 101])
def test_the_body_is_the_schemas(kernels, count, form):
    matrix = matrix_of(count, count, 5)
    body = json.loads(body_of(matrix, normalize=False, base64=form, n_tokens=123456789012))
    rows = [item.pop("embedding") for item in body["data"]]
    assert body == {
        "object": "list",
        "data": [{"object": "embedding", "index": i} for i in range(count)],
        "model": "a/b",
        "usage": {"prompt_tokens": 123456789012, "total_tokens": 123456789012},
    }
    if form:
        assert rows == [base64.b64encode(row.tobytes()).decode() for row in matrix]
    else:
        assert np.array_equal(np.array(rows, np.float32), matrix)


@pytest.mark.parametrize("width", [*range(1, 140), 255, 256, 383, 384, 385, 1024, 1535, 1536, 1537, 3100])
def test_base64_of_every_width(kernels, width):
    matrix = matrix_of(width, 2, width)
    expected = [base64.b64encode(row.tobytes()).decode() for row in matrix]
    assert [item["embedding"] for item in json.loads(body_of(matrix, normalize=False))["data"]] == expected


@pytest.mark.parametrize("byte", range(256))
def test_base64_of_every_byte(byte):
    """Each byte value at each of the twelve places of a group, on all variants."""
    rows = np.full((12, 48 * 3), 0x3F, np.uint8)
    for place in range(12):
        rows[place, place::12] = byte
    matrix = rows.view("<f4")
    if not np.isfinite(matrix).all():
        matrix = matrix[np.isfinite(matrix).all(axis=1)]
    expected = [base64.b64encode(row.tobytes()).decode() for row in matrix]
    before = _fast.kernel_name()
    for name in EVERY_VARIANT:
        _fast.use_kernels(name)
        assert [x["embedding"] for x in json.loads(body_of(matrix, normalize=False))["data"]] == expected
    _fast.use_kernels(before)


@given(
    count=st.integers(1, 30),
    width=st.integers(1, 3200),
    cut=st.integers(0, 3199),
    scale=st.sampled_from([1e-42, 1e-30, 1e-3, 1.0, 1e10, 1e37]),
    seed=st.integers(0, 1000),
)
def test_normalization_is_numpys(count, width, cut, scale, seed):
    dimensions = max(1, width - cut)
    matrix = matrix_of(seed, count, width, scale)
    found = vectors_of(body_of(matrix, dimensions))
    assert found.shape == (count, dimensions)
    assert_close(found, normalized(matrix, dimensions))
    assert np.array_equal(found, _fast.normalize_rows(matrix, dimensions))


@pytest.mark.parametrize("width", [1, 2, 3, 15, 16, 17, 31, 64, 100, 384, 1024, 1536, 1537, 3072, 3100])
def test_variants_and_forms_agree(width):
    """The same bits from every variant, as base64, as text and as a matrix."""
    matrix = matrix_of(width, 3, width)
    before = _fast.kernel_name()
    found = []
    for name in EVERY_VARIANT:
        _fast.use_kernels(name)
        found += [vectors_of(body_of(matrix, base64=form)) for form in (True, False)]
        found.append(_fast.normalize_rows(matrix, width))
    _fast.use_kernels(before)
    assert len({vectors.tobytes() for vectors in found}) == 1
    assert_close(found[0], normalized(matrix, width))


@pytest.mark.parametrize(
    "row",
    [
        [MAX] * 3100,
        [MAX, -MAX, MAX],
        [TINY] * 7,
        [TINY, -TINY, 0.0],
        [MAX, TINY],
        [1e-45, 1e-38, 1e-30],
        [-0.0, 2.0],
        [1.0],
        [-5e-20],
    ],
)
def test_extreme_vectors_become_unit_vectors(kernels, row):
    matrix = np.array([row], np.float32)
    found = vectors_of(body_of(matrix))
    assert_close(found, normalized(matrix, matrix.shape[1]))
    assert abs(np.linalg.norm(found.astype(np.float64)) - 1) < 1e-6
    assert np.array_equal(np.signbit(found), np.signbit(matrix))


def test_a_zero_vector_stays_zero(kernels):
    matrix = np.array([[0.0, 0.0, 0.0, 1.0], [-0.0, 0.0, -0.0, 0.0]], np.float32)
    assert np.array_equal(vectors_of(body_of(matrix, 3)), np.zeros((2, 3)))
    assert np.array_equal(vectors_of(body_of(matrix, 3, base64=False)), np.zeros((2, 3)))
    assert np.array_equal(_fast.normalize_rows(matrix, 3), np.zeros((2, 3)))


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("width", [1, 16, 17, 100])
def test_a_row_that_is_not_finite_is_named(kernels, width, normalize, bad):
    for place in range(width):
        matrix = matrix_of(place, 4, width)
        matrix[2, place] = bad
        for form in (True, False):
            with pytest.raises(NonFiniteEmbedding, match=r"index 2$"):
                body_of(matrix, normalize=normalize, base64=form)
    with pytest.raises(NonFiniteEmbedding, match=r"index 2$"):
        _fast.normalize_rows(matrix, width)


def test_what_is_cut_off_is_not_looked_at(kernels):
    matrix = np.array([[3.0, 4.0, np.nan]], np.float32)
    assert vectors_of(body_of(matrix, 2)).tolist() == np.array([[0.6, 0.8]], np.float32).tolist()


@pytest.mark.parametrize("form", [True, False], ids=["base64", "float"])
def test_a_large_matrix_is_written_without_the_gil(form):
    """Threads that write the same matrix at the same time get the same body."""
    matrix = matrix_of(1, 300, 384)
    expected = body_of(matrix, base64=form)
    found = []
    threads = [threading.Thread(target=lambda: found.append(body_of(matrix, base64=form))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4
    assert_close(vectors_of(expected), normalized(matrix, 384))


def test_rows_are_framed(kernels):
    matrix = np.array([[1.0, 2.0], [0.5, -0.25]], np.float32)
    body = _fast.encode_rows(matrix, dimensions=2, normalize=False, prefix=b'{"vectors":', suffix=b"}")
    assert body == b'{"vectors":[[1.0,2.0],[0.5,-0.25]]}'


def test_normalize_rows_leaves_its_argument_alone():
    matrix = np.array([[3.0, 4.0, 12.0]], np.float32)
    found = _fast.normalize_rows(matrix, 2)
    assert matrix.tolist() == [[3.0, 4.0, 12.0]]
    assert found.dtype == np.float32
    assert found.flags.c_contiguous


def test_a_read_only_matrix_will_do():
    matrix = np.array([[3.0, 4.0]], np.float32)
    matrix.flags.writeable = False
    assert vectors_of(body_of(matrix)).shape == (1, 2)


@pytest.mark.parametrize(
    ("matrix", "error"),
    [
        (np.zeros((2, 3), np.float64), ValueError),
        (np.zeros((2, 3), np.int32), ValueError),
        (np.zeros((2, 3), ">f4"), ValueError),
        (np.zeros((2, 3), np.float16), ValueError),
        (np.zeros((3, 2), np.float32).T, ValueError),
        (np.zeros((2, 6), np.float32)[:, ::2], ValueError),
        (np.zeros(3, np.float32), ValueError),
        (np.zeros((1, 2, 3), np.float32), ValueError),
        (np.zeros((0, 3), np.float32), ValueError),
        (np.zeros((3, 0), np.float32), ValueError),
        (np.float32(1), ValueError),
        (bytearray(12), ValueError),
        ([[1.0, 2.0]], TypeError),
        (None, TypeError),
        ("text", TypeError),
    ],
)
def test_what_is_no_matrix_is_refused(matrix, error):
    with pytest.raises(error):
        _fast.encode_openai(matrix, dimensions=1, normalize=True, base64=True, model_json=b'"m"', n_tokens=1)
    with pytest.raises(error):
        _fast.encode_rows(matrix, dimensions=1, normalize=True, prefix=b"", suffix=b"")
    with pytest.raises(error):
        _fast.normalize_rows(matrix, 1)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"dimensions": 0}, ValueError),
        ({"dimensions": -1}, ValueError),
        ({"dimensions": 4}, ValueError),
        ({"dimensions": 2.0}, TypeError),
        ({"dimensions": None}, TypeError),
        ({"n_tokens": -1}, ValueError),
        ({"n_tokens": "1"}, TypeError),
        ({"model_json": "m"}, TypeError),
        ({"model_json": None}, TypeError),
    ],
)
def test_wrong_options_are_refused(change, error):
    options = {"dimensions": 3, "normalize": True, "base64": True, "model_json": b'"m"', "n_tokens": 1}
    with pytest.raises(error):
        _fast.encode_openai(np.ones((2, 3), np.float32), **options | change)


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="not in list"):
        _fast.use_kernels("none")
