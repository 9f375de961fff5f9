"""JSON texts of vectors to a float32 matrix, on every kernel variant, against the standard library.

What the kernel hands back (None) is never wrong, but slow: so there are tests that it gives the
oracle's numbers or none, and tests that it reads what backends write.
"""

from __future__ import annotations

import base64
import ctypes
import json
import mmap
import random
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrs import _fast
from tests.wire.oracles import matrix_of
from tests.wire.variants import EVERY_VARIANT

TINY = np.finfo(np.float32).tiny
"""The smallest normal float32."""


def read(*rows, strings=True):
    return _fast.read_vectors(tuple(rows), strings=strings)


def as_string(vector):
    return b'"%b"' % base64.b64encode(vector.tobytes())


def read_on_all(row):
    """What every variant makes of one row: the numbers' bits, or None."""
    before = _fast.kernel_name()
    found = []
    for name in EVERY_VARIANT:
        _fast.use_kernels(name)
        matrix = read(row)
        found.append(None if matrix is None else matrix.view(np.uint32)[0].tolist())
    _fast.use_kernels(before)
    assert all(each == found[0] for each in found)
    return found[0]


def bits(numbers):
    with np.errstate(over="ignore"):
        return np.array(numbers, np.float32).view(np.uint32).tolist()


# -- base64 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [*range(1, 140), 383, 384, 385, 768, 1024, 1099])
def test_base64_of_every_width(kernels, width):
    matrix = np.random.default_rng(width).integers(0, 2**32, (3, width), np.uint32).view(np.float32)
    found = read(*map(as_string, matrix))
    assert (found.dtype, found.flags.c_contiguous, found.flags.writeable) == (np.float32, True, True)
    assert found.tobytes() == matrix.tobytes()


@pytest.mark.parametrize("width", [1, 2, 3, 20, 33])
def test_every_byte_at_every_place(kernels, width):
    """The oracle is strict: no other letter, no white space, padding only where it belongs."""
    text = base64.b64encode(matrix_of(width, 1, width).tobytes())
    for place in range(len(text)):
        for byte in range(256):
            changed = text[:place] + bytes([byte]) + text[place + 1 :]
            try:
                expected = base64.b64decode(changed, validate=True)
            except ValueError:
                expected = b""
            found = read(b'"%b"' % changed)
            if not expected or len(expected) % 4:
                assert found is None, changed
            else:
                assert found.tobytes() == expected


@pytest.mark.parametrize("width", [1, 2, 3, 30])
def test_a_base64_text_has_one_length(kernels, width):
    text = base64.b64encode(matrix_of(width, 1, width).tobytes())
    wrong = [
        text[:-1],
        text + b"=",
        text + b"====",
        text[:-2],
        b"====" + text,
        text[:-4],
        text + b" ",
        b" " + text,
    ]
    for changed in wrong:
        if len(changed) == len(text) - 4 and len(base64.b64decode(changed)) % 4 == 0:
            continue
        assert read(b'"%b"' % changed) is None, changed


def test_strings_only_where_they_are_meant(kernels):
    row = as_string(np.float32([1.0]))
    assert read(row, strings=False) is None
    assert read(b"[1.0]", row, strings=False) is None
    assert read(b"[1.0]", row).tolist() == [[1.0], [1.0]]
    assert read(row, b"[1.0]").tolist() == [[1.0], [1.0]]


# -- numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        "[1]",
        "[0]",
        "[-0]",
        "[0.0,-0.0,0e5,0.000,-0E-99999999999]",
        "[1.5,-2.25,1e3,1E3,1e+3,1e-3,-12.5e-1]",
        "[ 1 , 2\t,\r\n3 ]",
        "[null]",
        "[1,null,2]",
        "[10,100,123456789,12345678901234567890,123456789012345678901234567890.5]",
        "[0.1,0.12,0.123,0.1234567,0.12345678,0.123456789,0.1234567890123456,0.12345678901234567]",
        "[0.000000012345678901234567,0.0000000000000000000123456]",
        "[0.12345678901234567890123456789,0.00012345678901234567890123456789]",
        "[3.4028235e38,-3.4028234e38,1.1754944e-38,1.2e-38]",
        "[16777216,16777218,33554434.0000001]",
        "[1" + "0" * 30 + "e-30,0." + "0" * 30 + "1e31]",
    ],
)
def test_numbers(kernels, row):
    expected = [np.nan if x is None else float(x) for x in json.loads(row, parse_int=float)]
    assert read(row.encode()).view(np.uint32)[0].tolist() == bits(expected)


