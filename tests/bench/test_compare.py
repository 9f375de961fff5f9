"""The figures of some turns as one row, and the backend that costs nothing."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from tests.bench import bench_module

compare = bench_module("compare")
null_backend = bench_module("null_backend")


def test_turns_are_summarised() -> None:
    turn = dict.fromkeys(("mean", "p50", "p95", "p99", "min", "max", "rps", "requests", "memory_mb"), 1.0)
    turns = [turn | {"rps": rate, "min": rate, "max": rate, "requests": rate} for rate in (30.0, 10.0, 20.0)]
    row = compare.summarise({"llmrs": turns})["llmrs"]
    assert (row["rps"], row["min"], row["max"], row["requests"]) == (20.0, 10.0, 30.0, 60.0)
    assert row["rps_turns"] == [30.0, 10.0, 20.0]


@pytest.mark.parametrize("texts", ["one", ["one"], ["one", "two", "three"]])
def test_the_null_backend_answers_what_was_asked(texts: object) -> None:
    class Transport(list):  # type: ignore[type-arg]
        write = list.append

    connection = null_backend.Connection(null_backend.Pace(float("inf")))
    connection._transport, connection._received = Transport(), b""
    body = json.dumps({"input": texts, "encoding_format": "base64"}).encode()
    request = b"POST /v1/embeddings HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    for start in range(0, 2 * len(request), 40):  # two requests in pieces
        connection.data_received((request * 2)[start : start + 40])
    assert len(connection._transport) == 2
    head, _, answer = connection._transport[0].partition(b"\r\n\r\n")
    assert b"Content-Length: %d" % len(answer) in head
    rows = [base64.b64decode(row["embedding"]) for row in json.loads(answer)["data"]]
    assert len(rows) == (1 if isinstance(texts, str) else len(texts))  # type: ignore[arg-type]
    np.testing.assert_array_equal(np.frombuffer(rows[-1], "<f4"), null_backend.VECTOR)
