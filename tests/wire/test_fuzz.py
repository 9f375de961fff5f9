"""Whatever arrives, a parser answers with a request or with a 4xx that quotes nothing of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmrs import wire
from llmrs.errors import ServiceError

LIMITS = wire.RequestLimits(max_inputs=8, empty_input="reject")
CANARY = "k4narie"

FIELDS = [
    "input",
    "model",
    "encoding_format",
    "dimensions",
    "input_type",
    "truncate",
    "texts",
    "inputs",
    "normalize",
    "normalize_embeddings",
    "batch_size",
    "prompt_name",
    "user",
]

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=True)
    | st.text(max_size=5)
    | st.sampled_from(["float", "base64", "query", "end", CANARY])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=10) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)
objects = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=4), values, max_size=6)


def outcome(parse, body):
    try:
        return parse(body, LIMITS)
    except ServiceError as error:
        return error


def check(parse, body):
    request = outcome(parse, body)
    if isinstance(request, ServiceError):
        assert request.status == 400
        assert CANARY.encode() not in wire.encode_error(request)
        return
    assert 1 <= len(request.inputs) <= 8
    for item in request.inputs:
        if type(item) is list:
            assert item
            assert all(type(number) is int and 0 <= number < 2**31 for number in item)
        else:
            assert type(item) is str
            item.encode()
    assert request.dimensions is None or (type(request.dimensions) is int and request.dimensions >= 1)
    assert request.truncate in (None, "cut", "none", "start", "end", "chunk_mean")


@pytest.mark.parametrize("parse", [wire.parse_openai, wire.parse_embed])
@settings(max_examples=300, deadline=None)
@given(body=st.binary(max_size=200))
@example(body=b"{" * 5000)
@example(body=b'{"input":"' + b"\\ud800" * 1000)
def test_random_bytes(parse, body):
    check(parse, body)


@pytest.mark.parametrize("parse", [wire.parse_openai, wire.parse_embed])
@settings(max_examples=200, deadline=None)
@given(value=objects, ascii_only=st.booleans())
def test_random_objects(parse, value, ascii_only):
    """NaN and Infinity literals included, and lone surrogates as escapes."""
    body = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    check(parse, body)


@pytest.mark.parametrize("parse", [wire.parse_openai, wire.parse_embed])
@settings(max_examples=200, deadline=None)
@given(value=objects, data=st.data())
def test_damaged_objects(parse, value, data):
    body = bytearray(json.dumps({"input": [CANARY], "texts": CANARY} | value).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body)))
        body[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b'"', b"\\u", b"\\ud83d", b"[", b"}", b",", b"1e999"])
        )
    check(parse, bytes(body))


@pytest.mark.parametrize("parse", [wire.parse_openai, wire.parse_embed])
@pytest.mark.parametrize(
    "body",
    [
        CANARY.encode(),
        f'{{"input":{CANARY}}}'.encode(),
        f'{{"{CANARY}":1}}'.encode(),
        f'{{"input":["x",{{"{CANARY}":1}}],"texts":{{"{CANARY}":1}}}}'.encode(),
        f'{{"input":"x","model":["{CANARY}"]}}'.encode(),
        f'{{"input":"x","encoding_format":"{CANARY}"}}'.encode(),
        f'{{"input":["{CANARY}\\ud800"],"texts":["{CANARY}\\ud800"]}}'.encode(),
        f'{{"input":["{CANARY}",1],"texts":["{CANARY}",1]}}'.encode(),
        f'{{"{CANARY}":1e999,"dimensions":1e999}}'.encode(),
    ],
)
def test_nothing_is_quoted(parse, body):
    assert isinstance(outcome(parse, body), ServiceError)
    check(parse, body)
