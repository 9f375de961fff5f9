"""OpenAI's models on Azure: the deployment and the version in the path, the key in its own header."""

from __future__ import annotations

import pytest

from llmrs.backends.pool import open_http
from llmrs.config import Config, load
from llmrs.errors import ConfigError, InvalidRequest, UpstreamError, UpstreamTooLong

from .services import shapes
from .services.vectors import vector
from .services.wire import serve

PATH = "/openai/deployments/my-embedder/embeddings?api-version=2024-10-21"
KEY = "azure-secret"


def azure(connection, request):
    """Nothing but the one path, and the key in `api-key`."""
    if request.headers.get("api-key") != KEY or "authorization" in request.headers:
        return connection.answer({"error": {"code": "401", "message": "Access denied"}}, 401)
    if (request.method, request.path) != ("POST", PATH):
        return connection.answer({"error": {"code": "404", "message": "Resource not found"}}, 404)
    if any("long" in text for text in request.json["input"]):
        message = "This model's maximum context length is 8192 tokens, however you requested 9000 tokens"
        return connection.answer({"error": {"message": message, "type": "invalid_request_error"}}, 400)
    return shapes.openai(prefix="")(connection, request._replace(path="/embeddings"))


@pytest.fixture
def service():
    with serve(azure) as running:
        yield running


def backend_at(service, suffix="", **options):
    return open_http(Config(backend_url=(service.url + suffix,), backend_api_key=KEY, **options))


@pytest.mark.parametrize(
    ("suffix", "options", "name"),
    [
        (PATH, {}, "my-embedder"),
        (PATH, {"model_name": "served"}, "served"),
        (PATH.replace("/embeddings", ""), {}, "my-embedder"),
        ("/?api-version=2024-10-21", {"model_name": "my-embedder"}, "my-embedder"),
        (
            PATH.partition("?")[0],
            {"backend_protocol": "azure", "backend_api_version": "2024-10-21"},
            "my-embedder",
        ),
        (
            "",
            {"backend_protocol": "azure", "backend_api_version": "2024-10-21", "model_name": "my-embedder"},
            "my-embedder",
        ),
        (
            "/openai/",
            {"backend_protocol": "azure", "backend_api_version": "2024-10-21", "model_name": "my-embedder"},
            "my-embedder",
        ),
    ],
)
def test_an_endpoint_in_each_form(service, suffix, options, name):
    backend = backend_at(service, suffix, **options)
    vectors = backend.embed(backend.prepare(["a", "b"]), timeout=5)
    assert vectors.matrix.tolist() == [vector("a"), vector("b")]
    assert (backend.kind, backend.info.name) == ("azure", name)
    assert {request.path for request in service.requests} == {PATH}, "nothing else is asked"
    assert backend.address == service.url, "the query is for requests"


def test_long_texts_are_refused_there(service):
    backend = backend_at(service, PATH)
    backend.check(timeout=5)
    with pytest.raises(UpstreamTooLong):
        backend.embed(backend.prepare(["too long"], truncate="none"), timeout=5)
    with pytest.raises(InvalidRequest, match=r"truncate must not be start: the backend .azure"):
        backend.prepare(["too long"], truncate="start")


def test_a_wrong_key(service):
    backend = open_http(Config(backend_url=(service.url + PATH,), backend_api_key="wrong"))
    with pytest.raises(UpstreamError, match="backend_api_key"):
        backend.check(timeout=5)


@pytest.mark.parametrize(
    ("suffix", "options", "missing"),
    [
        ("", {"backend_protocol": "azure", "model_name": "m"}, "backend_api_version"),
        ("?api-version=1", {}, "model_name"),
        ("", {"backend_protocol": "azure", "backend_api_version": "1"}, "model_name"),
        ("?api-version=1", {"backend_protocol": "openai", "model_name": "m"}, r"\?"),
    ],
)
def test_what_is_missing_ends_the_start(suffix, options, missing):
    with pytest.raises(ConfigError, match=missing):
        open_http(Config(backend_url=("https://h" + suffix,), **options))


@pytest.mark.parametrize("url", ["https://h/?api-version=2024-10-21", f"https://h{PATH}"])
def test_the_version_may_stand_in_the_address(url, tmp_path):
    path = str(tmp_path / "config.toml")
    assert load({"backend_url": url}, environ={}, path=None).backend_url == (url,)
    with pytest.raises(ConfigError):
        load({"backend_url": url + "&key=secret"}, environ={}, path=path)


def test_a_version_for_another_backend_has_no_effect():
    flags = {"backend_url": "http://h", "backend_api_version": "2024-10-21"}
    (warning,) = load(flags, environ={}).warnings
    assert warning.startswith("backend_api_version")
