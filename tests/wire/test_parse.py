"""Bodies to requests, to the letter of the HTTP contract."""

from __future__ import annotations

import json

import pytest

from llmrs import wire
from llmrs.errors import InvalidJson, InvalidRequest, TooManyInputs
from llmrs.fields import OUTPUT_DTYPES

LIMITS = wire.RequestLimits(max_inputs=4)
REJECT_EMPTY = wire.RequestLimits(max_inputs=4, empty_input="reject")


def openai(body, limits=LIMITS):
    return wire.parse_openai(body if isinstance(body, bytes) else json.dumps(body).encode(), limits)


def embed(body, limits=LIMITS):
    return wire.parse_embed(body if isinstance(body, bytes) else json.dumps(body).encode(), limits)


def assert_refused(parse, body, param, words, code=None):
    with pytest.raises(InvalidRequest) as caught:
        parse(body)
    error = caught.value
    assert (error.status, error.type, error.param, error.code) == (400, "invalid_request_error", param, code)
    assert words in error.message
    return error


# -- /v1/embeddings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "inputs"),
    [
        ("hello", ["hello"]),
        ("", [""]),
        (["a", "", "ü😀"], ["a", "", "ü😀"]),
        ([1, 2, 3], [[1, 2, 3]]),
        ([0, 2**31 - 1], [[0, 2**31 - 1]]),
        ([1, 2, 3, 4, 5, 6], [[1, 2, 3, 4, 5, 6]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
        ("a\u0000b", ["a\u0000b"]),
        ("\uffff", ["\uffff"]),
    ],
)
def test_inputs(value, inputs):
    assert openai({"input": value}).inputs == inputs


def test_defaults():
    assert openai({"input": "x"}) == wire.EmbeddingRequest(
        form="openai",
        inputs=["x"],
        model=None,
        base64=False,
        dimensions=None,
        input_type=None,
        prompt_name=None,
        normalize=None,
        batch_size=None,
    )


def test_every_field():
    body = {
        "input": "x",
        "model": "a/b",
        "encoding_format": "base64",
        "output_dtype": "ubinary",
        "dimensions": 2**40,
        "input_type": "query",
        "prompt_name": "sts",
        "truncate": "start",
        "user": "someone",
    }
    assert openai(body) == wire.EmbeddingRequest(
        form="openai",
        inputs=["x"],
        model="a/b",
        base64=True,
        output_dtype="ubinary",
        dimensions=2**40,
        input_type="query",
        prompt_name="sts",
        truncate="start",
    )


def test_null_is_absence():
    fields = ("model", "encoding_format", "output_dtype", "dimensions", "input_type", "prompt_name")
    assert openai({"input": "x"} | dict.fromkeys(fields)) == openai({"input": "x"})


def test_unknown_fields_are_ignored():
    body = {"input": "x", "user": 5, "unknown": {"a": [1, {"b": None}]}, "big": 10**400}
    assert openai(body) == openai({"input": "x"})


def test_the_last_of_equal_keys_wins():
    assert openai(b'{"input":"a","input":"b","dimensions":"x","dimensions":3}').inputs == ["b"]


@pytest.mark.parametrize("body", [b' {"input" :\n"x"}\t', b'{"\\u0069nput":"x"}', b'{"input":"\\u0078"}'])
def test_any_way_to_write_it(body):
    assert openai(body).inputs == ["x"]


DEEP = b"[" * 5000 + b"]" * 5000


@pytest.mark.parametrize("parse", [openai, embed])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"nonsense",
        b'{"input":"x"} x',
        b'{"input":"x"}{}',
        b'{"input":"x",}',
        b"{'input':'x'}",
        b'{"input":NaN}',
        b'{"input":["x"],"other":NaN}',
        b'{"input":Infinity}',
        b'{"input":-Infinity}',
        b'{"input":"x","other":Infinity}',
        b'{"input":01}',
        b'{"input":"\n"}',
        b'{"input":"\\q"}',
        b'{"input":"\\ud8"}',
        b'{"input":"\\ud800',
        b'{"other":"\\ud800","input":"x"}',
        b'{"\\ud800":"x"}',
        b"[]",
        b'["input"]',
        b'"input"',
        b"1",
        b"true",
        b"null",
        b'{"input":"\xff"}',
        b'{"input":"x","other":"\xff"}',
        b'{"input":"\xed\xa0\x80"}',
        b'{"input":"\xc0\xaf"}',
        b'{"input":"\xf0\x9f"}',
        b"\xff",
        '{"input":"x"}'.encode("utf-16"),
        b'{"input":' + DEEP + b"}",
        b'{"input":"x","other":' + DEEP + b"}",
        DEEP,
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else value.__name__,
)
def test_no_json_object(parse, body):
    with pytest.raises(InvalidJson) as caught:
        parse(body)
    error = caught.value
    assert (error.status, error.type, error.param, error.code) == (
        400,
        "invalid_request_error",
        None,
        "invalid_json",
    )


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "input is missing"),
        (5, "input must be a string"),
        (1.5, "input must be a string"),
        (True, "input must be a string"),
        ({"text": "x"}, "input must be a string"),
        ([], "non-empty array"),
        ([[]], "input[0] must be a non-empty array of token ids"),
        ([[1], []], "input[1]"),
        (["a", 1], "input[1] must be a string"),
        (["a", None], "input[1] must be a string"),
        (["a", "b", ["c"]], "input[2] must be a string"),
        ([1, "a"], "input[1] must be a token id"),
        ([1, 2.0], "input[1] must be a token id"),
        ([1, True], "input[1] must be a token id"),
        ([1, -1], "input[1] must be a token id"),
        ([2**31], "input[0] must be a token id"),
        ([1, 2, 2**64], "input[2] must be a token id"),
        ([1, [2]], "input[1] must be a token id"),
        ([[1], 2], "input[1] must be a non-empty array of token ids"),
        ([[1], "a"], "input[1] must be a non-empty array of token ids"),
        ([[1], [[2]]], "input[1] must be a non-empty array of token ids"),
        ([[1], [2.5]], "input[1] must be a non-empty array of token ids"),
        ([[[1]]], "input[0]"),
        ([["a"]], "input[0]"),
        ([True], "input[0] must be a string, a token id"),
        ([None], "input[0]"),
        ([1.5], "input[0]"),
        ([{}], "input[0]"),
    ],
)
def test_wrong_inputs(value, words):
    assert_refused(openai, {"input": value}, "input", words)


