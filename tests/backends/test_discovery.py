"""What is found out about a backend, by asking servers of every shape."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from llmrs.backends.pool import open_http
from llmrs.config import Config
from llmrs.errors import DeadlineExceeded, UpstreamError

from .services import shapes
from .services.misbehaving import hangs
from .services.vectors import WIDTH, vector
from .services.wire import Connection, Request, serve


def backend_at(service, suffix="", **options):
    return open_http(Config(backend_url=(service.url + suffix,), **options))


@pytest.mark.parametrize(
    ("shape", "kind", "path", "name", "longest"),
    [
        (shapes.openai(), "openai", "/v1/embeddings", "org/m", 512),
        (shapes.openai(prefix=""), "openai", "/embeddings", "org/m", 512),
        (shapes.embed(), "embed", "/embed", "default", None),
        (shapes.embed("embeddings"), "embed", "/embed", "default", None),
        (shapes.tei(), "tei", "/embed", "org/tei-model", 256),
        (shapes.tei(info=False), "tei", "/embed", "default", None),
        (shapes.ollama(), "ollama", "/api/embed", "minilm:latest", 256),
    ],
    ids=["openai", "openai at the root", "embed", "embeddings", "tei", "tei without info", "ollama"],
)
@pytest.mark.parametrize("named", [True, False], ids=["named", "auto"])
def test_each_protocol_is_found_and_used(shape, kind, path, name, longest, named, caplog):
    caplog.set_level(logging.INFO, "llmrs.backend")
    with serve(shape) as service:
        backend = backend_at(service, backend_protocol=kind if named else "auto")
        assert backend.kind == (kind if named else "auto")
        assert service.requests == [], "nothing is sent before the first use"
        backend.check(timeout=5)
        info = backend.info
        assert (backend.kind, info.name, info.dimensions) == (kind, name, WIDTH)
        assert (info.max_input_tokens, info.normalized) == (longest, kind == "ollama")
        vectors = backend.embed(backend.prepare(["a b", "c", "é"]), timeout=5)
        expected = np.array([vector("a b"), vector("c"), vector("é")], np.float32)
        if info.normalized:
            expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(vectors.matrix, expected, rtol=1e-6)
        assert service.requests[-1].path == path
        assert sum(f"speaks {kind}" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize(
    ("shape", "kind", "suffix"),
    [
        (shapes.openai(), "openai", "/v1"),
        (shapes.openai(), "openai", "/v1/embeddings"),
        (shapes.openai(), "openai", "/v1/embeddings/"),
        (shapes.openai(prefix=""), "openai", "/embeddings"),
        (shapes.embed(), "embed", "/embed"),
        (shapes.tei(), "tei", "/embed"),
        (shapes.ollama(), "ollama", "/api/embed"),
        (shapes.ollama(), "ollama", "/api/embeddings"),
    ],
)
def test_an_address_may_end_as_clients_have_it(shape, kind, suffix):
    with serve(shape) as service:
        backend = backend_at(service, suffix)
        backend.check(timeout=5)
        assert backend.kind == kind


@pytest.mark.parametrize("url", ["http://embed", "http://embeddings/", "https://v1"])
def test_a_host_may_be_called_as_an_endpoint(url):
    assert open_http(Config(backend_url=(url,)))._transport._base == url.rstrip("/")


@pytest.mark.parametrize("protocol", ["openai", "auto"])
@pytest.mark.parametrize("status", [401, 403, 404, 429, 503])
def test_only_the_embedding_of_a_text_decides(status, protocol):
    def unlisted(connection, request):
        if request.method == "GET":
            return connection.answer({"error": "no"}, status)
        return shapes.openai()(connection, request)

    with serve(unlisted) as service:
        backend = backend_at(service, model_name="org/m", backend_protocol=protocol)
        backend.check(timeout=5)
        assert (backend.kind, backend.info.name) == ("openai", "org/m")


def test_without_a_name_a_list_that_is_refused_leaves_the_default_one():
    def unlisted(connection, request):
        if request.method == "GET":
            return connection.answer({}, 403)
        return shapes.openai()(connection, request)

    with serve(unlisted) as service:
        backend = backend_at(service)
        backend.check(timeout=5)
        assert {request.json["model"] for request in service.posts()} == {"default"}


@pytest.mark.parametrize(
    ("shape", "kind", "path"),
    [
        (shapes.ollama(openai_too=True), "ollama", "/api/embed"),
        (shapes.tei(), "tei", "/embed"),
        (shapes.llmrs(), "openai", "/v1/embeddings"),
    ],
    ids=["ollama", "tei", "llmrs"],
)
def test_of_several_protocols_the_one_that_can_be_told_most_is_taken(shape, kind, path):
    """Ollama also speaks OpenAI's; another llmrs looks like TEI, but its /info is of one model of several."""
    with serve(shape) as service:
        backend = backend_at(service)
        backend.check(timeout=5)
        assert (backend.kind, backend.protocol.path) == (kind, path)
        if kind == "openai":
            assert set(backend.protocol.truncates) == {"none", "start", "end"}


