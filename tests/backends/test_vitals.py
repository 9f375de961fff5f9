"""Health checks ask for what costs a backend nothing, and notice what they can."""

from __future__ import annotations

import pytest

from llmrs.backends.pool import open_http
from llmrs.backends.vitals import LONG
from llmrs.config import Config
from llmrs.errors import UpstreamError

from .services import shapes
from .services.vectors import vector
from .services.wire import serve

CHECKS = 5


def listing(owner, models=1, prefix="/v1"):
    """A service with a list of so many models, which belong to somebody."""
    good = shapes.openai(prefix=prefix)

    def behave(connection, request):
        if (request.method, request.path) == ("GET", f"{prefix}/models"):
            data = [{"id": f"m{i}" + "x" * 40, "object": "model", "owned_by": owner} for i in range(models)]
            return connection.answer({"object": "list", "data": data})
        return good(connection, request)

    return behave


def litellm():
    """LiteLLM's proxy: `/health` asks every deployment and takes its time, `/health/liveliness` nobody."""
    good = listing("openai")

    def behave(connection, request):
        if request.path == "/health":
            connection.service.completions = getattr(connection.service, "completions", 0) + 1
            return connection.answer({"healthy_endpoints": [], "unhealthy_endpoints": []})
        if request.path == "/health/liveliness":
            return connection.answer(b'"I\'m alive!"')
        return good(connection, request)

    return behave


def asked(behave, addresses=1):
    """The paths of GET requests that health checks make once the backends are known."""
    with serve(behave) as service, serve(behave) as other:
        urls = (service.url, other.url)[:addresses]
        backend = open_http(Config(backend_url=urls))
        backend.check(timeout=10)
        assert backend.embed(backend.prepare(["a"]), timeout=10).matrix.tolist() == [vector("a")]
        assert not hasattr(service, "completions")
        service.requests.clear()
        one = getattr(backend, "_replicas", [backend])[0]
        for _ in range(CHECKS):
            getattr(one, "backend", one).check(timeout=10)
        assert service.posts() == [], "nothing is embedded"
        backend.close()
        return [request.path for request in service.requests]


@pytest.mark.parametrize(
    ("behave", "path"),
    [
        (litellm(), "/health/liveliness"),
        (listing("openai"), "/v1/models"),
        (listing("organization-owner"), "/v1/models"),
        (listing("sglang"), "/v1/models"),
        (listing("openai", prefix=""), "/models"),
        (listing("openai", models=LONG // 40), "/v1/models/m0" + "x" * 40),
        (listing("vllm"), "/health"),
        (listing("llamacpp"), "/health"),
        (listing("infinity", prefix=""), "/health"),
        (listing("llmrs"), "/health"),
        (shapes.tei(), "/health"),
        (shapes.embed(), "/health"),
        (shapes.ollama(unit=False), "/api/version"),
    ],
)
@pytest.mark.parametrize("addresses", [1, 2])
def test_what_is_asked(behave, path, addresses):
    assert asked(behave, addresses) == [path] * CHECKS


def test_nothing_paid_is_asked_however_it_goes():
    """While it is well, ill and well again."""
    with serve(litellm()) as service:
        backend = open_http(Config(backend_url=(service.url,)))
        backend.check(timeout=10)
        embedded = len(service.posts())
        for _ in range(CHECKS):
            service.behave = lambda connection, request: connection.answer({}, 500)
            with pytest.raises(UpstreamError, match="not healthy"):
                backend.check(timeout=10)
            service.behave = litellm()
            backend.check(timeout=10)
        assert len(service.posts()) == embedded == 1
        assert not hasattr(service, "completions")
        assert all(request.path != "/health" for request in service.requests)
        backend.close()


def test_a_list_of_models_that_is_refused_says_nothing():
    """As it embeds, it is well: what it embeds tells how it goes on."""

    def behave(connection, request):
        if request.method == "GET":
            return connection.answer({}, 503)
        return shapes.openai()(connection, request)

    with serve(behave) as service:
        backend = open_http(Config(backend_url=(service.url,), backend_protocol="openai", model_name="m"))
        for _ in range(CHECKS):
            backend.check(timeout=10)
        backend.close()
