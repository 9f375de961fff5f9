"""Other numbers than float32 in answers, against NumPy: exact bytes, rounding, saturation, refusals."""

from __future__ import annotations

import base64
import json
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from llmrs import _fast, wire
from llmrs.errors import InvalidRequest, NonFiniteEmbedding
from llmrs.fields import OUTPUT_DTYPES
from tests.wire.oracles import matrix_of, packed
from tests.wire.variants import EVERY_VARIANT

DTYPES = ["float16", "int8", "uint8", "binary", "ubinary"]
BITS = ["binary", "ubinary"]
BYTES = ["int8", "uint8"]
NUMPY = {"float16": "<f2", "int8": np.int8, "uint8": np.uint8, "binary": np.int8, "ubinary": np.uint8}
HALVES = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
HALVES = HALVES[np.isfinite(HALVES)]


def rows_of(matrix, dtype, *, dimensions=None, normalize=False, form="base64"):
    """What an answer has in place of each row, as NumPy arrays of the dtype."""
    body = _fast.encode_openai(
        matrix,
        dimensions=dimensions or matrix.shape[1],
        normalize=normalize,
        base64=form == "base64",
        model_json=b'"m"',
        n_tokens=1,
        dtype=dtype,
    )
    answer = json.loads(body)
    assert answer["output_dtype"] == dtype
    rows = [item["embedding"] for item in answer["data"]]
    if form == "base64":
        rows = [np.frombuffer(base64.b64decode(row, validate=True), NUMPY[dtype]) for row in rows]
    elif dtype != "float16":
        assert all(type(number) is int for row in rows for number in row)
    # A half's text is that of its value as a float32.
    return np.array(rows, np.float32 if dtype == "float16" else NUMPY[dtype]).astype(NUMPY[dtype])


def assert_packed(matrix, dtype, **options):
    """The answer is what NumPy makes of the float32 answer."""
    expected = packed(matrix, dtype)
    for form in ("base64", "text"):
        found = rows_of(matrix, dtype, form=form, **options)
        assert found.dtype == expected.dtype
        assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [8, 16, 24, 56, 64, 248, 256, 264, 384, 1024, 1528, 1536, 1544, 3104])
def test_every_width(kernels, width, dtype):
    assert_packed(matrix_of(width, 3, width, 0.4), dtype)


@pytest.mark.parametrize("dtype", ["float16", "int8", "uint8"])
@pytest.mark.parametrize("width", [1, 2, 3, 5, 7, 15, 17, 33, 63, 65, 1535, 1537])
def test_widths_that_are_no_whole_bytes_of_bits(kernels, width, dtype):
    assert_packed(matrix_of(width, 2, width, 0.4), dtype)