@pytest.mark.parametrize("name", ["minilm", "minilm:latest"])
def test_a_tag_may_be_left_out(name):
    with serve(shapes.ollama()) as service:
        backend = backend_at(service, model_name=name)
        backend.check(timeout=5)
        assert backend.info.max_input_tokens == 256


@pytest.mark.parametrize("how", ["refuses_base64", "ignores_base64"])
def test_a_backend_without_base64_is_used_all_the_same(how):
    with serve(shapes.openai(**{how: True})) as service:
        backend = backend_at(service)
        for text in ("a", "b"):
            assert backend.embed(backend.prepare([text]), timeout=5).matrix.tolist() == [vector(text)]
        asked = ["encoding_format" in request.json for request in service.posts()[-2:]]
        assert asked == [how == "ignores_base64"] * 2


def test_the_configured_model_is_the_one_asked_for():
    with serve(shapes.openai()) as service:
        backend = backend_at(service, model_name="other")
        assert backend.info.name == "other"
        backend.embed(backend.prepare(["a"]), timeout=5)
        assert {request.json["model"] for request in service.posts()} == {"other"}
        assert backend.info.max_input_tokens is None, "512 is another model's length"


def test_unit_vectors_are_noticed():
    def unit(connection: Connection, request: Request) -> object:
        return connection.answer({"vectors": [[0.6, -0.8]] * len(request.json["texts"])})

    with serve(unit) as service:
        backend = backend_at(service, backend_protocol="embed")
        backend.check(timeout=5)
        assert backend.info.normalized


def answers(status: int, value: object = b"<html>", **headers: str):
    return lambda connection, request: connection.answer(value, status, **headers)


@pytest.mark.parametrize(
    ("behave", "message"),
    [
        (answers(404), "none of the known protocols"),
        (answers(200), "none of the known protocols"),
        (answers(200, {"data": None, "models": [1], "model_id": 3}), "none of the known protocols"),
        (answers(200, [1]), "none of the known protocols"),
        (answers(302, Location="/login"), "/v1/embeddings: HTTP 302, a redirect, .*backend_url"),
        (answers(201), "/v1/embeddings: HTTP 201 in place of 200"),
        (answers(200, {"error": "no"}), "/v1/embeddings: HTTP 200, but .* it is an error"),
        (answers(200, b"\x1f\x8b", Content_Encoding="gzip"), "/v1/embeddings: HTTP 200 in gzip"),
        (answers(400), "none of the known protocols"),
        (answers(500), "none of the known protocols"),
        (answers(401), "backend_api_key"),
        (answers(403), "backend_api_key"),
        (answers(429), "not ready"),
        (answers(503), "not ready"),
        (answers(502), "not ready"),
    ],
)  # fmt: skip
def test_what_is_no_backend_is_reported_and_asked_again_later(behave, message):
    with serve(behave) as service:
        backend = backend_at(service)
        for _ in range(2):
            with pytest.raises(UpstreamError, match=message) as caught:
                backend.check(timeout=5)
            assert "<html>" not in caught.value.message
            assert backend.kind == "auto"
        service.behave = shapes.openai()
        backend.check(timeout=5)
        assert backend.kind == "openai"


def test_a_named_protocol_is_not_guessed_around():
    with serve(shapes.embed()) as service:
        backend = backend_at(service, backend_protocol="openai")
        with pytest.raises(UpstreamError, match=r"does not speak openai .*/embeddings: HTTP 404"):
            backend.check(timeout=5)


def test_a_backend_that_hangs_at_the_first_question():
    with serve(hangs) as service:
        backend = backend_at(service)
        with pytest.raises(UpstreamError, match="health check in time"):
            backend.check(timeout=0.2)
        with pytest.raises(DeadlineExceeded):
            backend.embed(backend.prepare(["a"]), timeout=0.2)
