"""The corpus through our worker and gunicorn's own, which is the oracle: the same answers."""

from __future__ import annotations

import select

import pytest

from tests.processes import Server
from tests.worker.client import Answer, answers, ask, connect, exchange
from tests.worker.corpus import BAD, BAD_BODIES, GOOD, HOST, ONLY_OURS, POST, STATUS


def told(raw: bytes) -> list[tuple[int, object]]:
    return [answer.told for answer in answers(raw)]


def assert_refused(raw: bytes, status: int) -> None:
    """One answer, in the contract's form of an error, which repeats nothing of the request."""
    found = answers(raw)
    assert [answer.status for answer in found] == [status], raw
    headers, body = found[0].headers, found[0].json
    assert headers["connection"] == "close"
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"]
    assert isinstance(body, dict)
    assert set(body["error"]) == {"message", "type", "param", "code"}
    message = body["error"]["message"]
    assert not any(word in message for word in ("hello", "yyy", "nonsense", "miracles", "BREW"))
    assert ("invalid_request_error" in str(body)) == (status < 500)


@pytest.mark.parametrize("name", GOOD)
def test_good_requests_get_the_same_answers(ours: Server, stock: Server, name: str) -> None:
    found = told(exchange(ours, GOOD[name]))
    assert found == told(exchange(stock, GOOD[name]))
    assert found
    assert all(status in (200, 204, 304, 500) for status, _ in found)


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_refused_by_both(ours: Server, stock: Server, name: str) -> None:
    theirs = [answer.status for answer in answers(exchange(stock, BAD[name]))]
    if name in STATUS:
        status, expected, _ = STATUS[name]
        assert theirs == [expected]
    else:
        assert len(theirs) == 1
        status = theirs[0]
        assert 400 <= status < 500
    assert_refused(exchange(ours, BAD[name]), status)


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bad_bodies_are_refused_by_both(ours: Server, stock: Server, name: str) -> None:
    """To an application that reads without care, gunicorn answers with the status of its own error."""
    theirs = [answer.status for answer in answers(exchange(stock, BAD_BODIES[name]))]
    assert theirs in ([400], []), "when a body ends early it says nothing"
    assert_refused(exchange(ours, BAD_BODIES[name]), 400)


@pytest.mark.parametrize("name", ONLY_OURS)
def test_what_only_ours_refuses(ours: Server, stock: Server, name: str) -> None:
    request, status, _ = ONLY_OURS[name]
    assert_refused(exchange(ours, request), status)
    assert [answer.status for answer in answers(exchange(stock, request))] == [200]


@pytest.mark.parametrize(
    "name",
    ["post", "chunk extensions", "trailers", "pipelined", "expect", "latin-1 value",
     "offer of HTTP/2, with chunks", "one empty line first"],
)  # fmt: skip
def test_split_at_any_byte_a_request_is_the_same(ours: Server, name: str) -> None:
    """Over a real socket, at some places; test_http1.py does it at all of them."""
    request = GOOD[name]
    whole = told(exchange(ours, request))
    for cut in range(1, len(request), 1 + len(request) // 30):
        assert told(exchange(ours, request[:cut], request[cut:])) == whole


def test_byte_by_byte(ours: Server) -> None:
    request = GOOD["pipelined after chunked"]
    assert told(exchange(ours, *[bytes([byte]) for byte in request])) == told(exchange(ours, request))


def test_what_comes_before_a_bad_request_is_answered(ours: Server) -> None:
    found = answers(exchange(ours, GOOD["get"] + GOOD["post"] + BAD["two hosts"]))
    assert [answer.status for answer in found] == [200, 200, 400]


def test_nothing_that_comes_after_a_closing_request_is_answered(ours: Server) -> None:
    found = answers(exchange(ours, GOOD["connection: close"] + GOOD["get"]))
    assert [answer.status for answer in found] == [200]


def test_a_smuggled_request_is_not_answered(ours: Server) -> None:
    """Two readers that disagree about the end of a body: one of them takes this for a request."""
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    for lengths in (
        b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n" % len(smuggled),
        b"Content-Length: 0\r\nContent-Length: %d\r\n" % len(smuggled),
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding: \x0bchunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"X: y\nTransfer-Encoding: chunked\r\n",
    ):
        raw = exchange(ours, POST + lengths + b"\r\n0\r\n\r\n" + smuggled)
        assert [answer.status for answer in answers(raw)] in ([400], [501]), lengths


@pytest.mark.parametrize("path", [b"/", b"/stream", b"/late", b"/nothing", b"/write"])
def test_head_has_the_headers_and_no_body(ours: Server, stock: Server, path: bytes) -> None:
    request = b"HEAD %b HTTP/1.1\r\n%b\r\n" % (path, HOST)
    heads = []
    for server in (ours, stock):
        head, _, rest = exchange(server, request).partition(b"\r\n\r\n")
        assert rest == b""
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
        heads.append((head.split(b" ")[1], lengths))
    assert heads[0] == heads[1]


def test_trailers_become_no_headers_of_the_next_request(ours: Server) -> None:
    first, second = answers(exchange(ours, GOOD["trailers"]))
    for answer in (first, second):
        assert isinstance(answer.json, dict)
        assert answer.json["headers"] == {"HTTP_HOST": "x"} | (
            {"HTTP_TRANSFER_ENCODING": "chunked"} if answer is first else {}
        )


def test_the_host_of_an_absolute_form_counts(ours: Server) -> None:
    """RFC 9112 (3.2.2). gunicorn keeps the header."""
    (answer,) = answers(exchange(ours, b"GET http://u@real:80/p HTTP/1.1\r\nHost: other\r\n\r\n"))
    assert isinstance(answer.json, dict)
    assert (answer.json["headers"], answer.json["path"]) == ({"HTTP_HOST": "real:80"}, "/p")


def test_a_pipelined_flood_is_answered_in_order(ours: Server) -> None:
    requests = [b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % i for i in range(2000)]
    found = answers(exchange(ours, b"".join(requests)))
    assert [path(answer) for answer in found] == [f"/{i}" for i in range(2000)]


def test_a_pipelined_flood_does_not_keep_others_waiting(ours: Server) -> None:
    """A second's worth of requests in one packet."""
    with connect(ours) as flood, connect(ours) as other:
        assert ask(other).status == 200
        flood.sendall(b"GET /busy?5 HTTP/1.1\r\nHost: x\r\n\r\n" * 200)
        flood.recv(1)
        assert ask(other).status == 200
        flood.setblocking(False)
        early = flood.recv(1 << 20) if select.select([flood], [], [], 0)[0] else b""
        assert early.count(b"HTTP/1.1 200") < 190, "it was answered before the flood was"


def path(answer: Answer) -> object:
    assert isinstance(answer.json, dict)
    return answer.json["path"]
