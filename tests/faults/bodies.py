"""Requests that no sane client sends, made from a seed: the same seed makes the same requests.

Half of them are valid JSON with something wrong in it; the others are broken JSON, no JSON, and HTTP
whose lengths, codings and types lie.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple

ROUTES = ("/v1/embeddings", "/v1/embeddings", "/embeddings", "/embed", "/v1/embeddings/")

OPENAI: tuple[dict[str, Any], ...] = (
    {"input": "hello world"},
    {"input": ["a", "b c", "你好", ""], "model": "all-MiniLM-L6-v2"},
    {"input": [7592, 2088], "encoding_format": "base64"},
    {"input": [[7592], [2088, 102]], "user": "someone", "dimensions": 384},
    {"input": ["x"], "input_type": "query", "truncate": "end", "encoding_format": "float"},
    {"input": "x " * 300, "truncate": "start", "dimensions": 8},
)
EMBED: tuple[dict[str, Any], ...] = (
    {"texts": ["a", "b"], "normalize_embeddings": False, "batch_size": 1},
    {"texts": "one"},
    {"inputs": ["a", "b"], "normalize": True, "truncate": True},
    {"inputs": "one", "prompt_name": "query", "dimensions": 16},
)
WEIRD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 384, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 0.5, -0.0, 1e308, "",
    " ", "\0", "\ud800", "\udfff x", "\ufeff", "é" * 50, "a\u0301" * 20, "\U0010ffff", "base64", "float",
    "all-MiniLM-L6-v2", [], {}, [[]], [None], [[1], "a"], ["a", 1], [1.5], [-1], [2**40], [True], {"a": []},
    [[[1]]], ["a"] * 40, [[1]] * 40, "w " * 600, float("nan"), float("inf"),
)  # fmt: skip
RAW = (
    b"", b"null", b"true", b"[]", b"{}", b'"input"', b"{", b"}", b"[[", b'{"input":', b'{"input":"a"',
    b'{"input":"a"}x', b'{"input":"a"}{}', b"\xef\xbb\xbf{}", b'{"input":"\xff"}', b"\0\0\0\0",
    b'{"input":"\xed\xa0\x80"}', b'{"input":"\\ud800"}', b'{"input":"\\udc00\\ud800"}', b'{"input":"\\x"}',
    b'{"input":"a\nb"}', b'{"input":1e999}', b'{"input":[1e999]}', b'{"input":-}', b'{"input":01}',
    b'{"input":NaN}', b"{'input':1}", b'{"input":"a","input":["b","c"]}', b'{"input":"a","dimensions":1e2}',
    b'{"input":"a","dimensions":384.0}', b'{"input":"a",}', b'{"input":"a" /* c */}', b"input=a",
    b"\x1f\x8b\x08\0\0",
)  # fmt: skip
TOKENS = (b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\0", b"\\ud83d", b"9")
TYPES = (
    "text/plain", "", "application/json; charset=utf-16", "APPLICATION/JSON",
    "application/json;charset=utf-8",
    "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "application/json, text/html",
    "application/ld+json", "application/json; charset", "*/*", "json", "application/json\t", "\xff",
)  # fmt: skip


class Case(NamedTuple):
    """A request as it is sent.

    Attributes:
        raw: all of its bytes.
        body: what its body is; None where its framing lies, so that nobody can tell.
    """

    raw: bytes
    body: bytes | None
    route: str


def make(rng: random.Random) -> Case:
    """The next request."""
    return rng.choices(KINDS, WEIGHTS)[0](rng)


# -- bodies -----------------------------------------------------------------------------------


def wrong_values(rng: random.Random) -> Case:
    """Valid JSON in which one to three things have been changed."""
    route, document = _document(rng)
    for _ in range(rng.randint(1, 3)):
        document = _change(rng, document)
    return _plain(route, _dump(document))


def duplicate_keys(rng: random.Random) -> Case:
    """Two documents run together, so that most of their keys stand twice."""
    route, first = _document(rng)
    second = _dump(_change(rng, _document(rng)[1]))
    return _plain(route, _dump(first)[:-1] + b"," + second.lstrip(b"{"))


def wrong_bytes(rng: random.Random) -> Case:
    """The text of valid JSON with bytes changed, lost, doubled or cut off."""
    route, document = _document(rng)
    raw = bytearray(_dump(document))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(raw) + 1)
        match rng.randrange(5):
            case 0:
                raw[at : at + 1] = rng.randbytes(1)
            case 1:
                raw[at:at] = rng.choice(TOKENS)
            case 2:
                del raw[at : at + rng.randint(1, 9)]
            case 3:
                raw[at:at] = raw[at : at + 20]
            case _:
                del raw[at:]
    return _plain(route, bytes(raw))


def no_json(rng: random.Random) -> Case:
    raw = rng.choice(RAW) if rng.random() < 0.7 else rng.randbytes(rng.randint(0, 300))
    return _plain(rng.choice(ROUTES), raw)


def deep(rng: random.Random) -> Case:
    """Nested deeper than any parser that calls itself can follow."""
    depth = int(10 ** rng.uniform(1, 4.7))
    before, after = rng.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'[{"b":', b"}]")))
    value = before * depth + b"1" + after * (depth if rng.random() < 0.7 else 0)
    return _plain(rng.choice(ROUTES), b'{"input":' + value + b"}" if rng.random() < 0.7 else value)


def large(rng: random.Random) -> Case:
    """Many inputs, long texts, long numbers, long keys."""
    count = int(10 ** rng.uniform(2, 4.5))
    value = rng.choice(
        (b'"' + b"a" * count + b'"', b"9" * count, b"0." + b"9" * count, b"[" + b"1," * count + b"1]",
         b'["' + b'","' * count + b'"]', b"1e" + b"9" * min(count, 50), b'"' + b"\\u4e2d" * count + b'"')
    )  # fmt: skip
    key = rng.choice((b"input", b"input", b"dimensions", b"model", b"user", b"x" * count))
    return _plain("/v1/embeddings", b'{"input":"a","' + key + b'":' + value + b"}")


# -- HTTP -------------------------------------------------------------------------------------


def wrong_type(rng: random.Random) -> Case:
    route, document = _document(rng)
    extra = rng.choice(("", "", "Content-Encoding: gzip\r\n", "Content-Encoding: identity\r\n"))
    return _plain(route, _dump(document), rng.choice(TYPES), extra)


def wrong_length(rng: random.Random) -> Case:
    """A length that is not the body's, not a number, or there twice."""
    route, document = _document(rng)
    body = _dump(document)
    length = rng.choice(
        (str(len(body) - rng.randint(1, 9)), str(len(body) + rng.randint(1, 9999)), "-1", "+5", "0x10",
         "", "5 5", "1" * 30, f"{len(body)}, {len(body)}", f"{len(body)}\r\nContent-Length: 5", "0")
    )  # fmt: skip
    return Case(_head(route, f"Content-Length: {length}\r\n") + body, None, route)


