"""The HTTP parser without sockets: every split gives the same, and nothing but BadRequest comes out."""

from __future__ import annotations

import gc
import weakref

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from llmrs.server.http1 import MAX_HEAD, Parser
from llmrs.server.request import BadRequest, Limits, Request
from tests.worker.corpus import BAD, BAD_BODIES, CHUNKED, END, GET, GOOD, ONLY_OURS, POST, chunks

CORPUS = {**GOOD, **BAD, **BAD_BODIES, **{name: row[0] for name, row in ONLY_OURS.items()}}

TEMPLATE = {"wsgi.version": (1, 0)}

fuzz = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Outcome:
    """What a byte stream means: whole requests with their bodies, and how it ends."""

    def __init__(self, *pieces: bytes, limits: Limits | None = None) -> None:
        self.requests: list[tuple[dict[str, object], bool, bool, bytes, bool]] = []
        self.status = 0
        self._parser = Parser(TEMPLATE, limits)
        self._request: Request | None = None
        self._body = b""
        try:
            for piece in pieces:
                self._parser.feed(piece)
                self._take()
        except BadRequest as error:
            self.status = error.status
        if self._request is not None:
            self._note(self._request)
            self.status = self._request.fault.status if self._request.fault else self.status

    def _take(self) -> None:
        while True:
            if self._request is None:
                self._request = self._parser.next()
                if self._request is None:
                    return
            self._body += self._request.take()
            if not self._request.complete:
                return
            self._note(self._request)
            self._request, self._body = None, b""

    def _note(self, request: Request) -> None:
        self._body += request.take()
        self.requests.append(
            (request.environ, request.keep_alive, request.expects_continue, self._body, request.complete)
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Outcome) and (self.requests, self.status) == (other.requests, other.status)

    def __repr__(self) -> str:
        return f"{self.requests} then {self.status}"


@pytest.mark.parametrize("name", CORPUS)
def test_every_split_gives_the_same(name: str) -> None:
    stream = CORPUS[name]
    whole = Outcome(stream)
    step = 1 if len(stream) < 1000 else len(stream) // 200
    for cut in range(1, len(stream), step):
        assert Outcome(stream[:cut], stream[cut:]) == whole, cut


@pytest.mark.parametrize("name", [name for name, stream in CORPUS.items() if len(stream) < 5000])
def test_byte_by_byte_gives_the_same(name: str) -> None:
    stream = CORPUS[name]
    assert Outcome(*[stream[i : i + 1] for i in range(len(stream))]) == Outcome(stream)


@fuzz
@given(st.lists(st.sampled_from(sorted(CORPUS.values())), min_size=1, max_size=4), st.data())
def test_any_split_of_pipelined_requests_gives_the_same(streams: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(streams)
    assert Outcome(*split(stream, data)) == Outcome(stream)


@fuzz
@given(st.sampled_from(sorted(CORPUS.values())), st.data())
def test_mutated_requests_are_read_or_refused(stream: bytes, data: st.DataObject) -> None:
    mutated = bytearray(stream[:2000])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(mutated) - 1)))
        action = data.draw(st.sampled_from(("replace", "insert", "delete")))
        if action == "insert":
            mutated[at:at] = data.draw(
                st.sampled_from((b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"0", b"\xff", b",", b"\r\n\r\n"))
            )
        else:
            mutated[at : at + 1] = b"" if action == "delete" else bytes([data.draw(st.integers(0, 255))])
    check(bytes(mutated), data)


@fuzz
@given(st.binary(max_size=300), st.data())
def test_random_bytes_are_refused_or_wait_for_more(stream: bytes, data: st.DataObject) -> None:
    check(stream, data)


@fuzz
@given(st.binary(max_size=200), st.data())
def test_random_bytes_as_chunks_are_read_or_refused(body: bytes, data: st.DataObject) -> None:
    check(CHUNKED + body, data)


@fuzz
@given(st.binary(max_size=500), st.integers(1, 50), st.data())
def test_a_chunked_body_comes_out_as_it_went_in(body: bytes, size: int, data: st.DataObject) -> None:
    stream = CHUNKED + chunks(body, size) + GET + b"\r\n"
    outcome = Outcome(*split(stream, data))
    assert [request[3] for request in outcome.requests] == [body, b""]
    assert all(request[4] for request in outcome.requests)


def check(stream: bytes, data: st.DataObject) -> None:
    whole = Outcome(stream)
    assert whole.status in (0, 400, 414, 417, 431, 501, 505)
    for environ, *_ in whole.requests:
        assert str(environ["REQUEST_METHOD"]).replace("-", "").isalpha()
        assert environ["SERVER_PROTOCOL"] in ("HTTP/1.0", "HTTP/1.1")
        assert str(environ["PATH_INFO"])[:1] in ("/", "*")
        assert not any(
            set("\r\n\0") & set(str(value)) for key, value in environ.items() if key[:5] == "HTTP_"
        )
    assert Outcome(*split(stream, data)) == whole


def split(stream: bytes, data: st.DataObject) -> list[bytes]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    return [piece for piece in pieces if piece]


