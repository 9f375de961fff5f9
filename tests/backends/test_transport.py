"""One address: deadlines that hold against dripping servers, bounded answers, stale connections."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from llmrs.backends import connections
from llmrs.backends.transport import Answer, Transport
from llmrs.errors import ConfigError, DeadlineExceeded, UpstreamError

from .services.misbehaving import BROKEN, DRIPPING, closes, drips, hangs, once_per_connection, resets, says
from .services.wire import head, serve

KEY = "sk-secret-key"
SHORT = 0.4
"""Seconds of deadline in tests that wait for it to pass."""


def connect(service, **options):
    return Transport(service.url, connections=2, api_key=KEY, **options)


def post(transport, body=b"{}", *, seconds=10.0, limit=1 << 20, path="/embed"):
    return transport.post(path, body, deadline=time.monotonic() + seconds, limit=limit)


def ok(connection, request):
    connection.answer({"ok": True})


@pytest.fixture
def service():
    with serve(ok) as running:
        yield running


def test_a_request_carries_the_key_and_asks_for_plain_bytes(service):
    answer = post(connect(service), b'{"a":1}')
    assert (answer.status, answer.body) == (200, b'{"ok": true}')
    (request,) = service.requests
    assert (request.method, request.path, request.body) == ("POST", "/embed", b'{"a":1}')
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["content-type"] == "application/json"


def test_lines_of_one_request_are_not_sent_with_the_next(service):
    transport = connect(service)
    for lines in (b"x-request-timeout: 1.500\r\nx-other: 2\r\n", b""):
        transport.post("/embed", b"{}", deadline=time.monotonic() + 5, limit=100, lines=lines)
    first, second = service.requests
    assert (first.headers["x-request-timeout"], first.headers["x-other"]) == ("1.500", "2")
    assert first.body == second.body == b"{}"
    assert not {"x-request-timeout", "x-other"} & second.headers.keys()


def test_connections_are_kept(service):
    transport = connect(service)
    for _ in range(3):
        post(transport)
        transport.get("/health", deadline=time.monotonic() + 5, limit=100)
    assert {request.connection for request in service.requests} == {1}


@pytest.mark.parametrize(
    ("suffix", "path"),
    [("", "/embed"), ("/", "/embed"), ("/v1", "/embed"), ("/a/b/v1/", "/a/b/embed"), ("/x", "/x/embed")],
)
def test_an_address_may_have_a_path(service, suffix, path):
    transport = Transport(service.url + suffix, connections=1)
    assert post(transport).status == 200
    assert service.requests[0].path == path
    assert "authorization" not in service.requests[0].headers


def test_a_unix_socket(tmp_path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    with serve(ok, listener) as service:
        transport = connect(service)
        assert [post(transport).status for _ in range(3)] == [200] * 3
        assert {request.connection for request in service.requests} == {1}
    with pytest.raises(UpstreamError, match="cannot be reached: connecting failed"):
        post(transport)
    transport.close()


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000", "ftp://host", "http://", "http://h:99999", "http://[::1", "http://h /",
        "http://user:pw@host", "http://h/?key=pw", "http://h/#pw", "unix:pw", "",
    ],
)  # fmt: skip
def test_what_is_no_address_stops_the_start_without_being_quoted(url):
    with pytest.raises(ConfigError) as caught:
        Transport(url, connections=1)
    assert "backend_url" in str(caught.value)
    assert "pw" not in str(caught.value)


def test_proxies_netrc_and_cookies_are_not_used(service, tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    service.behave = lambda connection, request: connection.answer({}, Set_Cookie="a=b")
    transport = Transport(service.url, connections=1)
    assert [post(transport).status for _ in range(2)] == [200, 200]
    assert not {"authorization", "cookie"} & service.requests[1].headers.keys()


def test_a_refused_connection():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(UpstreamError, match="cannot be reached: connecting failed"):
        post(Transport(f"http://127.0.0.1:{port}", connections=1))


def test_an_unknown_host():
    with pytest.raises(UpstreamError, match="host name cannot be resolved"):
        post(Transport("http://backend.invalid", connections=1))


@pytest.mark.parametrize("behave", DRIPPING.values(), ids=DRIPPING)
def test_no_server_holds_a_caller_beyond_the_deadline(behave):
    with serve(behave) as service:
        transport = connect(service)
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            post(transport, seconds=SHORT)
        assert SHORT * 0.9 < time.monotonic() - start < SHORT + 0.5
        service.behave = ok
        assert post(transport).status == 200
        assert service.requests[-1].connection == 2, "the connection with half an answer in it was used again"


def test_the_deadline_is_no_later_for_what_came_before():
    def drips_then_stops(connection, request):
        drips(b" " * 6, at_once=head(200, 100))(connection, request)
        return hangs(connection, request)

    with serve(drips_then_stops) as service:
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            post(connect(service), seconds=SHORT)
        assert time.monotonic() - start < SHORT + 0.2, "the last read had the whole time again"


def test_a_server_that_does_not_read_holds_no_caller():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport = Transport(f"http://127.0.0.1:{listener.getsockname()[1]}", connections=1)
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            post(transport, b"x" * (32 << 20), seconds=SHORT)
        assert time.monotonic() - start < SHORT + 0.5


def test_connecting_has_a_limit_of_its_own(monkeypatch):
    monkeypatch.setattr(connections, "CONNECT_SECONDS", 0.2)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fill = [socket.socket() for _ in range(4)]  # a full backlog drops further SYNs
        for sock in fill:
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        with pytest.raises(UpstreamError, match="connecting timed out"):
            post(Transport(f"http://127.0.0.1:{listener.getsockname()[1]}", connections=1), seconds=5)
        for sock in fill:
            sock.close()


@pytest.mark.parametrize("behave", BROKEN.values(), ids=BROKEN)
def test_broken_answers_are_errors_and_not_retried(behave):
    with serve(behave) as service:
        with pytest.raises(UpstreamError, match="broke off"):
            post(connect(service))
        assert len(service.requests) == 1


def test_an_interim_answer_is_not_the_answer():
    interim = b"HTTP/1.1 100 Continue\r\nContent-Length: 9999999\r\n\r\n"
    with serve(says(interim + head(200, 2) + b"{}")) as service:
        answer = post(connect(service), limit=2)
        assert (answer.status, answer.body) == (200, b"{}")


def test_what_a_server_says_unasked_is_no_answer(service):
    """Some servers send a 408 before they close an idle connection."""

    def complains(connection, request):
        ok(connection, request)
        time.sleep(0.05 * len(service.requests))  # together with the answer, and after it
        connection.send(head(408, 0))

    service.behave = complains
    transport = connect(service)
    for _ in range(3):
        assert post(transport).status == 200
        time.sleep(0.3)
    assert [request.connection for request in service.requests] == [1, 2, 3]


def test_an_endless_head_is_refused():
    endless = says(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000)
    with serve(endless) as service, pytest.raises(UpstreamError, match="broke off"):
        post(connect(service))


@pytest.mark.parametrize("length", [None, 5000])
def test_an_answer_has_a_size_limit(length):
    with serve(says(head(200, length) + b" " * 5000)) as service:
        with pytest.raises(UpstreamError, match="longer than the 4999 bytes"):
            post(connect(service), limit=4999)
        assert len(post(connect(service), limit=5000).body) == 5000


@pytest.mark.parametrize("status", [301, 302, 307, 401, 500])
def test_redirects_are_not_followed_and_long_error_bodies_not_read(status):
    def behave(connection, request):
        connection.send(head(status, 1 << 40, Location="/elsewhere") + KEY.encode())

    with serve(behave) as service:
        answer = post(connect(service))
        assert (answer.status, answer.body) == (status, b"")
        assert [request.path for request in service.requests] == ["/embed"]


def test_an_error_says_why_and_its_connection_is_kept(service):
    service.behave = lambda connection, request: connection.answer({"error": "why"}, 400)
    transport = connect(service)
    for _ in range(2):
        answer = post(transport)
        assert (answer.status, answer.body) == (400, b'{"error": "why"}')
    assert {request.connection for request in service.requests} == {1}


CHUNKS = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"


@pytest.mark.parametrize(
    "behave",
    [
        says(head(500, 100) + b"half"),
        says(head(500, None) + b"half"),
        resets(after=head(500, 100) + b"half"),
        drips(b"x" * 99, at_once=head(500, 100)),
        says(head(500, None, Transfer_Encoding="chunked") + b"zz\r\n"),
        says(head(500, None, Transfer_Encoding="chunked") + CHUNKS * 99),
        says(head(204, None)),
    ],
    ids=["breaks off", "without length", "reset", "drips", "no chunk", "endless", "without body"],
)
def test_an_errors_status_counts_whatever_becomes_of_its_body(behave, monkeypatch):
    monkeypatch.setattr(connections, "ERROR_SECONDS", 0.1)
    with serve(behave) as service:
        transport = connect(service)
        answer = post(transport, seconds=60)
        assert answer.status in (500, 204)
        assert len(answer.body) <= connections.LONGEST_ERROR + connections.RECEIVE
        service.behave = ok
        assert post(transport).status == 200


@pytest.mark.parametrize("then", [closes, resets()], ids=["FIN", "RST"])
def test_a_stale_connection_is_replaced_once(then):
    with serve(once_per_connection(ok, then)) as service:
        transport = connect(service)
        assert [post(transport, b"%d" % i).status for i in range(2)] == [200, 200]
        assert [(r.connection, r.body) for r in service.requests] == [(1, b"0"), (1, b"1"), (2, b"1")]


def test_the_replacement_is_not_replaced():
    with serve(ok) as service:
        transport = connect(service)
        post(transport)
        service.behave = closes
        with pytest.raises(UpstreamError, match="broke off"):
            post(transport)
        assert len(service.requests) == 3


def test_a_reset_within_an_answer_is_not_retried():
    with serve(once_per_connection(ok, resets(after=b"HTTP/1.1 2"))) as service:
        transport = connect(service)
        post(transport)
        with pytest.raises(UpstreamError, match="broke off"):
            post(transport)
        assert len(service.requests) == 2


def test_a_timeout_on_a_kept_connection_is_not_retried(service):
    transport = connect(service)
    post(transport)
    service.behave = hangs
    with pytest.raises(DeadlineExceeded):
        post(transport, seconds=SHORT)
    assert len(service.requests) == 2


def test_connections_closed_while_idle(service):
    transport = connect(service)
    post(transport)
    service.drop_connections()
    assert post(transport).status == 200


def test_many_threads_share_one_transport(service):
    transport = connect(service)
    seen = []

    def work(i):
        service_answer = post(transport, b"%d" % i)
        seen.append(service_answer.status)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert seen == [200] * 12
    assert sorted(int(r.body) for r in service.requests) == list(range(12))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "7", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "9" * 5000}, None),
        ({"retry-after": "Thu, 01 Jan 1998 00:00:00 GMT"}, 0),
        ({"retry-after-ms": "nan"}, 0),
        ({"retry-after-ms": "-5"}, 0),
    ],
)
def test_retry_after(headers, seconds):
    assert Answer(429, headers, b"").retry_after == seconds


def test_errors_hold_no_key(service):
    service.behave = closes
    with pytest.raises(UpstreamError) as caught:
        post(connect(service))
    assert KEY not in f"{caught.value!r} {caught.value.message} {caught.value.__cause__!r}"