def wrong_chunks(rng: random.Random) -> Case:
    """Chunks that lie about their sizes, have no end, or hold nothing."""
    route, document = _document(rng)
    body = _dump(document)
    size = rng.choice(
        (b"%x" % len(body), b"%x" % (len(body) + 3), b"zz", b"-1", b"f" * 20, b"", b"1;a=b", b" 5")
    )
    end = rng.choice(
        (b"\r\n0\r\n\r\n", b"\r\n0\r\n", b"", b"0\r\n\r\n", b"\r\n0\r\nX: y\r\n\r\n", b"\n0\n\n")
    )
    coding = rng.choice(("chunked", "chunked", "gzip, chunked", "chunked\r\nContent-Length: 3", "xchunked"))
    return Case(_head(route, f"Transfer-Encoding: {coding}\r\n") + size + b"\r\n" + body + end, None, route)


def wrong_head(rng: random.Random) -> Case:
    """A valid request whose head has bytes changed."""
    route, document = _document(rng)
    body = _dump(document)
    head = bytearray(_head(route, f"Content-Length: {len(body)}\r\n"))
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(head))
        head[at : at + rng.randint(0, 2)] = rng.choice(
            (rng.randbytes(1), b"\r\n", b"\n", b" ", b":", b"\0", b"")
        )
    return Case(bytes(head) + body, None, route)


KINDS: tuple[Callable[[random.Random], Case], ...] = (
    wrong_values, duplicate_keys, wrong_bytes, no_json, deep, large, wrong_type, wrong_length, wrong_chunks,
    wrong_head,
)  # fmt: skip
WEIGHTS = (40, 4, 20, 8, 2, 2, 6, 6, 6, 6)


# -- parts ------------------------------------------------------------------------------------


def _document(rng: random.Random) -> tuple[str, Any]:
    route = rng.choice(ROUTES)
    return route, deepcopy(rng.choice(EMBED if route == "/embed" else OPENAI))


def _change(rng: random.Random, document: Any) -> Any:
    """Put something else in the place of a random part of a document, or take it away."""
    if not isinstance(document, (dict, list)) or not document or rng.random() < 0.2:
        return deepcopy(rng.choice(WEIRD))
    key = rng.choice(list(document) if isinstance(document, dict) else range(len(document)))
    if rng.random() < 0.15:
        del document[key]
    elif rng.random() < 0.15 and isinstance(document, dict):
        key = rng.choice(("input", "texts", "inputs", "dimensions", "truncate", "x"))
        document[key] = deepcopy(rng.choice(WEIRD))
    else:
        document[key] = _change(rng, document[key])
    return document


def _dump(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=True).encode()


def _head(route: str, fields: str, kind: str = "application/json") -> bytes:
    return f"POST {route} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n{fields}\r\n".encode("latin-1")


def _plain(route: str, body: bytes, kind: str = "application/json", extra: str = "") -> Case:
    return Case(_head(route, f"{extra}Content-Length: {len(body)}\r\n", kind) + body, body, route)
