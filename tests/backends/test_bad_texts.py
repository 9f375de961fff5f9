"""Texts that a backend fails on: each fails its own request and no other, and calls are bounded."""

from __future__ import annotations

import contextlib
import math

import pytest

from llmrs.backends.pool import open_http
from llmrs.collector import Collector
from llmrs.config import Config
from llmrs.errors import ServiceError, UpstreamError, UpstreamRejected

from .services import shapes
from .services.misbehaving import hangs
from .services.vectors import vector
from .services.wire import CLOSE, serve

SHAPES = {
    "openai": (shapes.openai(), "input"),
    "embed": (shapes.embed(), "texts"),
    "tei": (shapes.tei(max_client_batch_size=32), "inputs"),
    "ollama": (shapes.ollama(unit=False), "input"),
}
BATCH = 32
TEXTS = 200


def answers(status, body=b"Internal Server Error"):
    return lambda connection: connection.answer(body, status)


FAILURES = {
    "500": answers(500),
    "500 of OpenAI's form": answers(500, {"error": {"message": "secret", "type": "server_error"}}),
    "424": answers(424, {"error": "secret", "error_type": "backend"}),
    "502": answers(502, b"<html>secret</html>"),
    "an error in a 200": answers(200, {"error": "secret"}),
    "no body": answers(200, b""),
    "closed": lambda connection: CLOSE,
}


def allergic(protocol, fail=FAILURES["500"]):
    """A service of a protocol that fails on the texts that begin with "bad"."""
    good, key = SHAPES[protocol]

    def behave(connection, request):
        if request.method == "POST" and any(
            str(text).startswith("bad") for text in request.json.get(key, ())
        ):
            return fail(connection)
        return good(connection, request)

    return behave


class Desk:
    """Requests that wait together, and whose batches are computed one after the other."""

    def __init__(self, backend):
        self.backend = backend
        self.batches = []
        self.started = 0
        self.collector = Collector(self.batches.append, lambda: None, lambda: backend.limits, 10_000)

    def ask(self, *inputs):
        group = self.collector.admit(lambda: None, math.inf)
        self.collector.submit(group, self.backend.prepare(list(inputs)))
        return group

    def work(self):
        self.collector.dispatch()
        while self.batches:
            batch = self.batches.pop(0)
            self.started += 1
            try:
                vectors = self.backend.embed(batch.prepared, timeout=30)
            except ServiceError as error:
                self.collector.fail(batch, error)
            else:
                self.collector.finish(batch, vectors)
            self.collector.dispatch()


@contextlib.contextmanager
def desk_before(behave, addresses=1, **options):
    """A desk whose backend has been reached, and its services."""
    with contextlib.ExitStack() as running:
        services = [running.enter_context(serve(behave)) for _ in range(addresses)]
        config = Config(backend_url=tuple(each.url for each in services), batch_size=BATCH, **options)
        backend = open_http(config)
        backend.check(timeout=10)
        for service in services:
            service.requests.clear()
        yield Desk(backend), services
        backend.close()


def calls(services):
    return sum(len(service.posts()) for service in services)


