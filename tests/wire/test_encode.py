"""Vectors and errors to bodies."""

from __future__ import annotations

import json

import numpy as np
import pytest

from llmrs import errors, wire
from llmrs.errors import NonFiniteEmbedding, ServiceError
from tests.wire.oracles import from_base64

MATRIX = np.array([[3.0, 4.0, 0.0], [0.0, 0.0, 2.0]], np.float32)
NAMES = ["m", "a/b", 'quo"te', "back\\slash", "ünï", "😀", "tab\there", "</script>"]


@pytest.mark.parametrize("model", NAMES)
def test_openai_body(model):
    body = json.loads(
        wire.encode_openai(MATRIX, dimensions=None, normalize=True, base64=False, model=model, n_tokens=7)
    )
    assert body == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.6, 0.8, 0.0]},
            {"object": "embedding", "index": 1, "embedding": [0.0, 0.0, 1.0]},
        ],
        "model": model,
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }


def test_openai_body_as_base64():
    body = json.loads(
        wire.encode_openai(MATRIX, dimensions=2, normalize=False, base64=True, model="m", n_tokens=0)
    )
    assert [from_base64(item["embedding"]).tolist() for item in body["data"]] == [[3.0, 4.0], [0.0, 0.0]]


@pytest.mark.parametrize("model", NAMES)
def test_legacy_body(model):
    whole = json.loads(wire.encode_legacy(MATRIX, dimensions=None, normalize=False, model=model))
    assert whole == {"vectors": MATRIX.tolist(), "count": 2, "vector_dim": 3, "model_path": model}
    cut = json.loads(wire.encode_legacy(MATRIX, dimensions=2, normalize=False, model=model))
    assert cut["vectors"] == [[3.0, 4.0], [0.0, 0.0]]
    assert cut["vector_dim"] == 2


def test_tei_body():
    assert wire.encode_tei(MATRIX, dimensions=None, normalize=True) == b"[[0.6,0.8,0.0],[0.0,0.0,1.0]]"
    assert wire.encode_tei(MATRIX, dimensions=1, normalize=False) == b"[[3.0],[0.0]]"


def test_a_vector_that_is_not_finite_is_never_written():
    matrix = MATRIX.copy()
    matrix[1, 1] = np.nan
    for encode in (
        lambda: wire.encode_openai(matrix, dimensions=3, normalize=True, base64=True, model="m", n_tokens=1),
        lambda: wire.encode_legacy(matrix, dimensions=None, normalize=False, model="m"),
        lambda: wire.encode_tei(matrix, dimensions=3, normalize=False),
    ):
        with pytest.raises(NonFiniteEmbedding, match="index 1"):
            encode()


def all_error_classes():
    found = [ServiceError]
    for kind in found:
        found += [sub for sub in kind.__subclasses__() if sub.__module__ == errors.__name__]
    return found


def make(kind):
    if kind is errors.ContextLengthExceeded:
        return kind(256, index=3, found=999)
    return kind(5) if kind is NonFiniteEmbedding else kind("what went wrong")


@pytest.mark.parametrize("kind", all_error_classes(), ids=lambda kind: kind.__name__)
def test_every_error_has_all_four_keys(kind):
    error = make(kind)
    body = json.loads(wire.encode_error(error))
    assert body == {
        "error": {"message": error.message, "type": kind.type, "param": error.param, "code": kind.code}
    }
    assert type(body["error"]["message"]) is str
    # Gateways read this text before the status, and stop failing over.
    if error.status in (401, 429) or error.status >= 500:
        assert b"invalid_request_error" not in wire.encode_error(error)


@pytest.mark.parametrize("message", ["x" * 5000, "ü" * 5000, "a" + "😀" * 5000, "\ud800" * 5000, "\x00\n"])
def test_messages_are_bounded_and_readable(message):
    error = ServiceError(message, param="input")
    found = json.loads(wire.encode_error(error))["error"]["message"]
    assert 0 < len(found.encode()) <= 1024
    assert message.encode("utf-8", "replace").startswith(found.encode())


def test_encode_json_is_compact_utf8():
    assert wire.encode_json({"a": [1, None, "ü"], "b": True}) == '{"a":[1,null,"ü"],"b":true}'.encode()
