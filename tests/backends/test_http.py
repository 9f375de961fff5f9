"""The HTTP backend's contract: one right row per input or an error that says whose fault it is."""

from __future__ import annotations

import logging
import math
import socket
import threading
import time

import numpy as np
import pytest

from llmrs.backends.base import CALL_HEADERS
from llmrs.backends.pool import open_http
from llmrs.config import Config
from llmrs.embeddings import Limits
from llmrs.errors import (
    ConfigError,
    ContextLengthExceeded,
    DeadlineExceeded,
    InvalidRequest,
    QueueFull,
    UpstreamError,
    UpstreamRejected,
)

from .services import shapes
from .services.misbehaving import BROKEN, DRIPPING, hangs, says
from .services.vectors import WIDTH, as_base64, count_tokens, vector
from .services.wire import Service, head, serve

KEY = "sk-secret-key"


def backend_at(service: Service, **options):
    return open_http(Config(backend_url=(service.url,), backend_api_key=KEY, **options))


@pytest.fixture
def service():
    with serve(shapes.openai()) as running:
        yield running


@pytest.fixture
def backend(service):
    """A backend that is known already, so that a test may then misbehave."""
    backend = backend_at(service)
    backend.check(timeout=5)
    return backend


def embed(backend, inputs, timeout=5.0):
    return backend.embed(backend.prepare(inputs), timeout=timeout)


def rows(*numbers):
    return {"data": [{"index": i, "embedding": row} for i, row in numbers]}


@pytest.mark.parametrize("urls", [(), ("http://a", "http://a")])
def test_there_is_an_address_and_none_is_given_twice(urls):
    with pytest.raises(ConfigError, match=r"backend_url .default.: expected one address, or several"):
        open_http(Config(backend_url=urls))


def test_opening_needs_no_backend(caplog):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    backend = open_http(Config(backend_url=(f"http://127.0.0.1:{port}",)))
    assert (backend.kind, backend.waits_on, backend.info.dimensions) == ("auto", "network", None)
    for _ in range(2):
        with pytest.raises(UpstreamError, match="cannot be reached"):
            backend.check(timeout=5)
        with pytest.raises(UpstreamError, match="cannot be reached"):
            embed(backend, ["a"])
    with serve(shapes.openai(), socket.create_server(("127.0.0.1", port))):
        assert embed(backend, ["a"]).matrix.tolist() == [vector("a")]
    messages = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(messages) == 1, "a failure that repeats is logged once"


# What is sent.


def test_texts_and_token_ids_go_in_requests_of_their_own(service, backend):
    inputs = ["a b", [5, 6, 7], "c", [8]]
    vectors = embed(backend, inputs)
    assert vectors.matrix.tolist() == [vector(value) for value in inputs]
    assert [request.json["input"] for request in service.posts()[-2:]] == [["a b", "c"], [[5, 6, 7], [8]]]
    assert sum(vectors.n_tokens) == sum(map(count_tokens, inputs))


def test_a_request_tells_the_time_that_is_left(service, backend):
    embed(backend, ["a"], timeout=7)
    assert 5 < float(service.posts()[-1].headers["x-request-timeout"]) <= 7


def test_headers_of_a_call(service, backend):
    token = CALL_HEADERS.set(b"traceparent: 00-a-b-01\r\n")
    embed(backend, ["a"])
    CALL_HEADERS.reset(token)
    embed(backend, ["a"])
    with_it, without = service.posts()[-2:]
    assert with_it.headers["traceparent"] == "00-a-b-01"
    assert "traceparent" not in without.headers


def test_a_prompt_goes_before_texts_only(service, backend):
    backend.embed(backend.prepare(["a", [5]], prompt="query: "), timeout=5)
    assert [request.json["input"] for request in service.posts()[-2:]] == [["query: a"], [[5]]]


def test_token_estimates():
    backend = open_http(Config(backend_url=("http://backend.invalid",)))
    assert [item.n_tokens for item in backend.prepare(["", "abcd" * 3, "日本", [1, 2]])] == [2, 5, 3, 2]


def test_inputs_that_cannot_be_sent(backend):
    with pytest.raises(InvalidRequest, match=r"input\[1\]"):
        backend.prepare(["a", "\ud800"])
    with pytest.raises(ContextLengthExceeded, match="maximum context length is 512 tokens"):
        backend.prepare([[1] * 513])


def test_token_ids_for_a_backend_that_takes_texts():
    with serve(shapes.embed()) as service:
        backend = backend_at(service)
        prepared = backend.prepare([[1, 2]])  # not known yet
        with pytest.raises(UpstreamRejected, match="token ids"):
            backend.embed(prepared, timeout=5)
        with pytest.raises(InvalidRequest, match="token ids"):
            backend.prepare([[1, 2]])


