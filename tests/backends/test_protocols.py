"""The protocols without a socket: what is sent, what is read, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from llmrs.backends.protocols import TEI, Embed, Ollama, OpenAI
from llmrs.errors import UpstreamError

from .services.vectors import as_base64

ONE, TWO = [1.0, 0.5], [-0.25, 2.0]
EMBED = Embed(batch_size=32)


def data(*rows, usage=None):
    body = {"data": [{"index": i, "embedding": row} for i, row in rows]}
    return json.dumps(body | ({"usage": usage} if usage is not None else {})).encode()


def numbered(*numbers, absent=False):
    """An answer whose rows, ONE and TWO, have these as `index`; None is null, or no field where `absent`."""
    rows = [{"index": number, "embedding": row} for number, row in zip(numbers, (ONE, TWO), strict=True)]
    for row in rows:
        if absent and row["index"] is None:
            del row["index"]
    return json.dumps({"data": rows}).encode()


@pytest.mark.parametrize(
    ("protocol", "path", "body"),
    [
        (OpenAI("m"), "/v1/embeddings", {"model": "m", "encoding_format": "base64", "input": ["é", [1, 2]]}),
        (OpenAI("m", path="/e", base64=False), "/e", {"model": "m", "input": ["é", [1, 2]]}),
        (EMBED, "/embed", {"texts": ["é", [1, 2]], "normalize_embeddings": False, "batch_size": 32}),
        (TEI(), "/embed", {"inputs": ["é", [1, 2]], "normalize": False}),
        (Ollama("m"), "/api/embed", {"model": "m", "input": ["é", [1, 2]]}),
    ],
)
def test_requests(protocol, path, body):
    sent = protocol.body(['"é"'.encode(), b"[1,2]"])
    assert protocol.path == path
    assert json.loads(sent) == body
    assert b"null" not in sent


@pytest.mark.parametrize(
    ("protocol", "body", "headers", "tokens"),
    [
        (OpenAI("m"), data((0, ONE), (1, TWO), usage={"prompt_tokens": 7}), {}, 7),
        (OpenAI("m"), data((1, as_base64(TWO)), (0, as_base64(ONE))), {}, None),
        (OpenAI("m"), data((1, TWO), (0, as_base64(ONE)), usage="many"), {}, None),
        (OpenAI("m"), data((0, ONE), (1, TWO), usage={"prompt_tokens": True}), {}, None),
        (EMBED, json.dumps({"vectors": [ONE, TWO], "count": 2}).encode(), {}, None),
        (EMBED, json.dumps({"embeddings": [ONE, TWO]}).encode(), {}, None),
        (TEI(), json.dumps([ONE, TWO]).encode(), {"x-compute-tokens": "5"}, 5),
        (TEI(), json.dumps([ONE, TWO]).encode(), {"x-compute-tokens": "x" * 99}, None),
        (Ollama("m"), json.dumps({"embeddings": [ONE, TWO], "prompt_eval_count": 4}).encode(), {}, 4),
    ],
)
def test_answers(protocol, body, headers, tokens):
    reply = protocol.read(body, headers, 2)
    assert reply.matrix.tolist() == [ONE, TWO]
    assert (reply.matrix.dtype, reply.matrix.flags.c_contiguous) == (np.float32, True)
    assert reply.n_tokens == tokens


@pytest.mark.parametrize(
    "body",
    [
        data((0, ONE)),
        data((0, ONE), (1, TWO), (2, TWO)),
        data((0, ONE), (0, TWO)),
        data((0, ONE), (1, TWO), (1, ONE)),
        data((0, ONE), (2, TWO)),
        data((-1, ONE), (0, TWO)),
        numbered(None, 0),
        numbered(None, 2),
        numbered(None, "2"),
        numbered(1, "1"),
        numbered("0", "00"),
        numbered("0", "-1"),
        numbered(True, 0),
        numbered(0.0, 1.0),
        numbered(0, "one"),
        numbered("²", 0),
        data((0, ONE), (1, [1.0])),
        data((0, []), (1, [])),
        data((0, ""), (1, "")),
        data((0, ONE), (1, ["1.0", 2])),
        data((0, as_base64(ONE)), (1, as_base64(TWO)[:-2])),
        data((0, as_base64(ONE)), (1, "*" + as_base64(TWO)[1:])),
        data((0, as_base64(ONE)), (1, "****" + as_base64(TWO))),
        data((0, as_base64(ONE)), (1, "é" + as_base64(TWO)[1:])),
        data((0, "AAAA"), (1, "AAAA")),
        b"<html><body>Bad gateway</body></html>",
        b'{"data":[{"index":0,',
        b'{"error":{"message":"no","type":"x"}}',
        b"[" * 5000,
        b'"NaN"',
        b"{NaN",
        b"NaN" + b"[" * 200_000,
        b"\xff\xfe{}",
        b"",
        b"null",
    ],
)
def test_what_is_not_two_vectors_is_refused_without_quoting_it(body):
    with pytest.raises(UpstreamError) as caught:
        OpenAI("m").read(body, {}, 2)
    assert "Bad gateway" not in caught.value.message
    assert caught.value.status == 502


@pytest.mark.parametrize("absent", [True, False], ids=["absent", "null"])
@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((None, None), [ONE, TWO]),  # Gemini numbers none
        ((None, 1), [ONE, TWO]),  # protobuf leaves out 0
        ((1, None), [TWO, ONE]),
        (("0", "1"), [ONE, TWO]),
        (("1", None), [TWO, ONE]),
        (("1", 0), [TWO, ONE]),
    ],
)
def test_rows_without_a_number(numbers, expected, absent):
    assert OpenAI("m").read(numbered(*numbers, absent=absent), {}, 2).matrix.tolist() == expected


def test_only_the_first_rows_number_may_be_missing():
    rows = [{"index": i, "embedding": ONE} for i in (0, 2)] + [{"embedding": TWO}]
    with pytest.raises(UpstreamError, match="numbered its vectors wrongly"):
        OpenAI("m").read(json.dumps({"data": rows}).encode(), {}, 3)


@pytest.mark.parametrize(
    ("usage", "name", "tokens"),
    [
        ({"total_tokens": 9}, "x", 9),
        ({"prompt_tokens": None, "total_tokens": 9}, None, 9),
        ({"prompt_tokens": 5, "total_tokens": 9}, None, 5),
        ({"prompt_tokens": 5, "total_tokens": 5}, "infinity-7b1c", None),
    ],
)
def test_tokens_are_whatever_the_backend_counted_as_such(usage, name, tokens):
    body = json.loads(data((0, ONE), usage=usage)) | ({"id": name} if name else {})
    assert OpenAI("m").read(json.dumps(body).encode(), {}, 1).n_tokens == tokens


@pytest.mark.parametrize("protocol", [OpenAI("m"), EMBED, TEI(), Ollama("m")])
@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"error":{"message":"no","type":"x"}}', "it is an error"),
        (b'{"error":"secret text"}', "it is an error"),
        (b" <!DOCTYPE html><p>secret text", "it is a web page"),
        (b'{"result":"secret text"}', "not what its protocol says$"),
    ],
)
def test_what_came_in_place_of_vectors_is_said(protocol, body, found):
    with pytest.raises(UpstreamError, match=found) as caught:
        protocol.read(body, {}, 1)
    assert "secret text" not in caught.value.message


@pytest.mark.parametrize("protocol", [EMBED, TEI(), Ollama("m")])
@pytest.mark.parametrize("rows", [[ONE], [ONE, TWO, TWO], [ONE, [1.0]], [], [[], []], [1.0, 2.0], None])
def test_short_long_and_ragged_answers_are_refused(protocol, rows):
    body = rows if isinstance(protocol, TEI) else {"embeddings": rows}
    with pytest.raises(UpstreamError):
        protocol.read(json.dumps(body).encode(), {}, 2)


@pytest.mark.parametrize(
    "row",
    ["[NaN, 1.0]", "[null, 1.0]", "[-Infinity, 1.0]", "[1e39, 1.0]", f'"{as_base64([float("nan"), 1.0])}"'],
)
def test_a_number_that_is_not_finite_is_left_for_the_server_to_refuse(row):
    body = b'{"data":[{"index":1,"embedding":%s},{"index":0,"embedding":[1.0, 0.5]}]}' % row.encode()
    matrix = OpenAI("m").read(body, {}, 2).matrix
    assert matrix[0].tolist() == ONE
    assert not np.isfinite(matrix[1, 0])
    assert matrix[1, 1] == 1.0


def test_every_float32_survives_both_encodings():
    bits = np.random.default_rng(5).integers(0, 2**32, 4096, dtype=np.uint32)
    exact = bits.view(np.float32)
    exact = exact[np.isfinite(exact)]
    for row in (as_base64(exact.tolist()), exact.astype(float).tolist()):
        assert np.array_equal(OpenAI("m").read(data((0, row)), {}, 1).matrix[0], exact)