@given(
    data=st.data(),
    dtype=st.sampled_from(DTYPES),
    count=st.integers(1, 5),
    width=st.integers(1, 70),
    variant=st.sampled_from(EVERY_VARIANT),
)
def test_any_numbers(data, dtype, count, width, variant):
    """Of any size, subnormal ones and zeros of both signs included."""
    width = 8 * width if dtype in BITS else width
    largest = 65519.99609375 if dtype == "float16" else float(np.finfo(np.float32).max)
    numbers = st.floats(-largest, largest, width=32)
    matrix = data.draw(arrays.arrays(np.float32, (count, width), elements=numbers))
    before = _fast.kernel_name()
    _fast.use_kernels(variant)
    try:
        assert_packed(matrix, dtype)
    finally:
        _fast.use_kernels(before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dimensions", [8, 200, 384, 1600])
def test_it_is_made_of_what_the_float32_answer_has(kernels, dimensions, dtype):
    """First the cut, then the length of 1, then the smaller numbers: `numpy.rint(x * 127)` and so on."""
    matrix = matrix_of(dimensions, 4, 1600, 30.0)
    expected = packed(_fast.normalize_rows(matrix, dimensions), dtype)
    for form in ("base64", "text"):
        found = rows_of(matrix, dtype, dimensions=dimensions, normalize=True, form=form)
        assert found.tobytes() == expected.tobytes()


def test_every_half_comes_back(kernels):
    assert_packed(HALVES.astype(np.float32)[None], "float16")
    found = rows_of(HALVES.astype(np.float32)[None], "float16", form="text")
    assert found.tobytes() == HALVES.tobytes()


def test_numbers_between_halves_go_to_the_nearest_and_ties_to_the_even_one(kernels):
    halves = np.sort(np.unique(HALVES.astype(np.float32)))
    middles = (halves[1:] + halves[:-1]) / 2  # exact in float32
    for numbers in (middles, np.nextafter(middles, np.float32(0)), np.nextafter(middles, np.float32(1e9))):
        assert_packed(numbers[None], "float16")
    down, up = np.float32(1 + 2**-11), np.float32(1 + 3 * 2**-11)
    assert rows_of(np.array([[down, up]]), "float16").tolist() == [[1.0, 1 + 2**-9]]
    assert rows_of(np.array([[2**-25, 3 * 2**-25]], np.float32), "float16").tolist() == [[0.0, 2**-23]]


@pytest.mark.parametrize("form", ["base64", "text"])
@pytest.mark.parametrize("number", [65520, -65520, 1e5, 3.4e38])
def test_a_number_beyond_float16_is_refused(kernels, number, form):
    matrix = matrix_of(1, 3, 1600)
    for place in (0, 700, 1599):
        matrix[1] = 65519.0
        rows_of(matrix, "float16", form=form)
        matrix[1, place] = number
        with pytest.raises(InvalidRequest, match="index 1 has a number beyond float16's 65504") as caught:
            rows_of(matrix, "float16", form=form)
        assert caught.value.param == "output_dtype"
        rows_of(matrix, "float16", form=form, normalize=True)


def test_bytes_are_rounded_to_the_nearest_and_ties_to_the_even_one(kernels):
    numbers = np.array([[0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, -126.5]], np.float32) / np.float32(127)
    products = numbers * np.float32(127)
    assert products.tolist() == [[0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, -126.5]]
    assert rows_of(numbers, "int8").tolist() == [[0, 2, 2, 0, -2, -2, 126, -126]]
    assert rows_of(numbers, "uint8").tolist() == [[128, 130, 130, 128, 126, 126, 254, 2]]


def test_bytes_saturate(kernels):
    numbers = np.array([[1.0, -1.0, 1.0000001, -1.5, 3e38, -3e38, 0.0, -0.0, 1e-45]], np.float32)
    assert rows_of(numbers, "int8").tolist() == [[127, -127, 127, -127, 127, -127, 0, 0, 0]]
    assert rows_of(numbers, "uint8").tolist() == [[255, 1, 255, 1, 255, 1, 128, 128, 128]]


def test_bits_are_packed_from_the_highest_and_zero_is_not_above_zero(kernels):
    numbers = np.array(
        [[1.0, -1.0, 0.0, -0.0, 1e-45, -1e-45, -2.0, 3.0, *[1.0] * 8, *[-1.0] * 8]], np.float32
    )
    assert rows_of(numbers, "ubinary").tolist() == [[0b10001001, 255, 0]]
    assert rows_of(numbers, "binary").tolist() == [[0b10001001 - 128, 127, -128]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_vectors(kernels, dtype):
    zeros = np.zeros((2, 16), np.float32)
    for form in ("base64", "text"):
        assert rows_of(zeros, dtype, normalize=True, form=form).tobytes() == packed(zeros, dtype).tobytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_that_is_not_finite_is_named(kernels, dtype, bad):
    for place in (0, 5, 1599):
        matrix = matrix_of(place, 3, 1600)
        matrix[2, place] = bad
        for form in ("base64", "text"):
            for normalize in (True, False):
                with pytest.raises(NonFiniteEmbedding, match=r"index 2$"):
                    rows_of(matrix, dtype, normalize=normalize, form=form)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_large_matrix_is_written_without_the_gil(dtype):
    """Threads that write the same matrix at the same time get the same numbers."""
    matrix = matrix_of(1, 300, 384)
    expected = packed(_fast.normalize_rows(matrix, 384), dtype).tobytes()
    found = []

    def write():
        found.append(rows_of(matrix, dtype, normalize=True).tobytes())

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


@pytest.mark.parametrize("dtype", BITS)
def test_bits_need_whole_bytes(dtype):
    with pytest.raises(ValueError, match="multiple of 8, not 12"):
        rows_of(np.ones((1, 16), np.float32), dtype, dimensions=12)


@pytest.mark.parametrize("dtype", ["float64", "", "Int8"])
def test_an_unknown_dtype_is_refused(dtype):
    with pytest.raises(KeyError):
        rows_of(np.ones((1, 8), np.float32), dtype)


def test_the_kernels_know_the_names_of_the_wire():
    for dtype in OUTPUT_DTYPES:
        assert wire.encode_tei(np.ones((1, 8), np.float32), dimensions=None, normalize=True, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bodies_of_embed(dtype):
    matrix = matrix_of(5, 3, 24, 0.2)
    expected = packed(matrix[:, :16], dtype).tolist()
    tei = json.loads(wire.encode_tei(matrix, dimensions=16, normalize=False, dtype=dtype))
    legacy = json.loads(wire.encode_legacy(matrix, dimensions=16, normalize=False, model="m", dtype=dtype))
    assert np.array_equal(np.float32(tei), np.float32(expected))
    assert np.array_equal(np.float32(legacy["vectors"]), np.float32(expected))
    assert legacy["vector_dim"] == len(expected[0])


def test_answers_of_float32_say_nothing_about_it():
    body = wire.encode_openai(
        np.ones((1, 8), np.float32), dimensions=None, normalize=True, base64=True, model="m", n_tokens=1
    )
    assert b"output_dtype" not in body
