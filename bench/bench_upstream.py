"""From a backend's answer to a float32 matrix: `OpenAI.read` beside what a Python service would do.

    pytest bench/bench_upstream.py --benchmark-group-by=group --benchmark-columns=min,median,rounds

Every contender decodes the whole body and puts the rows where their `index` says; that all give the
same matrix is checked. `float` is the text of a backend in Python, which prints float32 numbers as
doubles, with 17 digits; `float32` that of one that prints the shortest text, as llmrs does. A group is
one form and shape: compare inside it. What it does not show: the socket, and other kinds of numbers
(those that the kernels hand back take the time of `msgspec`).
"""

from __future__ import annotations

import base64
import json

import msgspec
import numpy as np
import orjson
import pybase64
import pytest

from llmrs import _fast
from llmrs.backends.protocols import OpenAI

SHAPES = [(1, 384), (32, 384), (32, 1024)]
PROTOCOL = OpenAI("m")


class Data(msgspec.Struct):
    embedding: str | list[float | None]
    index: int


class Answer(msgspec.Struct):
    data: list[Data]


decode_typed = msgspec.json.Decoder(Answer).decode


def ours(body, count):
    return PROTOCOL.read(body, {}, count).matrix


def to_matrix(rows, decode):
    if isinstance(rows[0], str):
        rows = [np.frombuffer(decode(row, validate=True), "<f4") for row in rows]
    return np.array(rows, np.float32)


def with_json(body, count):
    rows = [item["embedding"] for item in sorted(json.loads(body)["data"], key=lambda item: item["index"])]
    return to_matrix(rows, base64.b64decode)


def with_orjson(body, count):
    rows = [item["embedding"] for item in sorted(orjson.loads(body)["data"], key=lambda item: item["index"])]
    return to_matrix(rows, pybase64.b64decode)


def with_msgspec(body, count):
    rows = [item.embedding for item in sorted(decode_typed(body).data, key=lambda item: item.index)]
    return to_matrix(rows, base64.b64decode)


def body_of(matrix, form):
    rows = {
        "base64": lambda: [pybase64.b64encode_as_string(row) for row in matrix],
        "float": matrix.tolist,
        "float32": lambda: list(matrix),
    }[form]()
    data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
    body = {"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 9, "total_tokens": 9}}
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


PEERS = {"json": with_json, "orjson-pybase64": with_orjson, "msgspec": with_msgspec}


@pytest.mark.parametrize("contender", [*(f"llmrs-{name}" for name in _fast.kernel_names()), *PEERS])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("form", ["base64", "float", "float32"])
def test_answer(benchmark, form, shape, contender):
    benchmark.group = f"read {form} {shape[0]}x{shape[1]}"
    matrix = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    body = body_of(matrix, form)
    before = _fast.kernel_name()
    _fast.use_kernels(contender.removeprefix("llmrs-") if contender not in PEERS else before)
    found = benchmark(PEERS.get(contender, ours), body, len(matrix))
    _fast.use_kernels(before)
    assert np.array_equal(found, matrix)
