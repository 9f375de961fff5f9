"""Responses to bytes, and wsgi.input, without sockets."""

from __future__ import annotations

import io
import random
import re

import pytest

from llmrs.server import response as response_module
from llmrs.server import wsgi
from llmrs.server.request import Request
from llmrs.server.response import JOIN_BYTES, Response
from llmrs.server.wsgi import Input, header_key, split_target
from tests.worker.client import Answer, answers

LENGTH = ("Content-Length", "2")


class Exchange:
    """A response and the writes it makes."""

    def __init__(self, method: str = "GET", version: str = "HTTP/1.1") -> None:
        self.writes: list[bytes] = []
        self.response = Response(
            Request({}, method, version), lambda *parts: self.writes.append(b"".join(parts))
        )

    @property
    def answer(self) -> Answer:
        (answer,) = answers(b"".join(self.writes))
        return answer


def test_a_list_leaves_in_one_write() -> None:
    for body in ([b"ok"], [b"o", b"k"], (b"ok",)):
        exchange = Exchange()
        exchange.response.start("200 OK", [("Content-Type", "text/plain")])
        exchange.response.respond(body)
        assert len(exchange.writes) == 1
        assert exchange.answer.body == b"ok"
        assert exchange.answer.headers["content-length"] == "2"
        assert not exchange.response.close


def test_a_large_body_is_not_copied() -> None:
    sent: list[tuple[bytes, ...]] = []
    response = Response(Request({}, "GET", "HTTP/1.1"), lambda *parts: sent.append(parts))
    body = b"x" * JOIN_BYTES
    response.start("200 OK", [])
    response.respond([body])
    assert sent[0][1] is body


def test_a_stream_is_chunked_and_each_piece_leaves_before_the_next_is_made() -> None:
    exchange = Exchange()
    seen = []

    def pieces():
        for piece in (b"one", b"", b"two"):
            seen.append(len(exchange.writes))
            yield piece

    exchange.response.start("200 OK", [])
    exchange.response.respond(pieces())
    assert seen == [0, 1, 1]
    assert exchange.answer.body == b"onetwo"
    assert exchange.answer.headers["transfer-encoding"] == "chunked"


def test_to_http_1_0_a_stream_ends_with_the_connection() -> None:
    exchange = Exchange(version="HTTP/1.0")
    exchange.response.start("200 OK", [])
    exchange.response.respond(iter([b"one", b"two"]))
    assert exchange.response.close
    assert exchange.answer.headers["connection"] == "close"
    assert (exchange.answer.body, "transfer-encoding" in exchange.answer.headers) == (b"onetwo", False)


def test_a_stream_without_pieces_is_an_empty_answer() -> None:
    exchange = Exchange()
    exchange.response.start("200 OK", [])
    exchange.response.respond(iter(()))
    assert exchange.answer.body == b""


@pytest.mark.parametrize("body", [[b"o"], iter([b"o"]), [], iter(())])
def test_less_than_declared_ends_the_connection(body: list[bytes]) -> None:
    exchange = Exchange()
    exchange.response.start("200 OK", [LENGTH])
    exchange.response.respond(body)
    assert exchange.response.close


@pytest.mark.parametrize("body", [[b"okay"], iter([b"o", b"kay", b"?"])])
def test_more_than_declared_is_cut_off(body: list[bytes]) -> None:
    exchange = Exchange()
    exchange.response.start("200 OK", [LENGTH])
    exchange.response.respond(body)
    assert exchange.answer.body == b"ok"
    assert not exchange.response.close


@pytest.mark.parametrize(("method", "status"), [("HEAD", "200 OK"), ("GET", "204 No"), ("GET", "304 No")])
@pytest.mark.parametrize("streamed", [True, False])
def test_an_answer_without_a_body(method: str, status: str, streamed: bool) -> None:
    exchange = Exchange(method)
    exchange.response.start(status, [("A", "b")])
    exchange.response.respond(iter([b"body"]) if streamed else [b"body"])
    raw = b"".join(exchange.writes)
    assert raw.endswith(b"\r\nA: b\r\n\r\n")
    assert b"ransfer" not in raw
    assert not exchange.response.close


def test_a_204_has_no_length() -> None:
    for status, present in (("204 No Content", False), ("304 Not Modified", True)):
        exchange = Exchange()
        exchange.response.start(status, [LENGTH])
        exchange.response.respond([])
        assert ("content-length" in exchange.answer.headers) is present


def test_the_date_is_current_and_the_server_unversioned() -> None:
    exchange = Exchange()
    exchange.response.start("200 OK", [])
    exchange.response.respond([b""])
    head = exchange.writes[0].decode()
    assert re.search(r"\r\nDate: \w{3}, \d\d \w{3} 20\d\d \d\d:\d\d:\d\d GMT\r\n", head)
    assert "\r\nServer: llmrs\r\n" in head


def test_an_application_may_name_its_own_server_and_date() -> None:
    exchange = Exchange()
    exchange.response.start("200 OK", [("server", "theirs"), ("DATE", "today")])
    exchange.response.respond([b""])
    assert exchange.answer.headers["server"] == "theirs"
    assert exchange.answer.headers["date"] == "today"


