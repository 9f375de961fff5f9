"""Fields of other APIs: obeyed or refused by name, on every route, and the document's table of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from llmrs import wire
from llmrs.dialects import FIELDS
from llmrs.errors import InvalidJson, InvalidRequest

LIMITS = wire.RequestLimits(max_inputs=4)
FORMS = {"openai": "input", "legacy": "texts", "tei": "inputs"}


def parse(form: str, fields: dict[str, Any], *, nested: bool = False) -> wire.EmbeddingRequest:
    body = {FORMS[form]: "x", **({"parameters": fields} if nested else fields)}
    read = wire.parse_openai if form == "openai" else wire.parse_embed
    return read(json.dumps(body).encode(), LIMITS)


def refusal(form: str, fields: dict[str, Any]) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse(form, fields)
    assert caught.value.status == 400
    return caught.value


OBEYED: dict[str, list[tuple[Any, dict[str, Any]]]] = {
    "truncation": [(True, {"truncate": "cut"}), (False, {"truncate": "none"})],
    "autoTruncate": [(True, {"truncate": "cut"}), (False, {"truncate": "none"})],
    "auto_truncate": [(True, {"truncate": "cut"}), (False, {"truncate": "none"})],
    "truncation_direction": [
        ("Left", {"truncation_side": "start"}), ("left", {"truncation_side": "start"}),
        ("LEFT", {"truncation_side": "start"}), ("Right", {"truncation_side": "end"}),
    ],
    "truncation_side": [("left", {"truncation_side": "start"}), ("right", {"truncation_side": "end"})],
    "truncate_prompt_tokens": [
        (-1, {"truncate": "cut"}),
        (8, {"truncate": "cut", "token_limit": 8}),
    ],
    "max_tokens": [(512, {"token_limit": 512})],
    "max_length": [(8192, {"token_limit": 8192})],
    "task": [
        ("retrieval.query", {"input_type": "retrieval.query"}),
        ("text-matching", {"input_type": "text-matching"}),
    ],
    "task_type": [
        ("RETRIEVAL_DOCUMENT", {"input_type": "retrieval_document"}),
        ("search_query", {"input_type": "search_query"}),
    ],
    "taskType": [("RETRIEVAL_QUERY", {"input_type": "retrieval_query"})],
    "text_type": [("query", {"input_type": "query"}), ("document", {"input_type": "document"})],
    "title": [("", {})],
    "output_dimension": [(128, {"dimensions": 128})],
    "outputDimensionality": [(768, {"dimensions": 768})],
    "output_dimensionality": [(128, {"dimensions": 128})],
    "dimensionality": [(64, {"dimensions": 64})],
    "dimension": [(128, {"dimensions": 128})],
    "truncate_dim": [(256, {"dimensions": 256})],
    "embedding_type": [
        ("float", {"output_dtype": "float32"}), ("binary", {"output_dtype": "binary"}),
        (["ubinary"], {"output_dtype": "ubinary"}), ("int8", {"output_dtype": "int8"}),
    ],
    "embedding_types": [(["float"], {"output_dtype": "float32"}), (["uint8"], {"output_dtype": "uint8"})],
    "embed_dtype": [("float16", {"output_dtype": "float16"}), ("float32", {"output_dtype": "float32"})],
    "endianness": [("little", {}), ("native", {})],
    "normalized": [(True, {"normalize": True}), (False, {"normalize": False})],
    "use_activation": [(True, {"normalize": True}), (False, {"normalize": False})],
    "embd_normalize": [(2, {"normalize": True}), (-1, {"normalize": False})],
    "add_special_tokens": [(True, {})],
    "late_chunking": [(False, {})],
    "return_multivector": [(False, {})],
    "return_dense": [(True, {})],
    "return_sparse": [(False, {})],
    "return_colbert_vecs": [(False, {})],
    "output_type": [("dense", {})],
    "output_value": [("sentence_embedding", {})],
    "modality": [("text", {}), (["text"], {}), (["text", "text"], {})],
    "precision": [("float32", {})],
    "prompt": [("", {})],
    "prompt_template": [("", {})],
    "instruction": [("", {})],
    "instruct": [("", {})],
    "messages": [([], {})],
    "image": [([], {})],
    "images": [([], {})],
}  # fmt: skip

REFUSED: dict[str, list[Any]] = {
    "truncation": ["end", 1, 0, "true", []],
    "autoTruncate": ["end", 0],
    "auto_truncate": ["end", 1, "true"],
    "truncation_direction": ["up", "", 1, True, ["left"]],
    "truncation_side": ["start", "", 0, False],
    "truncate_prompt_tokens": [0, -2, "8", True, 8.0],
    "max_tokens": [0, -1, "8", True],
    "max_length": [0, "8", True],
    "task": ["other", "", 5, ["retrieval.query"]],
    "task_type": ["other", "", True],
    "taskType": ["SEMANTIC", 5],
    "text_type": ["other", "", 5],
    "title": ["A title", 5],
    "output_dimension": [0, "128", 1.5, True],
    "outputDimensionality": [0, "768"],
    "output_dimensionality": [0, "128", 1.5],
    "dimensionality": [-1, "64"],
    "dimension": [0, True],
    "truncate_dim": [0, "256"],
    "embedding_type": ["bytes", "", ["float", "base64"], [], 8, {}],
    "embedding_types": [["float", "int8"], [], ["other"], True],
    "embed_dtype": ["bfloat16", "fp8_e4m3", "", 16],
    "endianness": ["big", "", True],
    "normalized": [1, "true", []],
    "use_activation": [0, "no"],
    "embd_normalize": [0, 1, 3, True, "2", 2.0],
    "add_special_tokens": [False, 1, "true"],
    "late_chunking": [True, 0, "false"],
    "return_multivector": [True, 0],
    "return_dense": [False, 1],
    "return_sparse": [True, 0],
    "return_colbert_vecs": [True, "yes"],
    "output_type": ["sparse", "dense&sparse", 1],
    "output_value": ["token_embeddings", 1],
    "modality": ["image", ["text", "image"], [], True],
    "precision": ["int8", "", 32],
    "prompt": ["query: ", 5],
    "prompt_template": ["{text}", 5],
    "instruction": ["Represent this", 5],
    "instruct": ["Given a web search query", 5],
    "messages": [[{"role": "user", "content": "x"}], "x"],
    "image": ["data:", ["https://example.org/a.png"]],
    "images": ["data:", ["data:"]],
}


def test_every_field_of_the_table_is_tried() -> None:
    assert set(OBEYED) == set(REFUSED) == set(FIELDS)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("field", "value", "asked"), [(f, *row) for f, rows in OBEYED.items() for row in rows]
)
def test_a_field_is_obeyed(form: str, field: str, value: Any, asked: dict[str, Any]) -> None:
    expected = parse(form, {})
    for attribute, wanted in asked.items():
        assert getattr(expected, attribute) != wanted or wanted in ("float32",)
    for nested in (False, True):
        found = parse(form, {field: value}, nested=nested)
        assert found.names == (dict.fromkeys(asked, field) or None)
        for attribute in {*wire.EmbeddingRequest.__struct_fields__} - {"names"}:
            assert getattr(found, attribute) == asked.get(attribute, getattr(expected, attribute)), attribute


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("field", "value"), [(f, value) for f, values in REFUSED.items() for value in values]
)
def test_a_field_that_cannot_be_obeyed_is_refused_by_name(form: str, field: str, value: Any) -> None:
    error = refusal(form, {field: value})
    assert error.param == field
    assert error.message.startswith(field)
    assert "data:" not in error.message
    assert "example.org" not in error.message


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("field", FIELDS)
def test_null_is_absence(form: str, field: str) -> None:
    assert parse(form, {field: None}) == parse(form, {})
    assert parse(form, {field: None}, nested=True) == parse(form, {})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "field", ["user", "priority", "request_id", "keep_alive", "options", "metadata", "rid"]
)
def test_what_cannot_change_the_answer_is_ignored(form: str, field: str) -> None:
    for value in (5, "x", {"a": [1]}, 10**400):
        assert parse(form, {field: value, "dimensions": 3}) == parse(form, {"dimensions": 3})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("fields", "second"),
    [
        ({"dimensions": 4, "output_dimension": 8}, "output_dimension"),
        ({"truncate": "none", "truncation": True}, "truncation"),
        ({"truncate": True, "truncation": False}, "truncation"),
        ({"truncate": "end", "truncation_direction": "Left"}, "truncation_direction"),
        ({"truncate": "start", "truncation_side": "right"}, "truncation_side"),
        ({"truncation_direction": "Left", "truncation_side": "right"}, "truncation_side"),
        ({"truncate": "chunk_mean", "truncate_prompt_tokens": -1}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": 8, "max_tokens": 9}, "max_tokens"),
        ({"input_type": "query", "task": "retrieval.passage"}, "task"),
        ({"input_type": "query", "task_type": "clustering"}, "task_type"),
        ({"output_dtype": "int8", "embedding_type": "binary"}, "embedding_type"),
        ({"embedding_type": "int8", "embedding_types": ["binary"]}, "embedding_types"),
        ({"normalize": True, "normalized": False}, "normalized"),
        ({"normalize": True, "normalize_embeddings": False}, "normalize_embeddings"),
        ({"normalize": False, "normalize_embeddings": True}, "normalize_embeddings"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(
    form: str, fields: dict[str, Any], second: str
) -> None:
    error = refusal(form, fields)
    assert error.param == second
    assert "contradict each other" in error.message
    assert all(field in error.message for field in fields)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({"dimensions": 8, "output_dimension": 8}, {"dimensions": 8}),
        ({"truncate": "start", "truncation": True}, {"truncate": "start"}),
        ({"truncate": True, "truncation_direction": "Left"}, {"truncate": "cut", "truncation_side": "start"}),
        (
            {"truncate": False, "truncation_direction": "Right"},
            {"truncate": "none", "truncation_side": "end"},
        ),
        ({"truncate": "START", "truncation_direction": "left"}, {"truncate": "start"}),
        ({"input_type": "passage", "task": "retrieval.passage"}, {"input_type": "passage"}),
        ({"encoding_format": "float", "embedding_type": "float"}, {"base64": False}),
        ({"normalize": True, "normalize_embeddings": True}, {"normalize": True}),
    ],
)
def test_fields_that_agree_are_obeyed(form: str, fields: dict[str, Any], asked: dict[str, Any]) -> None:
    found = parse(form, fields)
    assert {attribute: getattr(found, attribute) for attribute in asked} == asked


def test_base64_where_the_answer_has_a_place_for_it() -> None:
    assert parse("openai", {"embedding_type": "base64"}).base64
    assert parse("openai", {"embedding_type": ["base64"], "encoding_format": "base64"}).base64
    assert parse("openai", {"embedding_type": "binary", "encoding_format": "base64"}).base64
    error = refusal("openai", {"encoding_format": "float", "embedding_type": "base64"})
    assert (error.param, "encoding_format" in error.message) == ("embedding_type", True)
    for form in ("legacy", "tei"):
        for field in ("encoding_format", "embedding_type"):
            assert refusal(form, {field: "base64"}).param == field


@pytest.mark.parametrize("form", FORMS)
def test_inputs_under_two_names_are_refused(form: str) -> None:
    for other in {*FORMS.values()} - {FORMS[form]}:
        refusal(form, {other: ["y"]})


@pytest.mark.parametrize("form", FORMS)
def test_every_form_takes_all_of_our_own_fields(form: str) -> None:
    own: dict[str, Any] = {
        "model": "m", "dimensions": 8, "input_type": "query", "prompt_name": "sts", "truncate": "start",
        "output_dtype": "int8", "normalize": True, "batch_size": 3,
    }  # fmt: skip
    found = parse(form, own)
    assert {name: getattr(found, name) for name in own} == own


@pytest.mark.parametrize(("parameters", "param"), [
    (5, "parameters"), ([], "parameters"), ("x", "parameters"), ({"truncate": 7}, "truncate"),
    ({"late_chunking": True}, "late_chunking"), ({"parameters": {}}, "parameters"),
])  # fmt: skip
def test_parameters_that_cannot_be_obeyed(parameters: Any, param: str) -> None:
    assert refusal("tei", {"parameters": parameters}).param == param


def test_parameters_are_fields() -> None:
    found = parse("tei", {"normalize": False, "truncate": True, "dimensions": 4, "x": 1}, nested=True)
    assert (found.normalize, found.truncate, found.dimensions) == (False, "cut", 4)
    assert parse("tei", {"truncate": True, "parameters": {"truncate": True, "y": None}}).truncate == "cut"
    assert "contradict" in refusal("tei", {"truncate": True, "parameters": {"truncate": False}}).message
    refusal("tei", {"parameters": {"inputs": "y"}})
    assert parse("tei", {"parameters": {}}) == parse("tei", {})


def test_a_number_beyond_reading_names_its_field() -> None:
    with pytest.raises(InvalidRequest) as caught:
        wire.parse_openai(b'{"input": "x", "output_dimension": 1e%b}' % (b"9" * 400), LIMITS)
    assert caught.value.param == "output_dimension"


@pytest.mark.parametrize("read", [wire.parse_openai, wire.parse_embed])
def test_a_byte_order_mark_is_skipped(read: Any) -> None:
    name = "input" if read is wire.parse_openai else "inputs"
    body = f'{{"{name}": "ü"}}'.encode()
    assert read(b"\xef\xbb\xbf" + body, LIMITS) == read(body, LIMITS)
    for broken in (
        b"\xef\xbb\xbf",
        b"\xef\xbb\xbf" * 2 + body,
        b"\xef\xbb\xbf" * 10_000,
        b"\xef\xbb" + body,
        body + b"\xef\xbb\xbf",
    ):
        with pytest.raises(InvalidJson):
            read(broken, LIMITS)


def test_the_document_lists_every_field() -> None:
    document = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    section = document.partition("## Fields of other APIs")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", section, re.MULTILINE)
    assert rows == [(name, field.apis, field.meaning) for name, field in FIELDS.items()]