def test_the_key_is_sent_with_every_request(service, backend):
    embed(backend, ["a"])
    backend.check(timeout=5)
    assert {request.headers["authorization"] for request in service.requests} == {f"Bearer {KEY}"}


# Limits.


def test_limits_are_narrowed_by_the_backend():
    with serve(shapes.tei(max_client_batch_size=4)) as service:
        backend = backend_at(service, workers=3)
        assert backend.limits == Limits(batch_size=32, batch_tokens=16384, slots=3)
        backend.check(timeout=5)
        assert backend.limits == Limits(batch_size=4, batch_tokens=16384, slots=3)


@pytest.mark.parametrize(
    ("shape", "batch_size", "tokens"), [(shapes.openai(), 2048, 300_000), (shapes.embed(), 5000, 999_999)]
)
def test_a_protocols_own_ceilings(shape, batch_size, tokens):
    with serve(shape) as service:
        backend = backend_at(service, batch_size=5000, max_batch_tokens=999_999)
        backend.check(timeout=5)
        assert backend.limits == Limits(batch_size=batch_size, batch_tokens=tokens, slots=4)


def test_a_batch_made_before_the_ceiling_was_known_is_split():
    texts = [f"text {i}" for i in range(11)]
    with serve(shapes.tei(max_client_batch_size=4)) as service:
        vectors = embed(backend_at(service), texts)
        assert vectors.matrix.tolist() == [vector(text) for text in texts]
        assert [len(request.json["inputs"]) for request in service.posts()[1:]] == [4, 4, 3]
        assert sum(vectors.n_tokens) == sum(map(count_tokens, texts))


def test_a_batch_is_split_by_bytes():
    texts = [f"{i}" + "é" * 300_000 for i in range(5)]  # 600 kB each, and TEI takes 2 MB
    with serve(shapes.tei(max_client_batch_size=32)) as service:
        assert embed(backend_at(service), texts).matrix.tolist() == [vector(text) for text in texts]
        assert [len(request.json["inputs"]) for request in service.posts()[1:]] == [3, 2]
        with pytest.raises(UpstreamRejected):
            embed(backend_at(service), ["x" * 2_100_000])


# Tokens.


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 10}, [3, 7]),
        ({"prompt_tokens": 1}, None),
        ({"prompt_tokens": -3}, None),
        (None, None),
    ],
)
def test_counted_tokens_are_shared_out_by_length(service, backend, usage, expected):
    service.behave = lambda connection, request: connection.answer(
        rows((0, vector("a")), (1, vector("b"))) | {"usage": usage}
    )
    assert embed(backend, ["a", "a much longer text"]).n_tokens == expected


# Answers.


def test_rows_are_put_in_the_order_of_their_index(service, backend):
    service.behave = lambda connection, request: connection.answer(
        rows(*[(i, as_base64(vector(request.json["input"][i]))) for i in (2, 0, 1)])
    )
    assert embed(backend, ["a", "b", "c"]).matrix.tolist() == [vector("a"), vector("b"), vector("c")]


GOOD = vector("a")
NONSENSE = {
    "HTML": b"<html>sk-secret-key a</html>",
    "broken JSON": b'{"data":[{"index":0,"embedding":[0.1',
    "an error with status 200": {"error": {"message": "invalid_request_error a"}},
    "none": rows(),
    "long": rows((0, GOOD), (1, GOOD), (2, GOOD)),
    "one index twice": rows((0, GOOD), (0, GOOD)),
    "ragged": rows((0, GOOD), (1, GOOD[:-1])),
    "another width": rows((0, GOOD[:-1]), (1, GOOD[:-1])),
    "bad base64": rows((0, as_base64(GOOD)), (1, "@" + as_base64(GOOD)[1:])),
}


@pytest.mark.parametrize("value", NONSENSE.values(), ids=NONSENSE)
def test_an_answer_that_is_not_the_vectors_is_502(service, backend, value):
    service.behave = lambda connection, request: connection.answer(value)
    with pytest.raises(UpstreamError) as caught:
        embed(backend, ["a", "b"])
    assert caught.value.status == 502
    assert not caught.value.poison
    assert not any(secret in caught.value.message for secret in (KEY, "html", "invalid_request_error"))
    service.behave = shapes.openai()
    assert embed(backend, ["a"]).matrix.tolist() == [vector("a")]


def test_a_vector_with_nan_fails_its_owner_only(service, backend):
    broken = [math.nan, *GOOD[1:]]
    service.behave = lambda connection, request: connection.answer(rows((0, GOOD), (1, as_base64(broken))))
    matrix = embed(backend, ["a", "b"]).matrix
    assert matrix[0].tolist() == GOOD
    assert np.isfinite(matrix).sum() == 2 * WIDTH - 1


