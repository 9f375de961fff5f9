"""Reading HTTP: the parser of our worker class beside gunicorn's own.

    pytest bench/bench_worker.py --benchmark-group-by=group --benchmark-columns=min,median,rounds

Both make requests with headers and a body out of the same bytes. bench/bench_http.py measures the whole
layer with sockets; this is the part of it that can be compared without any. A group is one kind of
request: compare inside it.
"""

from __future__ import annotations

import json

import pytest
from gunicorn.config import Config
from gunicorn.http.parser import RequestParser

from llmrs.server.http1 import Parser

SENTENCE = "The quick brown fox jumps over the lazy dog, and then does it once more for good measure."
HEAD = (
    b"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1:3000\r\nAccept: application/json\r\n"
    b"Content-Type: application/json\r\nUser-Agent: OpenAI/Python 2.8.0\r\nAuthorization: Bearer sk-none\r\n"
    b"X-Stainless-Lang: python\r\nX-Stainless-Retry-Count: 0\r\nAccept-Encoding: gzip, deflate\r\n"
)
CONFIG = Config()


def message(texts, chunked):
    body = json.dumps({"input": [SENTENCE] * texts, "model": "m", "encoding_format": "base64"}).encode()
    if not chunked:
        return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body, body
    pieces = [body[start : start + 1000] for start in range(0, len(body), 1000)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + framed, body


def ours(data):
    parser = Parser({})
    parser.feed(data)
    request = parser.next()
    return request.environ["HTTP_AUTHORIZATION"], request.take()


def gunicorn(data):
    request = next(RequestParser(CONFIG, iter([data]), ("127.0.0.1", 40000)))
    return dict(request.headers)["AUTHORIZATION"], request.body.read()


@pytest.mark.parametrize("contender", ["llmrs", "gunicorn"])
@pytest.mark.parametrize("framing", ["counted", "chunked"])
@pytest.mark.parametrize("texts", [1, 32])
def test_read(benchmark, texts, framing, contender):
    benchmark.group = f"read {framing}, {texts} texts"
    data, body = message(texts, framing == "chunked")
    assert benchmark(ours if contender == "llmrs" else gunicorn, data) == ("Bearer sk-none", body)