def texts_with(share):
    """TEXTS texts; every n-th is bad, so that `share` of them are."""
    step = round(1 / share)
    return [f"bad {i}" if i % step == step // 2 else f"good {i}" for i in range(TEXTS)]


def bound(texts, addresses):
    """Most calls for texts that come in full batches: 2 b log2(n) + 2 for b bad ones among n.

    With several addresses each may say hello once, and each bad text asks one more of them.
    """
    most = 0
    for start in range(0, len(texts), BATCH):
        bad = sum(text.startswith("bad") for text in texts[start : start + BATCH])
        most += 2 * bad * int(math.log2(BATCH)) + 2 if bad else 1
        most += 2 * bad if addresses > 1 else 0
    return most + addresses - 1


def check_answers(groups, status=502):
    for text, group in groups.items():
        assert group.done
        if text.startswith("good"):
            assert group.error is None, (text, group.error)
            assert group.matrix.tolist() == [vector(text)]
        else:
            assert group.error.status == status, group.error
            assert "secret" not in group.error.message


@pytest.mark.parametrize("addresses", [1, 3])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("protocol", SHAPES)
def test_no_neighbour_is_lost_and_calls_are_bounded(protocol, share, addresses):
    texts = texts_with(share)
    with desk_before(allergic(protocol), addresses) as (desk, services):
        groups = {text: desk.ask(text) for text in texts}
        desk.work()
        check_answers(groups)
        assert {group.error is None for group in groups.values()} == {True, False}
        assert calls(services) <= bound(texts, addresses)
        # Nobody is called down for them.
        assert [replica.state for replica in desk.backend.replicas] == ["up"] * (
            addresses if addresses > 1 else 0
        )


@pytest.mark.parametrize("addresses", [1, 3])
@pytest.mark.parametrize("failure", FAILURES)
def test_every_way_of_failing_on_a_text(failure, addresses, caplog):
    texts = texts_with(0.1)
    with desk_before(allergic("openai", FAILURES[failure]), addresses) as (desk, services):
        groups = {text: desk.ask(text) for text in texts}
        desk.work()
        check_answers(groups)
        # A call that ends its connection goes twice, and a hello follows each time.
        assert calls(services) <= bound(texts, addresses) * (2 if failure == "closed" else 1)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_one_bad_text_costs_one_hello_beside_the_parts():
    with desk_before(allergic("openai")) as (desk, (service,)):
        groups = {text: desk.ask(text) for text in [*(f"good {i}" for i in range(31)), "bad"]}
        desk.work()
        check_answers(groups)
        sizes = [len(request.json["input"]) for request in service.posts()]
        assert sorted(sizes) == sorted([32, 1, 16, 16, 8, 8, 4, 4, 2, 2, 1, 1])


@pytest.mark.parametrize("addresses", [1, 3])
@pytest.mark.parametrize("failure", [*FAILURES, "503", "nobody listens"])
def test_an_outage_costs_one_more_call_for_each_address_and_is_not_split(failure, addresses):
    with desk_before(shapes.openai(), addresses) as (desk, services):
        fail = FAILURES.get(failure, answers(503))
        for service in services:
            service.behave = lambda connection, request: fail(connection)
            if failure == "nobody listens":
                service._listener.close()
                service.drop_connections()
        groups = [desk.ask(f"good {i}") for i in range(BATCH)]
        desk.work()
        assert {type(group.error).poison for group in groups} == {False}
        assert {group.error.status for group in groups} == {502}
        assert desk.started == 1
        resent = addresses if failure == "closed" else 0  # a connection that was kept may end for itself
        assert calls(services) <= 2 * addresses + resent


def test_requests_of_one_text_each_cost_one_more_call_a_second_in_an_outage():
    with desk_before(shapes.openai()) as (desk, (service,)):
        service.behave = lambda connection, request: answers(500)(connection)
        for i in range(20):
            group = desk.ask(f"good {i}")
            desk.work()
            assert isinstance(group.error, UpstreamError)
            assert not group.error.poison
        hellos = [request for request in service.posts() if request.json["input"] == ["hello"]]
        assert len(service.posts()) - len(hellos) == 20
        assert len(hellos) < 20


def test_a_bad_text_among_many_of_one_request_is_named():
    with desk_before(allergic("embed")) as (desk, _):
        other, many = desk.ask("good 1"), desk.ask(*(f"good {i}" for i in range(9)), "bad", "good 10")
        desk.work()
        assert other.matrix.tolist() == [vector("good 1")]
        assert (many.error.status, many.error.param) == (502, "input")
        assert "input[9]" in many.error.message
        assert many.error.headers["x-should-retry"] == "false"


WORDS = {
    "llama.cpp": "input is too large to process. increase the physical batch size",
    "llama.cpp's context": "the request exceeds the available context size. try increasing the context size",
    "Ollama": "the input length exceeds the context length",
    "vLLM": "This model's maximum context length is 512 tokens. However, you requested 900 tokens",
    "text-embeddings-inference": "`inputs` must have less than 512 tokens. Given: 1002",
    "PyTorch's positions": "index out of range in self",
    "PyTorch's shapes": "The size of tensor a (900) must match the size of tensor b (512)",
}


@pytest.mark.parametrize("status", [400, 413, 422, 500])
@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_a_text_that_is_too_long_is_400_whatever_the_backend_answers(words, status):
    behave = allergic("openai", answers(status, {"error": {"message": f"{words} (secret)"}}))
    with desk_before(behave) as (desk, (service,)):
        groups = {text: desk.ask(text) for text in [*(f"good {i}" for i in range(7)), "bad"]}
        desk.work()
        check_answers(groups, 400)
        assert groups["bad"].error.code == "context_length_exceeded"
        assert "maximum context length of 512 tokens" in groups["bad"].error.message
        assert len(service.posts()) == 7, "its words need no hello"


@pytest.mark.parametrize(
    "words", ["context deadline exceeded", "CUDA error: out of memory", "rate limit exceeded"]
)
def test_other_words_are_not_taken_for_too_long(words):
    with desk_before(allergic("openai", answers(500, {"error": words}))) as (desk, _):
        groups = {"bad": desk.ask("bad")}
        desk.work()
        check_answers(groups, 502)


def test_a_backend_that_refuses_everything_is_not_taken_apart():
    with desk_before(shapes.openai()) as (desk, (service,)):
        service.behave = lambda connection, request: answers(400)(connection)
        group = desk.ask(*(f"good {i}" for i in range(BATCH)))
        desk.work()
        assert group.error.status == 502
        assert len(service.posts()) == 2


def test_a_backend_that_is_slow_to_say_why_has_said_enough():
    def behave(connection, request):
        connection.send(b"HTTP/1.1 422 Because\r\nContent-Length: 9\r\n\r\ntoo")
        return hangs(connection, request)

    with desk_before(shapes.openai()) as (desk, (service,)):
        service.behave = behave
        group = desk.ask("good")
        desk.work()
        assert isinstance(group.error, UpstreamRejected)