def test_a_huge_answer(service, backend):
    service.behave = says(head(200, 1 << 40) + b"[")
    with pytest.raises(UpstreamError, match="longer than"):
        embed(backend, ["a"])


@pytest.mark.parametrize("behave", DRIPPING.values(), ids=DRIPPING)
def test_the_deadline_holds(service, backend, behave):
    service.behave = behave
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        embed(backend, ["a"], timeout=0.3)
    assert time.monotonic() - start < 3


@pytest.mark.parametrize("behave", BROKEN.values(), ids=BROKEN)
def test_a_broken_connection_is_502(service, backend, behave):
    service.behave = behave
    with pytest.raises(UpstreamError, match="broke off"):
        embed(backend, ["a"])


# Statuses.


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, UpstreamRejected), (413, UpstreamRejected), (422, UpstreamRejected)]
    + [(status, UpstreamError) for status in (401, 403, 404, 409, 424, 500, 502, 503, 302, 307, 204)],
)
def test_statuses(service, backend, status, error, caplog):
    echo = {"error": f"Bearer {KEY} may not embed: secret text"}
    service.behave = lambda connection, request: connection.answer(
        echo, status, Location="http://127.0.0.1:1/"
    )
    with pytest.raises(error) as caught:
        embed(backend, ["secret text"])
    assert caught.value.poison == (error is UpstreamRejected)
    assert caught.value.status == (400 if error is UpstreamRejected else 502)
    said = caught.value.message + caplog.text
    assert KEY not in said
    assert "secret text" not in said


def test_one_poison_text_fails_alone_when_the_batch_is_halved(service, backend):
    def behave(connection, request):
        if "poison" in request.json["input"]:
            return connection.answer({"error": "poison"}, 400)
        return shapes.openai()(connection, request)

    service.behave = behave
    with pytest.raises(UpstreamRejected) as caught:
        embed(backend, ["a", "poison"])
    assert caught.value.poison
    assert embed(backend, ["a"]).matrix.tolist() == [vector("a")]


TOO_LONG = {
    "OpenAI": {
        "error": {"message": "no", "type": "invalid_request_error", "code": "context_length_exceeded"}
    },
    "vLLM": {"message": "This model's maximum context length is 512 tokens. However, you requested 900."},
    "TEI": {"error": "Input validation error: `inputs` must have less than 256 tokens. Given: 702"},
    "Ollama": {"error": "the input length exceeds the context length"},
    "llama.cpp": {"error": {"code": 500, "message": "input (702 tokens) is too large to process"}},
    "llama.cpp's slot": {"error": {"code": 400, "type": "exceed_context_size_error", "message": "no"}},
}


@pytest.mark.parametrize("status", [400, 413, 422, 500])
@pytest.mark.parametrize("body", TOO_LONG.values(), ids=TOO_LONG)
def test_an_input_that_is_too_long_for_the_backend_keeps_its_code(service, backend, status, body):
    service.behave = lambda connection, request: connection.answer(body, status)
    with pytest.raises(UpstreamRejected, match="maximum context length of 512 tokens") as caught:
        embed(backend, ["a"])
    error = caught.value
    assert (error.status, error.code, error.param) == (400, "context_length_exceeded", "input")
    assert error.poison


@pytest.mark.parametrize("status", [401, 404, 502, 503])
def test_other_faults_are_not_taken_for_too_long_inputs(service, backend, status):
    service.behave = lambda connection, request: connection.answer(TOO_LONG["OpenAI"], status)
    with pytest.raises(UpstreamError):
        embed(backend, ["a"])


@pytest.mark.parametrize(
    ("status", "headers", "found"),
    [
        (302, {"Location": "/secret"}, "HTTP 302, a redirect"),
        (201, {}, "HTTP 201 in place of 200"),
        (200, {"Content_Encoding": "gzip"}, "HTTP 200 in gzip"),
        (200, {"Content_Encoding": "secret"}, "HTTP 200 in a compressed form"),
    ],
)
def test_what_was_found_in_place_of_vectors_is_said(service, backend, status, headers, found):
    service.behave = lambda connection, request: connection.answer({}, status, **headers)
    with pytest.raises(UpstreamError, match=found) as caught:
        embed(backend, ["a"])
    assert "secret" not in caught.value.message


# A busy backend.


def busy(times, **headers):
    """429 to the first `times` batches."""
    left = [times]

    def behave(connection, request):
        left[0] -= 1
        if left[0] >= 0:
            return connection.answer({"error": "overloaded"}, 429, **headers)
        return shapes.openai()(connection, request)

    return behave


@pytest.mark.parametrize(
    ("times", "headers"), [(1, {}), (2, {"Retry_After": "0"}), (2, {"retry_after_ms": "50"})]
)
def test_a_busy_backend_is_waited_for(service, backend, times, headers):
    service.behave = busy(times, **headers)
    before = len(service.requests)
    assert embed(backend, ["a"]).matrix.tolist() == [vector("a")]
    assert len(service.requests) - before == times + 1