@pytest.mark.parametrize(
    ("name", "value"),
    [("A", "b\r\nC: d"), ("A\r\nC", "d"), ("A", "b\0"), ("A", "b\nC"), ("A", "b\r"), ("A:", "b"), ("", "b"),
     ("A b", "c"), ("Content-Length", "-1"), ("Content-Length", "x")],
)  # fmt: skip
def test_a_header_that_would_break_the_response_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=r"header|Content-Length"):
        Exchange().response.start("200 OK", [(name, value)])


@pytest.mark.parametrize("status", ["", "200OK", "99 No", "101 Switching", "200 OK\r\nA: b", "200 \0", "OK"])
def test_a_status_that_would_break_the_response_is_refused(status: str) -> None:
    with pytest.raises(ValueError, match="status"):
        Exchange().response.start(status, [])


def test_start_response_again_replaces_what_was_not_sent() -> None:
    exchange = Exchange()
    error = ValueError("x")
    exchange.response.start("200 OK", [LENGTH, ("A", "first")])
    with pytest.raises(AssertionError):
        exchange.response.start("200 OK", [])
    exchange.response.start("500 Oops", [("B", "second")], (ValueError, error, None))
    exchange.response.respond([b"replaced"])
    assert (exchange.answer.status, exchange.answer.body) == (500, b"replaced")
    assert "a" not in exchange.answer.headers
    with pytest.raises(ValueError, match="x"):
        exchange.response.start("500 Oops", [], (ValueError, error, None))


def test_without_start_response_nothing_is_sent() -> None:
    for result in ([b"x"], iter([b"x"]), iter(())):
        exchange = Exchange()
        with pytest.raises(AssertionError):
            exchange.response.respond(result)
        assert exchange.writes == []


def test_names_that_others_choose_are_not_all_remembered() -> None:
    for i in range(3000):
        header_key(b"X-%d" % i)
        Exchange().response.start("200 OK", [(f"X-{i}", "y")])
    assert len(wsgi.KEYS) <= wsgi.MAX_NAMES
    assert len(response_module._kinds) <= response_module.MAX_NAMES
    assert header_key(b"X-2999") == "HTTP_X_2999"


@pytest.mark.parametrize(
    ("name", "key"),
    [(b"host", "HTTP_HOST"), (b"Content-TYPE", "CONTENT_TYPE"), (b"X-A-b", "HTTP_X_A_B"), (b"X_A", ""),
     (b"Content_Length", ""), (b"HTTP-HOST", "HTTP_HTTP_HOST")],
)  # fmt: skip
def test_environ_keys(name: bytes, key: str) -> None:
    assert header_key(name) == key


def test_targets() -> None:
    assert split_target("/a%20b?c=%20#d", "GET") == ("/a b", "c=%20", "")
    assert split_target("//a", "GET") == ("//a", "", "")
    assert split_target("http://h:1?q", "GET") == ("/", "q", "h:1")
    for target, method in (
        ("*", "GET"),
        ("h:80", "GET"),
        ("ftp://h/", "GET"),
        ("http:///p", "GET"),
        ("", "GET"),
    ):
        with pytest.raises(ValueError, match="target"):
            split_target(target, method)


# -- wsgi.input -----------------------------------------------------------------------------------


def make_input(pieces: list[bytes], arrived: int) -> Input[Request]:
    """An input whose first pieces have arrived; the others come when they are asked for."""
    request = Request({}, "POST", "HTTP/1.1")
    request.pieces = pieces[:arrived]
    coming = list(pieces[arrived:])
    request.complete = not coming

    def more(asked: Request) -> bytes:
        assert asked is request
        piece = coming.pop(0) if coming else b""
        request.complete = not coming
        return piece

    return Input(request, more)


BODY = b"first\nsecond\n\nthird, the longest of them\nend"
CALLS = ["read", "read5", "read0", "readline", "readline3", "readlines", "iterate", "read1000"]


@pytest.mark.parametrize("seed", range(200))
def test_an_input_reads_like_a_file(seed: int) -> None:
    dice = random.Random(seed)
    cuts = sorted(dice.sample(range(1, len(BODY)), dice.randrange(6)))
    pieces = [BODY[a:b] for a, b in zip([0, *cuts], [*cuts, len(BODY)], strict=True)]
    ours, file = make_input(pieces, dice.randrange(len(pieces) + 1)), io.BytesIO(BODY)
    for call in dice.choices(CALLS, k=6):
        assert perform(ours, call) == perform(file, call), call
    assert ours.read() == file.read()
    assert ours.read() == ours.read(5) == ours.readline() == b""


def perform(stream, call):
    actions = {
        "read": lambda: stream.read(),
        "read0": lambda: stream.read(0),
        "read5": lambda: stream.read(5),
        "read1000": lambda: stream.read(1000),
        "readline": lambda: stream.readline(),
        "readline3": lambda: stream.readline(3),
        "readlines": lambda: stream.readlines(8),
        "iterate": lambda: next(iter(stream), b""),
    }
    return actions[call]()