def test_a_missing_input():
    assert_refused(openai, {}, "input", "input is missing")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (rb'{"input":"\ud800"}', "input holds half a surrogate pair"),
        (rb'{"input":"\udc00 x"}', "input holds half"),
        (rb'{"input":["a","x \uD83D"]}', "input[1] holds half"),
        (rb'{"input":["\ud83d\ude00","\ude00\ud83d"]}', "input[1] holds half"),
        (rb'{"input":["\\ud800","\udbff\ud83d\ude00"]}', "input[1] holds half"),
        (b'{"input":["a' + b"x" * 500_000 + rb'","\ud800"]}', "input[1] holds half"),
    ],
)
def test_half_a_surrogate_pair(body, words):
    assert_refused(openai, body, "input", words)
    renamed = body.replace(b"input", b"texts")
    assert_refused(embed, renamed, "texts", words.replace("input", "texts"))


def test_a_whole_surrogate_pair_and_an_escaped_half():
    assert openai(rb'{"input":["\ud83d\ude00","\\ud800"]}').inputs == ["😀", r"\ud800"]


@pytest.mark.parametrize("value", [b"1e999", b"-1e999", b"[1,1e999]", b"1" * 5000])
def test_a_number_beyond_all_bounds(value):
    assert_refused(openai, b'{"input":%b}' % value, "input", "out of range")
    assert_refused(openai, b'{"input":"x","dimensions":%b}' % value, "dimensions", "dimensions")


@pytest.mark.parametrize("value", [["x"] * 5, [[1]] * 5])
def test_too_many_inputs(value):
    with pytest.raises(TooManyInputs) as caught:
        openai({"input": value})
    error = caught.value
    assert (error.status, error.param, error.code) == (400, "input", "array_above_max_length")
    assert "5" in error.message
    assert "4" in error.message
    assert len(openai({"input": value[:4]}).inputs) == 4


def test_types_are_checked_before_counts():
    assert_refused(openai, {"input": ["x"] * 5 + [1]}, "input", "input[5]")


@pytest.mark.parametrize(("value", "words"), [("", "input[0] is empty"), (["a", ""], "input[1] is empty")])
def test_empty_texts_can_be_refused(value, words):
    assert openai({"input": value}).inputs[-1] == ""
    assert_refused(lambda body: openai(body, REJECT_EMPTY), {"input": value}, "input", words)
    assert openai({"input": [" ", "a"]}, REJECT_EMPTY).inputs == [" ", "a"]
    assert openai({"input": [[1]]}, REJECT_EMPTY).inputs == [[1]]


