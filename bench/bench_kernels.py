"""From a float32 matrix to a response body: the kernels beside NumPy + pybase64 + orjson.

    pytest bench/bench_kernels.py --benchmark-group-by=group --benchmark-columns=median,iqr,rounds

Both normalize, encode and write the same body (the same bytes as base64; as floats the peer's
numbers are checked to be the same float32). A group is one form and shape: compare inside it. The
variants other than the one this CPU gets by itself show what other CPUs would get. What it does not
show: many threads, a cold cache, other lengths of the model's name.
"""

from __future__ import annotations

import json

import numpy as np
import orjson
import pybase64
import pytest

from llmrs import _fast

SHAPES = [(1, 384), (32, 384), (32, 1024), (2048, 384)]


def ours(matrix, base64):
    return _fast.encode_openai(
        matrix,
        dimensions=matrix.shape[1],
        normalize=True,
        base64=base64,
        model_json=b'"all-MiniLM-L6-v2"',
        n_tokens=matrix.shape[0],
    )


def peer(matrix, base64):
    vectors = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    rows = [pybase64.b64encode_as_string(row) for row in vectors] if base64 else vectors
    count = len(vectors)
    body = {
        "object": "list",
        "data": [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)],
        "model": "all-MiniLM-L6-v2",
        "usage": {"prompt_tokens": count, "total_tokens": count},
    }
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def stdlib(matrix, base64):
    """What a plain service does: a list of Python floats through the standard library."""
    vectors = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    rows = [pybase64.b64encode_as_string(row) for row in vectors] if base64 else vectors.tolist()
    return json.dumps({"data": [{"index": i, "embedding": row} for i, row in enumerate(rows)]}).encode()


def unit_rows(body, base64):
    rows = [item["embedding"] for item in json.loads(body)["data"]]
    return np.stack(
        [np.frombuffer(pybase64.b64decode(row), "<f4") if base64 else np.float32(row) for row in rows]
    )


@pytest.fixture
def matrix(shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


CONTENDERS = [*(f"llmrs-{name}" for name in _fast.kernel_names()), "orjson", "json"]


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("form", ["base64", "float"])
def test_body(benchmark, matrix, form, shape, contender):
    benchmark.group = f"{form} {shape[0]}x{shape[1]}"
    base64 = form == "base64"
    if contender.startswith("llmrs-"):
        before = _fast.kernel_name()
        _fast.use_kernels(contender.removeprefix("llmrs-"))
        found = benchmark(ours, matrix, base64)
        _fast.use_kernels(before)
        np.testing.assert_allclose(
            unit_rows(found, base64), unit_rows(peer(matrix, base64), base64), rtol=1e-5
        )
    else:
        benchmark(peer if contender == "orjson" else stdlib, matrix, base64)


@pytest.mark.parametrize("name", _fast.kernel_names())
@pytest.mark.parametrize("shape", [(32, 1024)], ids=["32x1024"])
def test_normalize_rows(benchmark, matrix, shape, name):
    benchmark.group = "normalize 32x1024"
    before = _fast.kernel_name()
    _fast.use_kernels(name)
    benchmark(_fast.normalize_rows, matrix, shape[1])
    _fast.use_kernels(before)