NO_NUMBERS = """
[ ] [] [[ ]] {} null true 1 [,] [1,] [,1] [1,,2] [1;2] [1 1] [1]] [[1]] [1]x [1,null [1,2"
[01] [-01] [00] [+1] [.5] [-.5] [1.] [1.e5] [-] [--1] [1e] [1e+] [1,-] [1,e5] [1.0,2.0e]
[1.5.5] [1e5e5] [1e5.5] [0x10] [1_0] [1f] [NaN] [Infinity] [-Infinity] [true] [false] [１]
[nul] [nulll] [null1] [-null] [NULL] ["1"] [{}] " "" "=" "====" "AAAA] "AAAAAA==
"""
NOR_WITH_SPACES = ["", "[ ]", "[1 2]", "[1] ", " [1]", "[1\v]", "[1,2\0]", "[1\xa0]"]


@pytest.mark.parametrize("row", NO_NUMBERS.split() + NOR_WITH_SPACES)
def test_what_is_no_array_of_numbers_is_handed_back(kernels, row):
    assert read(row.encode()) is None


@pytest.mark.parametrize(
    "number",
    [
        "1e39",
        "-1e39",
        "1e999",
        "3.4028236e38",
        "1e-39",
        "1e-400",
        "1e-45",
        "16777217",
        "33554434.0"[:-2] + ".0",
    ],
)
def test_what_is_hard_to_round_is_handed_back_or_right(kernels, number):
    found = read(b"[%b]" % number.encode())
    assert found is None or found.view(np.uint32)[0].tolist() == bits([float(number)])
    if number != "33554434.0":
        assert found is None


def test_rows_of_one_width(kernels):
    assert read(b"[1,2]", b"[1,2,3]") is None
    assert read(b"[1,2,3]", b"[1,2]") is None
    assert read(b"[1,2,3]", b"[1,2    ]") is None
    assert read(b"[1,2]", as_string(np.float32([1, 2, 3]))) is None
    assert read(as_string(np.float32([1, 2, 3])), b"[1,2]") is None
    assert read() is None


def test_no_memory_is_asked_for_that_the_text_does_not_pay_for(kernels):
    """A first row of millions of commas must not make every row as wide."""
    assert read(b"[1" + b",1" * 5_000_000 + b"]", *[b"[1]"] * 10_000) is None


@pytest.mark.parametrize("rows", [[b"[1]"], (5,), ("[1]",), (None,), None])
def test_what_has_no_bytes_is_refused(rows):
    with pytest.raises(TypeError):
        _fast.read_vectors(rows, strings=True)
    with pytest.raises(TypeError):
        _fast.read_vectors((b"[1]", 7), strings=True)


def numbers_of(seed, count):
    """Random bits that are normal float32 numbers."""
    found = np.random.default_rng(seed).integers(0, 2**32, count, np.uint32).view(np.float32)
    return found[np.isfinite(found) & (np.abs(found) >= TINY)]