@pytest.mark.parametrize(("timeout", "queue_seconds"), [(1.0, 30.0), (5.0, 1.0)])
def test_a_backend_that_stays_busy_is_asked_ever_more_rarely(service, timeout, queue_seconds):
    backend = backend_at(service, queue_seconds=queue_seconds)
    backend.check(timeout=5)
    service.behave = busy(99, retry_after_ms="10")
    before = len(service.requests)
    with pytest.raises(QueueFull) as caught:
        embed(backend, ["a"], timeout=timeout)
    assert len(service.requests) - before <= 3  # after 0.01 s and 0.5 s; the next is too late
    assert caught.value.headers["Retry-After"] == "1"


def test_of_a_busy_backend_fewer_slots_are_used_until_it_is_not(service, backend):
    service.behave = busy(2, retry_after_ms="0")
    embed(backend, ["a"])
    assert backend.limits.slots == 2  # halved twice, and one more for the answer
    while backend.limits.slots < 4:
        embed(backend, ["a"])
    embed(backend, ["a"])
    assert backend.limits.slots == 4


def test_a_backend_says_how_many_requests_it_takes():
    shape = shapes.tei()

    def narrow(connection, request):
        if request.path == "/info":
            info = {"model_id": "m", "max_client_batch_size": 4, "max_concurrent_requests": 2}
            return connection.answer(info)
        return shape(connection, request)

    with serve(narrow) as service:
        backend = backend_at(service)
        backend.check(timeout=5)
        assert backend.limits.slots == 2


@pytest.mark.parametrize(("asked", "told"), [("30", "30"), ("99999", "120")])
def test_a_wait_beyond_the_deadline_is_the_clients(service, backend, asked, told):
    service.behave = busy(99, Retry_After=asked)
    before = len(service.requests)
    start = time.monotonic()
    with pytest.raises(QueueFull) as caught:
        embed(backend, ["a"])
    assert time.monotonic() - start < 4
    assert len(service.requests) - before == 1
    assert (caught.value.status, caught.value.headers["Retry-After"]) == (429, told)


# Health.


@pytest.mark.parametrize("status", [200, 404, 401, 429])
def test_any_answer_below_500_is_healthy(service, backend, status):
    service.behave = lambda connection, request: connection.answer({}, status)
    backend.check(timeout=5)
    assert (service.requests[-1].method, service.requests[-1].path) == ("GET", "/v1/models")


def test_health_tells_what_is_wrong_and_recovers(service, backend):
    service.behave = lambda connection, request: connection.answer({}, 503)
    with pytest.raises(UpstreamError, match="not healthy"):
        backend.check(timeout=5)
    service.behave = hangs
    with pytest.raises(UpstreamError, match="health check in time"):
        backend.check(timeout=0.2)
    service.behave = shapes.openai()
    backend.check(timeout=5)


def test_health_does_not_wait_for_batches(service):
    backend = backend_at(service, workers=1)
    backend.check(timeout=5)
    release = threading.Event()

    def slow(connection, request):
        if request.method == "POST":
            release.wait(5)
        return shapes.openai()(connection, request)

    service.behave = slow
    working = threading.Thread(target=embed, args=(backend, ["a"]))
    working.start()
    start = time.monotonic()
    backend.check(timeout=5)
    assert time.monotonic() - start < 4
    release.set()
    working.join(5)


def test_first_users_together_search_once(service):
    backend = backend_at(service)
    wrong = []

    def use(i):
        if i % 2:
            backend.check(timeout=5)
        elif embed(backend, [f"{i}"]).matrix.tolist() != [vector(f"{i}")]:
            wrong.append(i)

    threads = [threading.Thread(target=use, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert wrong == []
    assert sum(request.path == "/info" for request in service.requests) == 1
    probes = [request for request in service.posts() if request.json["input"] == ["hello"]]
    assert len(probes) == 1


def test_what_fails_is_logged_when_it_changes(service, backend, caplog):
    caplog.set_level(logging.INFO, "llmrs.backend")
    for behave in (says(head(500, 0)), says(head(500, 0)), shapes.openai(), shapes.openai()):
        service.behave = behave
        try:
            embed(backend, ["a"])
        except UpstreamError:
            continue
    assert [record.message.partition(": ")[2] or record.levelname for record in caplog.records] == [
        "the backend answered HTTP 500",
        "INFO",
    ]


def test_closing_gives_the_connections_back(service, backend):
    embed(backend, ["a"])
    (connection,) = service.connections[-1:]
    backend.close()
    assert connection.fileno() == -1 or connection.recv(1) == b""
