"""Bodies to requests: `llmrs.wire` beside orjson with the same checks in Python, and msgspec alone.

    pytest bench/bench_wire.py --benchmark-group-by=group --benchmark-columns=median,iqr,rounds

`orjson` decodes and then checks types as a hand-written service would; `msgspec typed` decodes into
declared types, which is quick but cannot name the wrong element. Errors are measured too: refusing
must not cost much more than accepting. Answers of smaller numbers are beside NumPy, pybase64 and orjson,
which normalize, pack and write the same.
"""

from __future__ import annotations

import json

import msgspec
import numpy as np
import orjson
import pybase64
import pytest

from llmrs import wire
from llmrs.errors import ServiceError

LIMITS = wire.RequestLimits(max_inputs=2048)
SENTENCE = "The quick brown fox jumps over the lazy dog, and then does it once more for good measure."

BODIES = {
    "1 text": {"input": SENTENCE, "model": "m", "encoding_format": "base64"},
    "32 texts": {"input": [SENTENCE] * 32, "model": "m", "encoding_format": "base64"},
    "32 texts, not ascii": {"input": [SENTENCE + " – ü"] * 32, "model": "m"},
    "2048 texts": {"input": [SENTENCE] * 2048, "model": "m"},
    "32x256 ids": {"input": [list(range(1000, 1256))] * 32, "model": "m"},
}
REFUSED = {
    "last of 2048 wrong": {"input": [SENTENCE] * 2047 + [1]},
    "half a surrogate pair": {"input": [SENTENCE] * 31 + ["\ud83d"]},
    "cut off": None,
}


class Typed(msgspec.Struct):
    input: str | list[str | int | list[int]]
    model: str | None = None
    encoding_format: str | None = None


decode_typed = msgspec.json.Decoder(Typed).decode


def with_orjson(body):
    fields = orjson.loads(body)
    value = fields["input"]
    inputs = [value] if isinstance(value, str) else value
    if not (
        all(type(item) is str for item in inputs)
        or all(type(item) is list and all(type(number) is int for number in item) for item in inputs)
    ):
        raise ValueError("input")
    return inputs, fields.get("model"), fields.get("encoding_format", "float")


@pytest.mark.parametrize("contender", ["llmrs", "orjson", "msgspec-typed"])
@pytest.mark.parametrize("name", BODIES)
def test_parse(benchmark, name, contender):
    benchmark.group = f"parse {name}"
    body = json.dumps(BODIES[name], ensure_ascii=False).encode()
    if contender == "llmrs":
        assert benchmark(wire.parse_openai, body, LIMITS).inputs == with_orjson(body)[0]
    else:
        benchmark(with_orjson if contender == "orjson" else decode_typed, body)


@pytest.mark.parametrize("name", REFUSED)
def test_refuse(benchmark, name):
    benchmark.group = "refuse"
    body = json.dumps(REFUSED[name] or BODIES["2048 texts"]).encode()
    if REFUSED[name] is None:
        body = body[:-2]

    def refuse():
        try:
            wire.parse_openai(body, LIMITS)
        except ServiceError as error:
            return wire.encode_error(error)

    assert b"invalid_request_error" in benchmark(refuse)


@pytest.mark.parametrize("form", ["base64", "float"])
def test_answer_to_one_text(benchmark, form):
    benchmark.group = "answer 1x384"
    matrix = np.random.default_rng(0).standard_normal((1, 384)).astype(np.float32)
    benchmark(
        wire.encode_openai,
        matrix,
        dimensions=None,
        normalize=True,
        base64=form == "base64",
        model="all-MiniLM-L6-v2",
        n_tokens=9,
    )


PACKED = {
    "float16": lambda x: x.astype("<f2"),
    "int8": lambda x: np.rint(x * 127).astype(np.int8),
    "uint8": lambda x: (np.rint(x * 127) + 128).astype(np.uint8),
    "binary": lambda x: (np.packbits(x > 0, axis=1) - 128).astype(np.int8),
    "ubinary": lambda x: np.packbits(x > 0, axis=1),
}


def packed_by_numpy(matrix, dtype, base64):
    vectors = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    rows = PACKED[dtype](vectors)
    if base64:
        rows = [pybase64.b64encode_as_string(row) for row in rows]
    body = {
        "object": "list",
        "data": [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)],
        "model": "all-MiniLM-L6-v2",
        "usage": {"prompt_tokens": 9, "total_tokens": 9},
        "output_dtype": dtype,
    }
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def numbers_in(body):
    return np.float32([item["embedding"] for item in json.loads(body)["data"]])


@pytest.mark.parametrize("contender", ["llmrs", "numpy"])
@pytest.mark.parametrize("form", ["base64", "float"])
@pytest.mark.parametrize("dtype", PACKED)
def test_answer_of_smaller_numbers(benchmark, dtype, form, contender):
    benchmark.group = f"answer {dtype} {form} 32x1024"
    matrix = np.random.default_rng(0).standard_normal((32, 1024)).astype(np.float32)
    base64 = form == "base64"
    if contender == "numpy":
        benchmark(packed_by_numpy, matrix, dtype, base64)
        return
    body = benchmark(
        wire.encode_openai,
        matrix,
        dimensions=None,
        normalize=True,
        base64=base64,
        model="all-MiniLM-L6-v2",
        n_tokens=9,
        dtype=dtype,
    )
    if not base64:
        # NumPy divides in float32, so that some numbers are rounded the other way.
        assert np.mean(numbers_in(body) != numbers_in(packed_by_numpy(matrix, dtype, base64))) < 0.05