WRITERS = {
    "repr": repr,
    "9g": "{:.9g}".format,
    "17g": "{:.17g}".format,
    "17e": "{:.17e}".format,
    "25e": "{:.25e}".format,
    "20f": "{:.20f}".format,
    "float32": lambda x: str(np.float32(x)),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_an_embedding_is_read_and_not_handed_back(kernels, write):
    texts = [write(x / 20) for x in matrix_of(8, 1, 20_000)[0].tolist()]
    found = read(f"[{', '.join(texts)}]".encode())
    assert found.view(np.uint32)[0].tolist() == bits([float(text) for text in texts])


@pytest.mark.parametrize("write", [WRITERS["repr"], WRITERS["9g"], WRITERS["25e"], WRITERS["float32"]])
def test_of_all_normal_floats_hardly_one_is_handed_back(write):
    """The shortest text of a large one may be the middle between two."""
    texts = [write(x) for x in numbers_of(7, 10_000).tolist()]
    found = [read(f"[{text}]".encode()) for text in texts]
    assert sum(matrix is None for matrix in found) < len(texts) / 500
    for text, matrix in zip(texts, found, strict=True):
        assert matrix is None or matrix.view(np.uint32)[0].tolist() == bits([float(text)]), text


DIGITS = st.text("0123456789", min_size=1, max_size=45)


@st.composite
def decimals(draw):
    whole = draw(DIGITS).lstrip("0") or "0"
    fraction = draw(st.one_of(st.just(""), DIGITS.map(".{}".format)))
    exponent = draw(st.one_of(st.just(""), st.integers(-80, 60).map("e{}".format)))
    return draw(st.sampled_from(["", "-"])) + whole + fraction + exponent


@given(st.lists(decimals(), min_size=1, max_size=4))
def test_any_decimal_is_rounded_right_or_handed_back(texts):
    found = read_on_all(f"[{','.join(texts)}]".encode())
    assert found is None or found == bits([float(text) for text in texts])


def test_around_the_middle_between_two_floats():
    """Where rounding is hardest: within a few units of a double's last place, and to many digits."""
    rng = random.Random(11)
    for _ in range(20_000):
        low = rng.randrange(1, 0x7F7FFFFF)
        middle = sum(struct.unpack("<ff", struct.pack("<II", low, low + 1))) / 2
        near = middle + rng.randrange(-3, 4) * np.spacing(middle)
        text = rng.choice([repr(float(near)), f"{near:.30e}", f"{near:.15e}", f"{near:.60g}"])
        found = read_on_all(f"[{text}]".encode())
        assert found is None or found == bits([float(text)]), text


SPACES = st.text(" \t\r\n", max_size=3)


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40),
    st.sampled_from([repr, lambda x: str(np.float32(x))]),
    SPACES,
    SPACES,
)
def test_any_float32_survives_or_is_handed_back(values, write, before, after):
    row = "[" + ",".join(before + write(value) + after for value in values) + "]"
    found = read_on_all(row.encode())
    assert found == bits(values) or (
        found is None and any(0 < abs(value) <= TINY or abs(value) > 2**24 for value in values)
    )


@given(st.lists(st.floats(width=32, allow_nan=True), min_size=1, max_size=70))
def test_any_vector_survives_base64(values):
    vector = np.array(values, np.float32)
    assert read_on_all(as_string(vector)) == vector.view(np.uint32).tolist()


@given(st.binary(max_size=300), st.sampled_from([b"%b", b"[%b]", b'"%b"', b"[1,%b]"]))
def test_any_bytes_at_all(junk, frame):
    read_on_all(frame % junk)


@given(st.text('0123456789.eE+-, nul[]"', max_size=80))
def test_what_looks_like_numbers_is_read_as_json_does_or_not_at_all(text):
    row = f"[{text}]".encode()
    found = read_on_all(row)
    if found is not None:
        expected = json.loads(row, parse_int=float)
        assert found == bits([np.nan if x is None else x for x in expected])


# -- the edges of memory ----------------------------------------------------------------------------


@pytest.fixture
def last_bytes():
    """A function that puts bytes right before a page that may not be read."""
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 2 * page)
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    anchor = ctypes.c_char.from_buffer(memory)
    guard = ctypes.addressof(anchor) + page
    assert protect(guard, page, 0) == 0

    def put(text):
        memory[page - len(text) : page] = text
        return memoryview(memory)[page - len(text) : page]

    yield put
    protect(guard, page, mmap.PROT_READ | mmap.PROT_WRITE)
    del anchor


@pytest.mark.parametrize("width", [*range(1, 40), 127, 128])
def test_nothing_is_read_beyond_the_text(kernels, width, last_bytes):
    """This process would end by a signal."""
    vector = matrix_of(width, 1, width)
    assert read(last_bytes(as_string(vector[0]))).tobytes() == vector.tobytes()
    for row in (
        b"[%b]" % b",".join(b"%.9g" % x for x in vector[0].tolist()),
        b"[" + b"1," * (width - 1) + b"0.12345678]",
        b"[" + b"1," * (width - 1) + b"null]",
    ):
        for end in range(1, min(len(row), 40)):
            assert read(last_bytes(row[:-end])) is None
        assert read(last_bytes(row)).shape == (1, width)
