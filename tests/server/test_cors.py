"""What a browser needs before it lets a page of another origin call, and that others get nothing."""

from __future__ import annotations

from collections.abc import Iterator

import falcon.inspect
import pytest
from falcon import testing

from llmrs.config import load
from llmrs.errors import ConfigError
from llmrs.server.app import create_app
from llmrs.server.auth import load_keys
from llmrs.server.cors import ALLOWED_HEADERS, MAX_ASKED
from tests.engines import FakeBackend

PATH = "/v1/embeddings"
APP = "https://app.example"
KEY = {"Authorization": "Bearer k", "Content-Type": "application/json"}
BODY = b'{"input": "x"}'


def serve(**options: str) -> testing.TestClient:
    config = load({"api_key": "k", **options}, environ={}, path="/dev/null")
    return testing.TestClient(create_app([FakeBackend()], config, load_keys(config)))


@pytest.fixture
def some() -> Iterator[testing.TestClient]:
    client = serve(cors_allow_origin=f"{APP},http://localhost:8080", payload_limit="1000", key_rate="50")
    yield client
    client.app.close()


@pytest.fixture
def every() -> Iterator[testing.TestClient]:
    client = serve(cors_allow_origin="*")
    yield client
    client.app.close()


def preflight(
    client: testing.TestClient, path: str = PATH, origin: str = APP, method: str = "POST", headers: str = ""
) -> testing.Result:
    asked = {"Origin": origin, "Access-Control-Request-Method": method}
    if headers:
        asked["Access-Control-Request-Headers"] = headers
    return client.simulate_options(path, headers=asked)


def about_cors(result: testing.Result) -> set[str]:
    return {name for name in result.headers if name.startswith("access-control-") or name == "vary"}


def test_off_there_is_no_trace_of_it() -> None:
    client = serve()
    for result in (
        preflight(client),
        client.simulate_post(PATH, body=BODY, headers={**KEY, "Origin": APP}),
        client.simulate_get("/health", headers={"Origin": APP}),
    ):
        assert not about_cors(result)
    assert preflight(client).status_code == 401
    client.app.close()


def test_a_preflight_needs_no_key(some: testing.TestClient) -> None:
    result = preflight(some, headers="authorization,content-type,x-stainless-os,x-stainless-retry-count")
    assert (result.status_code, result.content) == (204, b"")
    headers = result.headers
    assert headers["access-control-allow-origin"] == APP
    assert headers["vary"] == "Origin"
    assert headers["access-control-allow-methods"] == "POST"
    assert headers["access-control-allow-headers"].split(", ") == [
        *ALLOWED_HEADERS, "x-stainless-os", "x-stainless-retry-count",
    ]  # fmt: skip
    assert headers["access-control-max-age"] == "7200"
    assert "access-control-allow-credentials" not in headers
    assert headers["x-request-id"]


def test_every_route_names_its_own_methods(some: testing.TestClient) -> None:
    for route in falcon.inspect.inspect_routes(some.app._falcon):
        path = route.path.replace("{name:path}", "some/model")
        theirs = {method.method for method in route.methods if not method.internal}
        allowed = preflight(some, path).headers["access-control-allow-methods"]
        assert set(allowed.split(", ")) == theirs - {"OPTIONS"}, path


@pytest.mark.parametrize("path", ["/nothing", "/v1", "/", "/health/x"])
def test_a_preflight_to_nowhere_asks_for_a_key(some: testing.TestClient, path: str) -> None:
    result = preflight(some, path)
    assert result.status_code == 401
    assert "access-control-allow-methods" not in result.headers


@pytest.mark.parametrize(
    "origin",
    ["https://app.example.evil", "http://app.example", "https://APP.example", "https://app.example:444",
     "null", "", "*", "https://evil.example/https://app.example", f"{APP}/", f"{APP},{APP}"],
)  # fmt: skip
def test_other_origins_are_told_nothing(some: testing.TestClient, origin: str) -> None:
    assert preflight(some, origin=origin).status_code == 401
    for result in (
        preflight(some, origin=origin),
        some.simulate_post(PATH, body=BODY, headers={**KEY, "Origin": origin}),
    ):
        assert about_cors(result) == {"vary"}