@pytest.mark.parametrize(
    ("start", "piece", "status"),
    [
        (b"GET /", b"y" * 1000, 414),
        (b"", b"y" * 1000, 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", b"X: y\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: ", b"y" * 1000, 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", b"y" * 1000, 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX:", b" " * 1000, 431),
        (CHUNKED + b"1;", b"y" * 1000, 431),
        (CHUNKED + b"1\r\nx\r\n0\r\n", b"X: y\r\n", 431),
        (CHUNKED + b"1\r\nx\r\n0\r\nX: ", b"y" * 1000, 431),
        (CHUNKED + b"0", b"0" * 1000, 431),
    ],
)
def test_what_a_parser_holds_is_bounded(start: bytes, piece: bytes, status: int) -> None:
    count = 2 * MAX_HEAD // len(piece)
    assert Outcome(start, *[piece] * count).status == status
    if not start.startswith(CHUNKED):  # what is no content is counted in whole reads there
        assert Outcome(start + piece * count).status == status


def test_no_limit_is_off_by_one() -> None:
    limits = Limits(line=30, fields=3, field=20)

    def status(line: int, fields: int, field: int) -> int:
        head = b"GET /" + b"y" * (line - 14) + b" HTTP/1.1\r\n"  # 14 bytes beside the y
        head += b"Host:x\r\n" + b"X:" + b"y" * (field - 4) + b"\r\n" + b"Y:y\r\n" * (fields - 2) + b"\r\n"
        outcomes = [Outcome(head, limits=limits), Outcome(head[:20], head[20:], limits=limits)]
        assert outcomes[0] == outcomes[1]
        return outcomes[0].status

    assert status(30, 3, 20) == 0
    assert status(31, 3, 20) == 414
    assert status(30, 4, 20) == 431
    assert status(30, 3, 21) == 431


def test_a_head_may_have_32_kib() -> None:
    limits = Limits(field=40_000)
    for size, status in ((MAX_HEAD, 0), (MAX_HEAD + 1, 431)):
        head = GET + b"X: " + b"y" * (size - len(GET) - 7) + b"\r\n\r\n"
        assert len(head) == size
        assert Outcome(head, limits=limits).status == status
        assert Outcome(head[:-1], head[-1:], limits=limits).status == status


def test_bytes_after_a_request_wait_unparsed() -> None:
    parser = Parser(TEMPLATE)
    parser.feed((GET + b"\r\n") * 1000 + b"nonsense\r\n\r\n")
    for _ in range(1000):
        assert parser.pending
        assert parser.next() is not None
    with pytest.raises(BadRequest):
        parser.next()


def test_the_environ_is_the_templates_copy() -> None:
    template = {"wsgi.version": (1, 0)}
    parser = Parser(template)
    parser.feed(POST + b"Content-Length: 5\r\nX-A: 1\r\n\r\nhello")
    request = parser.next()
    assert request is not None
    assert template == {"wsgi.version": (1, 0)}
    assert request.environ == {
        "wsgi.version": (1, 0),
        "REQUEST_METHOD": "POST",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "RAW_URI": "/echo?a=1&b=%20",
        "PATH_INFO": "/echo",
        "QUERY_STRING": "a=1&b=%20",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "5",
        "HTTP_HOST": "x",
        "HTTP_X_A": "1",
    }
    assert request.take() == b"hello"
    assert request.take() == b""


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"close", False),
        (b"1.1", b"x, Close", False),
        (b"1.1", b"keep-alive", True),
        (b"1.1", b"closer", True),
        (b"1.0", b"", False),
        (b"1.0", b"Keep-Alive", True),
        (b"1.0", b"keep-alive, close", False),
    ],
)
def test_who_wants_the_connection_kept(version: bytes, connection: bytes, kept: bool) -> None:
    head = b"GET / HTTP/%b\r\nHost: x\r\n" % version
    head += b"Connection: %b\r\n" % connection if connection else b""
    (request,) = Outcome(head + b"\r\n").requests
    assert request[1] is kept


def test_refusals_are_errors_of_the_contracts_kind() -> None:
    refusal = BadRequest(400, "x")
    assert (refusal.status, refusal.type, refusal.code) == (400, "invalid_request_error", None)
    assert BadRequest(501, "x").type == "server_error", "the other words must not be in a 5xx answer"


def test_a_barren_stretch_of_chunks_ends_with_content() -> None:
    """Extensions are bounded between two pieces of content, not over a long body."""
    extension = b"1;" + b"y" * 20_000 + b"\r\nx\r\n"
    (request,) = Outcome(CHUNKED, *[extension] * 10, END).requests
    assert (request[3], request[4]) == (b"x" * 10, True)


def test_a_closed_parser_is_freed_at_once() -> None:
    """The cyclic collector comes rarely: ten thousand connections would leave 18 MB behind."""
    gc.disable()
    try:
        parser = Parser({})
        parser.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        parser.next()
        gone = weakref.ref(parser)
        parser.close()
        del parser
        assert gone() is None
    finally:
        gc.enable()
