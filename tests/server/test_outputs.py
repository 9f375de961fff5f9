"""`output_dtype`: what clients get, and what is refused. The bytes themselves: tests/wire/test_outputs.py."""

from __future__ import annotations

import base64
from collections.abc import Callable

import numpy as np
import pytest

from llmrs.embeddings import ModelInfo
from tests.engines import DIMENSIONS, FakeBackend
from tests.server.conftest import Client
from tests.wire.oracles import packed

PATH = "/v1/embeddings"
TEXTS = ["one", "two words", "zero"]
DTYPES = ["float16", "int8", "uint8", "binary", "ubinary"]
WIDE = ModelInfo(name="wide", dimensions=32, max_input_tokens=16, matryoshka=(12, 16))
Make = Callable[..., Client]


@pytest.fixture
def wide(make_client: Make) -> Client:
    return make_client(FakeBackend(info=WIDE))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dimensions", [None, 16])
def test_openais_form(wide: Client, dtype: str, dimensions: int | None) -> None:
    """Made of the float32 answer, and said in the header and in the body."""
    plain = {"input": TEXTS, "dimensions": dimensions}
    expected = packed(wide.vectors(plain), dtype)
    for form in ("float", "base64"):
        result = wide.post(PATH, {**plain, "output_dtype": dtype, "encoding_format": form})
        assert result.status_code == 200, result.text
        assert result.headers["x-output-dtype"] == result.json["output_dtype"] == dtype
        assert [set(row) for row in result.json["data"]] == [{"object", "index", "embedding"}] * len(TEXTS)
        rows = [row["embedding"] for row in result.json["data"]]
        if form == "base64":
            assert [base64.b64decode(row) for row in rows] == [row.tobytes() for row in expected]
        else:
            assert np.array_equal(np.float32(rows), np.float32(expected))


@pytest.mark.parametrize("dtype", DTYPES)
def test_both_forms_of_embed(wide: Client, dtype: str) -> None:
    expected = packed(wide.vectors({"input": TEXTS}), dtype)
    tei = wide.post("/embed", {"inputs": TEXTS, "output_dtype": dtype})
    assert np.array_equal(np.float32(tei.json), np.float32(expected))
    legacy = wide.post("/embed", {"texts": TEXTS, "output_dtype": dtype})
    assert np.array_equal(np.float32(legacy.json["vectors"]), np.float32(expected))
    assert legacy.json["vector_dim"] == expected.shape[1]
    assert tei.headers["x-output-dtype"] == legacy.headers["x-output-dtype"] == dtype


def test_float32_is_the_default_and_says_nothing(client: Client) -> None:
    for asked in ({}, {"output_dtype": None}, {"output_dtype": "float32"}):
        result = client.post(PATH, {"input": "x", **asked})
        assert set(result.json) == {"object", "data", "model", "usage"}
        assert "x-output-dtype" not in result.headers


@pytest.mark.parametrize("dtype", ["binary", "ubinary"])
def test_bits_need_a_width_of_whole_bytes(wide: Client, make_client: Make, dtype: str) -> None:
    error = wide.error(400, PATH, {"input": "x", "output_dtype": dtype, "dimensions": 12})
    assert error["param"] == "dimensions"
    assert "multiple of 8" in error["message"]
    narrow = FakeBackend(info=ModelInfo(name="m", dimensions=12, max_input_tokens=16))
    client = make_client(narrow)
    error = client.error(400, PATH, {"input": "x", "output_dtype": dtype})
    assert error["param"] == "dimensions"
    assert "not 12" in error["message"]
    assert narrow.batches == []


def test_a_width_that_only_the_answer_tells(make_client: Make) -> None:
    client = make_client(FakeBackend(info=ModelInfo()), allow_any_dimensions=True)
    body = {"input": "x", "output_dtype": "ubinary", "encoding_format": "float"}
    assert len(client.post(PATH, body).json["data"][0]["embedding"]) == DIMENSIONS // 8


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_bytes_need_unit_vectors(make_client: Make, dtype: str) -> None:
    """Numbers beyond 1 would be clipped without a sign of it."""
    body = {"input": "x", "output_dtype": dtype}
    error = make_client(normalize_embeddings=False).error(400, PATH, body)
    assert error["param"] == "output_dtype"
    legacy = {"texts": "x", "normalize_embeddings": False, "output_dtype": dtype}
    assert make_client().error(400, "/embed", legacy)["param"] == "output_dtype"
    unit = FakeBackend(info=ModelInfo(name="m", dimensions=DIMENSIONS, max_input_tokens=16, normalized=True))
    assert make_client(unit, normalize_embeddings=False).post(PATH, body).status_code == 200


def test_numbers_that_float16_cannot_hold(make_client: Make) -> None:
    class Large(FakeBackend):
        def embed(self, batch, *, timeout):
            vectors = super().embed(batch, timeout=timeout)
            return vectors._replace(matrix=vectors.matrix * np.float32(1e6))

    body = {"input": "x", "output_dtype": "float16"}
    error = make_client(Large(), normalize_embeddings=False).error(400, PATH, body)
    assert error["param"] == "output_dtype"
    assert make_client(Large()).post(PATH, body).status_code == 200


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_vector_that_is_not_finite_is_never_handed_out(client: Client, dtype: str) -> None:
    for encoding in ("float", "base64"):
        body = {"input": ["a", "nan"], "output_dtype": dtype, "encoding_format": encoding}
        result = client.post(PATH, body)
        assert (result.status_code, result.json["error"]["code"]) == (500, "non_finite_embedding")
        assert result.headers["x-should-retry"] == "false"