@pytest.mark.parametrize(
    "headers",
    [{"Origin": APP}, {"Access-Control-Request-Method": "POST"},
     {"Origin": APP, "Access-Control-Request-Method": ""}],
)  # fmt: skip
def test_an_options_request_that_is_no_preflight_asks_for_a_key(
    some: testing.TestClient, headers: dict[str, str]
) -> None:
    assert some.simulate_options(PATH, headers=headers).status_code == 401


def test_a_preflight_opens_nothing_but_itself(some: testing.TestClient) -> None:
    """Its headers on another request are no key."""
    headers = {"Origin": APP, "Access-Control-Request-Method": "POST", "Content-Type": "application/json"}
    assert some.simulate_post(PATH, body=BODY, headers=headers).status_code == 401
    assert some.simulate_get("/v1/models", headers=headers).status_code == 401


def test_only_known_headers_are_allowed_and_few(some: testing.TestClient) -> None:
    result = preflight(
        some, headers="x-evil, cookie, x-stainless-<script>, User-Agent, proxy-authorization,x"
    )
    assert result.headers["access-control-allow-headers"].split(", ") == [*ALLOWED_HEADERS, "User-Agent"]
    flood = ",".join(f"x-stainless-{'a' * (1 + i % 40)}" for i in range(5000))
    names = preflight(some, headers=flood).headers["access-control-allow-headers"].split(", ")
    assert len(names) == len(ALLOWED_HEADERS) + MAX_ASKED


def test_errors_can_be_read_by_the_page(some: testing.TestClient) -> None:
    origin = {"Origin": APP}
    answers = {
        401: some.simulate_post(PATH, body=BODY, headers=origin),
        404: some.simulate_get("/nothing", headers={**KEY, **origin}),
        405: some.simulate_get(PATH, headers={**KEY, **origin}),
        413: some.simulate_post(PATH, body=b" " * 1001, headers={**KEY, **origin}),
        415: some.simulate_post(PATH, body=BODY, headers={**KEY, **origin, "Content-Type": "text/plain"}),
        400: some.simulate_post(PATH, body=b"{", headers={**KEY, **origin}),
        502: some.simulate_post(PATH, body=b'{"input": "unreachable"}', headers={**KEY, **origin}),
    }
    for _ in range(5000):  # a busy machine is slower than the limit for a while
        last = some.simulate_post(PATH, body=BODY, headers={**KEY, **origin})
        if last.status_code == 429:
            break
    answers[429] = last
    for status, result in answers.items():
        assert result.status_code == status
        assert result.headers["access-control-allow-origin"] == APP
        assert "Retry-After" in result.headers["access-control-expose-headers"]
        assert result.headers["vary"] == "Origin"


def test_every_origin(every: testing.TestClient) -> None:
    for origin in (APP, "http://other.example", "null"):
        result = preflight(every, origin=origin)
        assert result.status_code == 204
        answer = every.simulate_post(PATH, body=BODY, headers={**KEY, "Origin": origin})
        assert answer.status_code == 200
        for each in (result, answer):
            assert each.headers["access-control-allow-origin"] == "*"
            assert "vary" not in each.headers
            assert "access-control-allow-credentials" not in each.headers
    assert not about_cors(every.simulate_post(PATH, body=BODY, headers=KEY))


def test_every_origin_beside_others_is_a_contradiction() -> None:
    with pytest.raises(ConfigError, match="give it alone"):
        load({"cors_allow_origin": f"*,{APP}"}, environ={}, path="/dev/null")


def test_preflights_are_counted_for_their_route(some: testing.TestClient) -> None:
    preflight(some, "/v1/models/some/model")
    page = some.simulate_get("/metrics").text
    assert 'llmrs_requests_total{route="/v1/models/{name:path}",status="204"} 1.0' in page
