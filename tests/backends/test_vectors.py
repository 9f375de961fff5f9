"""Upstream bodies by the kernels, against the plain way: the same numbers, or UpstreamError."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmrs.backends import vectors
from llmrs.backends.protocols import TEI, Embed, Ollama, OpenAI
from llmrs.errors import UpstreamError

from .services.vectors import as_base64

PROTOCOL = OpenAI("m")


class Data(msgspec.Struct):
    embedding: str | list[float | None]
    index: int | str | None = None


class Answer(msgspec.Struct):
    data: list[Data]
    usage: Any = None


def by_the_book(body, count):
    """A matrix by declared types, Python floats and numpy.array; None where a body is refused."""
    try:
        answer = msgspec.json.decode(body, type=Answer)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        if b"NaN" not in body and b"Infinity" not in body:
            return None
        try:
            answer = msgspec.convert(json.loads(body), Answer)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
    numbers = by_number([item.index for item in answer.data])
    if sorted(numbers) != list(range(count)):
        return None
    rows = [item.embedding for _, item in sorted(zip(numbers, answer.data, strict=True), key=lambda x: x[0])]
    try:
        rows = [
            np.frombuffer(base64.b64decode(row, validate=True), "<f4") if isinstance(row, str) else row
            for row in rows
        ]
    except ValueError:
        return None
    if len({len(row) for row in rows}) != 1 or not len(rows[0]):
        return None
    with np.errstate(over="ignore"):
        return np.array(rows, np.float32)


def by_number(numbers):
    """What `index` means: text is read, one that is missing is 0, of rows without any position counts."""
    if all(number is None for number in numbers):
        return list(range(len(numbers)))
    if any(isinstance(number, str) and not re.fullmatch("[0-9]{1,9}", number) for number in numbers):
        return []
    return [int(number or 0) for number in numbers]


def by_the_protocol(body, count):
    try:
        return PROTOCOL.read(body, {}, count).matrix
    except UpstreamError:
        return None


def assert_same(body, count):
    found, expected = by_the_protocol(body, count), by_the_book(body, count)
    assert (found is None) == (expected is None)
    if found is not None:
        # Infinity, which is not JSON, may have become NaN: the server refuses both.
        finite = np.isfinite(expected)
        assert np.array_equal(np.isfinite(found), finite)
        assert np.array_equal(found[finite], expected[finite])


def body_of(rows, dumps=json.dumps):
    body = {"object": "list", "data": [{"index": i, "embedding": row} for i, row in enumerate(rows)]}
    text = dumps(body | {"usage": {"prompt_tokens": 3}})
    return text if isinstance(text, bytes) else text.encode()


WRITERS = [
    json.dumps,
    orjson.dumps,
    msgspec.json.encode,
    lambda body: json.dumps(body, indent=1),
    lambda body: json.dumps(body, separators=(",", ":")),
    lambda body: json.dumps(body, separators=(" , ", "\t:\r\n")),
]

ANY = st.floats(allow_nan=False, allow_infinity=False)
USUAL = st.floats(-1, 1)
SINGLE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def matrices(draw, elements):
    width = draw(st.integers(1, 12))
    return draw(st.lists(st.lists(elements, min_size=width, max_size=width), min_size=1, max_size=4))


@given(matrices(st.one_of(ANY, USUAL, SINGLE)), st.sampled_from(WRITERS))
def test_any_doubles_by_any_writer(rows, dumps):
    body = body_of(rows, dumps)
    with np.errstate(over="ignore"):
        assert np.array_equal(PROTOCOL.read(body, {}, len(rows)).matrix, np.array(rows, np.float32))
    assert_same(body, len(rows))


@given(matrices(SINGLE), st.booleans(), st.sampled_from(["", "/", "+", "A=/+"]))
def test_base64_with_and_without_escapes(rows, mixed, escaped):
    """PHP writes a slash with a backslash before it, .NET a plus as a number."""
    texts = [row if mixed and i % 2 else as_base64(row) for i, row in enumerate(rows)]
    body = body_of(texts).decode()
    for letter in escaped:
        for text in texts:
            if isinstance(text, str):
                body = body.replace(text, text.replace(letter, f"\\u{ord(letter):04X}"), 1)
    assert np.array_equal(PROTOCOL.read(body.encode(), {}, len(rows)).matrix, np.array(rows, np.float32))


def test_a_slash_with_a_backslash():
    row = np.full(6, 0xFFFFFFFF, np.uint32).view(np.float32)
    body = body_of([base64.b64encode(row.tobytes()).decode()]).replace(b"/", rb"\/")
    assert PROTOCOL.read(body, {}, 1).matrix.tobytes() == row.tobytes()


SEEDS = [
    body_of([[0.5, -0.25, 1e-3], [1.0, 2.0, 3.5]]),
    body_of([as_base64([0.1] * 14), as_base64([-7.25] * 14)]),
    body_of([[1.0, None, 3.0], as_base64([1.0, 2.0, 3.0])], lambda body: json.dumps(body, indent=1)),
    body_of([[float("nan"), 1.0], [float("-inf"), 0.0]]),
]
WORDS = [b"null", b"NaN", b"-Infinity", b"1e999", b"-0", b"1e-400", b"16777217", b"[]", b"{}", b'""', b"true"]
BYTES = [bytes([byte]) for byte in b'0123456789.-+eE,[]{}"\\ \n:=/AZaznu\x00\x7f\x80\xff']
PIECES = st.sampled_from(WORDS + BYTES)


@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 3), PIECES), min_size=1, max_size=4),
)
@example(SEEDS[0], [(0.0, 0, b"\xef\xbb\xbf")])
def test_any_change_gives_the_same_numbers_or_an_error(body, changes):
    for where, removed, piece in changes:
        place = int(where * len(body))
        body = body[:place] + piece + body[place + removed :]
    assert_same(body, 2)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_byte_changed_and_every_cut(seed):
    for place in range(len(seed)):
        assert_same(seed[:place], 2)
        assert_same(seed[:place] + seed[place + 1 :], 2)
        for byte in b'0-.eE,[]" nA=+\\\xff':
            assert_same(seed[:place] + bytes([byte]) + seed[place + 1 :], 2)


@pytest.mark.parametrize("row", ["[1e39, 1.0]", "[16777217, 1.0]", "[1e-42, 1.0]", "[1e-400, -0.0]"])
def test_what_the_kernels_hand_back_is_read(row):
    body = b'{"data":[{"index":0,"embedding":%b}]}' % row.encode()
    assert_same(body, 1)
    assert by_the_protocol(body, 1) is not None


@pytest.mark.parametrize("row", ["[1e400, 1.0]", "[[1.0, 2.0]]", "[true, 1.0]", '["1", 2.0]', "1.0", "null"])
def test_what_is_no_vector_is_refused(row):
    body = b'{"data":[{"index":0,"embedding":%b}],"embeddings":[%b]}' % (row.encode(), row.encode())
    for protocol in (PROTOCOL, Embed(batch_size=1), Ollama("m")):
        with pytest.raises(UpstreamError):
            protocol.read(body, {}, 1)
    with pytest.raises(UpstreamError):
        TEI().read(b"[%b]" % row.encode(), {}, 1)


@pytest.mark.parametrize("protocol", [Embed(batch_size=1), TEI(), Ollama("m")])
def test_base64_is_no_vector_where_the_protocol_knows_none(protocol):
    rows = b'["%b"]' % as_base64([1.0]).encode()
    with pytest.raises(UpstreamError):
        protocol.read(rows if isinstance(protocol, TEI) else b'{"embeddings":%b}' % rows, {}, 1)


@pytest.mark.parametrize("dumps", WRITERS)
@pytest.mark.parametrize("base64", [True, False])
def test_what_backends_write_does_not_take_the_plain_way(monkeypatch, dumps, base64):
    def fail(*_args, **_kwargs):
        raise AssertionError("read the plain way")

    monkeypatch.setattr(vectors, "read_plainly", fail)
    matrix = np.random.default_rng(3).standard_normal((32, 384)).astype(np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    rows = [as_base64(row) for row in matrix.tolist()] if base64 else matrix.tolist()
    assert np.array_equal(PROTOCOL.read(body_of(rows, dumps), {}, 32).matrix, matrix)
