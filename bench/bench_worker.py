"""Reading and writing HTTP: the parser and the responses of our worker class beside gunicorn's own.

    pytest bench/bench_worker.py --benchmark-group-by=group --benchmark-columns=min,median,rounds

Both make requests with headers and a body out of the same bytes, and bytes for a socket out of the same
status, headers and body. bench/bench_http.py measures the whole layer with sockets; this is the part of
it that can be compared without any. A group is one kind of message: compare inside it.
"""

from __future__ import annotations

import json

import pytest
from gunicorn.config import Config
from gunicorn.http.parser import RequestParser
from gunicorn.http.wsgi import Response as GunicornResponse

from llmrs.server.http1 import Parser
from llmrs.server.response import Response

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


REQUEST = HEAD + b"Content-Length: 0\r\n\r\n"
ANSWER_HEADERS = [
    ("content-type", "application/json"),
    ("x-request-id", "0f3b8a1c5d7e49b2a6c4e8f001122334"),
    ("server-timing", "queue;dur=0.1, tokenize;dur=0.1, compute;dur=4.2"),
]


class Sink:
    """A socket that takes everything at once."""

    def __init__(self):
        self.sent = []

    def sendall(self, data):
        self.sent.append(data)

    def send_parts(self, *parts):
        self.sent += parts


@pytest.mark.parametrize("contender", ["llmrs", "gunicorn"])
@pytest.mark.parametrize("size", [2_000, 70_000])
def test_write(benchmark, size, contender):
    benchmark.group = f"write {size} bytes"
    body = b"x" * size
    headers = [*ANSWER_HEADERS, ("content-length", str(size))]
    sink = Sink()
    if contender == "llmrs":
        parser = Parser({})
        parser.feed(REQUEST)
        request = parser.next()

        def write():
            sink.sent.clear()
            response = Response(request, sink.send_parts)
            response.start("200 OK", headers)
            response.respond([body])

    else:
        request = next(RequestParser(CONFIG, iter([REQUEST]), ("127.0.0.1", 40000)))

        def write():
            sink.sent.clear()
            response = GunicornResponse(request, sink, CONFIG)
            response.start_response("200 OK", headers)
            response.write(body)

    benchmark(write)
    head, _, sent = b"".join(sink.sent).partition(b"\r\n\r\n")
    assert sent == body
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"x-request-id: 0f3b8a1c5d7e49b2a6c4e8f001122334" in head
