"""Float text is the shortest that reads back as the same float32, in JSON's grammar."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrs import _fast
from tests.wire.oracles import decimal, numbers_in

FINITE_BITS = 0x7F800000
JSON_FRACTION = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+(e-?[0-9]+)?|e-?[0-9]+)")


def text_of(values):
    row = np.ascontiguousarray(values, np.float32).reshape(1, -1)
    return _fast.encode_rows(row, dimensions=row.size, normalize=False, prefix=b"", suffix=b"")


def bits_of(values):
    return np.asarray(values, np.float32).view(np.uint32)


def corner_cases():
    """Powers of two and their neighbours, all small subnormals, powers of ten, the largest floats."""
    powers = np.arange(1, 255, dtype=np.uint32) << 23
    subnormal = np.concatenate(
        [np.arange(3000, dtype=np.uint32), np.uint32(1) << np.arange(23, dtype=np.uint32)]
    )
    tens = bits_of(
        [float(f"{digits}e{power}") for power in range(-44, 38) for digits in ("1", "9.999999", "5")]
    )
    top = np.arange(FINITE_BITS - 100, FINITE_BITS, dtype=np.uint32)
    bits = np.concatenate([powers - 1, powers, powers + 1, subnormal, tens, tens + 1, tens - 1, top])
    return bits[bits < FINITE_BITS].view(np.float32)


def random_bits(count):
    return np.random.default_rng(7).integers(0, FINITE_BITS, count, np.uint32).view(np.float32)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    "values",
    [
        corner_cases(),
        random_bits(20000),
        np.random.default_rng(3).standard_normal(5000) * 0.05,
        np.random.default_rng(4).random(5000) * 10.0 ** np.arange(5000).__mod__(14),
        np.arange(0, 20000, 7.0),
    ],
    ids=["corners", "random-bits", "embedding", "magnitudes", "integers"],
)
def test_digits_are_numpys_shortest(kernels, values, sign):
    values = (np.asarray(values) * sign).astype(np.float32)
    texts = numbers_in(text_of(values))
    shortest = [np.format_float_scientific(value, unique=True, trim="-") for value in values]
    assert [decimal(text) for text in texts] == [decimal(text) for text in shortest]
    np.testing.assert_array_equal(bits_of([float(text) for text in texts]), values.view(np.uint32))
    assert all(JSON_FRACTION.fullmatch(text) for text in texts)


def test_text_is_no_longer_than_numpys(kernels):
    values = np.concatenate([corner_cases(), random_bits(20000), np.arange(1.0, 3e8, 99991)]).astype(
        np.float32
    )
    for text, value in zip(numbers_in(text_of(values)), values, strict=True):
        if value == 0 or 1e-3 <= value < 1e6:
            assert text == np.format_float_positional(value, unique=True, trim="0")
        else:
            assert len(text) <= len(np.format_float_scientific(value, unique=True, trim="-"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (-1.0, "-1.0"),
        (10.0, "10.0"),
        (0.1, "0.1"),
        (0.01, "0.01"),
        (0.001, "0.001"),
        (0.0001, "1e-4"),
        (0.00001, "1e-5"),
        (1.5e-7, "1.5e-7"),
        (123456.78, "123456.78"),
        (100000.0, "100000.0"),
        (1e6, "1e6"),
        (16777216.0, "1.6777216e7"),
        (2**31, "2.1474836e9"),
        (3.4028235e38, "3.4028235e38"),
        (1.1754944e-38, "1.1754944e-38"),
        (1e-45, "1e-45"),
    ],
)
def test_known_texts(kernels, value, text):
    assert text_of([value]) == f"[[{text}]]".encode()


@given(values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=200))
def test_any_values_survive_json(values):
    (row,) = json.loads(text_of(values))
    assert all(type(number) is float for number in row)
    np.testing.assert_array_equal(bits_of(row), bits_of(values))


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 127, 128, 129, 767, 768, 769, 1000])
def test_block_ends(kernels, count):
    values = random_bits(count)
    np.testing.assert_array_equal(bits_of([float(t) for t in numbers_in(text_of(values))]), bits_of(values))


def test_the_longest_texts_fit_the_allocation(kernels):
    """A body is allocated for the longest text of every number."""
    values = np.full((3, 1100), -1.17549435e-38, np.float32)
    body = _fast.encode_rows(values, dimensions=1100, normalize=False, prefix=b"<", suffix=b">")
    assert body == b"<[" + b",".join([b"[" + b",".join([b"-1.1754944e-38"] * 1100) + b"]"] * 3) + b"]>"