WRONG: dict[str, list[object]] = {
    "model": [5, True, ["m"], {}],
    "encoding_format": ["Base64", "BASE64", "", "int8", 5, True, ["float"], {}],
    "output_dtype": ["Float", "Int8", "", "float64", 8, True, ["int8"], {}],
    "dimensions": [0, -1, 5.0, 0.5, "5", "", True, False, [5], {}, 1e2],
    "input_type": ["question", "", 1, True, [], {}],
    "truncate": ["", "left", 1, 0, [], {}],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in WRONG for value in WRONG[field]])
def test_wrong_fields(field, value):
    assert_refused(openai, {"input": "x", field: value}, field, f"{field} must be")


def test_fields_are_checked_before_inputs():
    """The order of the contract: the model first, then the fields, then counts."""
    assert_refused(openai, {"model": 7, "dimensions": 0, "input": []}, "model", "model")


# -- /embed -----------------------------------------------------------------------------------------


def test_legacy_form():
    assert embed({"texts": "x"}) == wire.EmbeddingRequest(form="legacy", inputs=["x"])
    body = {"texts": ["x", "y"], "normalize_embeddings": False, "batch_size": 8, "inputs": None}
    assert embed(body) == wire.EmbeddingRequest(
        form="legacy", inputs=["x", "y"], normalize=False, batch_size=8
    )


@pytest.mark.parametrize("field", ["texts", "inputs"])
def test_output_dtype_of_embed(field):
    for dtype in OUTPUT_DTYPES:
        assert embed({field: "x", "output_dtype": dtype}).output_dtype == dtype
    assert embed({field: "x", "output_dtype": None}).output_dtype == "float32"
    assert_refused(embed, {field: "x", "output_dtype": "Float"}, "output_dtype", "must be one of float32")


def test_tei_form():
    assert embed({"inputs": "x"}) == wire.EmbeddingRequest(form="tei", inputs=["x"])
    body = {"inputs": ["x"], "normalize": True, "truncate": False, "prompt_name": "query", "dimensions": 9}
    assert embed(body) == wire.EmbeddingRequest(
        form="tei", inputs=["x"], normalize=True, truncate="none", prompt_name="query", dimensions=9
    )
    assert embed({"inputs": "x", "truncate": True}).truncate == "cut"
    assert embed({"inputs": [[1, 2], [3]]}).inputs == [[1, 2], [3]]


@pytest.mark.parametrize("field", ["normalize", "truncate", "prompt_name", "dimensions", "texts"])
def test_null_is_absence_in_tei_form(field):
    assert embed({"inputs": "x", field: None}) == embed({"inputs": "x"})


@pytest.mark.parametrize("body", [{}, {"texts": None}, {"input": "x"}, {"texts": "x", "inputs": "x"}])
def test_exactly_one_form(body):
    assert_refused(embed, body, None, "exactly one of texts and inputs")


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"texts": []}, "texts", "texts must be"),
        ({"texts": 5}, "texts", "texts must be"),
        ({"texts": ["a", 1]}, "texts", "texts[1] must be a string"),
        ({"texts": [1, 2]}, "texts", "texts[0] must be a string"),
        ({"texts": [[1]]}, "texts", "texts[0] must be a string"),
        ({"texts": "x", "normalize_embeddings": 1}, "normalize_embeddings", "true or false"),
        ({"texts": "x", "normalize_embeddings": "true"}, "normalize_embeddings", "true or false"),
        ({"texts": "x", "batch_size": 0}, "batch_size", "at least 1"),
        ({"texts": "x", "batch_size": True}, "batch_size", "at least 1"),
        ({"inputs": []}, "inputs", "inputs must be"),
        ({"inputs": ["a", 1]}, "inputs", "inputs[1] must be a string"),
        ({"inputs": "x", "normalize": 0}, "normalize", "true or false"),
        ({"inputs": "x", "truncate": "left"}, "truncate", "true, false or one of"),
        ({"inputs": "x", "prompt_name": ""}, "prompt_name", "non-empty string"),
        ({"inputs": "x", "dimensions": 5.0}, "dimensions", "at least 1"),
    ],
)
def test_wrong_fields_of_embed(body, param, words):
    assert_refused(embed, body, param, words)


@pytest.mark.parametrize("key", ["texts", "inputs"])
def test_limits_hold_for_embed(key):
    with pytest.raises(TooManyInputs) as caught:
        embed({key: ["x"] * 5})
    assert caught.value.param == key
    assert_refused(lambda body: embed(body, REJECT_EMPTY), {key: ["x", ""]}, key, f"{key}[1] is empty")
