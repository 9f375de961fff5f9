"""What Prometheus is told: that it is counted, under the documented names, and who may read it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from prometheus_client.parser import text_string_to_metric_families

from llmrs import __version__
from llmrs.config import load
from llmrs.embeddings import Limits
from llmrs.server.app import create_app
from llmrs.server.auth import load_keys
from tests.engines import FakeBackend

from .conftest import Client

MakeClient = Callable[..., Client]


def scrape(client: Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by name and labels."""
    result = client._client.simulate_get("/metrics")
    assert result.status_code == 200
    assert result.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(result.text)
        for sample in family.samples
    }


def value(client: Client, name: str, **labels: str) -> float:
    return scrape(client).get((name, frozenset(labels.items())), 0.0)


@pytest.fixture
def client(make_client: MakeClient) -> Client:
    return make_client()


@pytest.fixture
def model(client: Client) -> dict[str, str]:
    return {"model": client.app.models[0].name}


def test_requests_are_counted_by_route_and_status(client: Client) -> None:
    client.vectors({"input": "a"})
    client.vectors({"input": "a"})
    client.get("/v1/models/nothing-of-that-name")
    client.get("/no/such/path")
    route = {"route": "/v1/embeddings", "status": "200"}
    assert value(client, "llmrs_requests_total", **route) == 2
    assert value(client, "llmrs_request_seconds_count", route="/v1/embeddings") == 2
    assert value(client, "llmrs_requests_total", route="/v1/models/{name:path}", status="404") == 1
    assert value(client, "llmrs_requests_total", route="none", status="404") == 1


def test_errors_are_counted_by_code(client: Client) -> None:
    client.error(400, "/v1/embeddings", {"input": []})
    client.error(404, "/v1/embeddings", {"input": "a", "model": "other"})
    assert value(client, "llmrs_errors_total", status="404", code="model_not_found") == 1
    counted = {
        dict(labels)["status"]
        for (name, labels), count in scrape(client).items()
        if name == "llmrs_errors_total" and count
    }
    assert counted == {"400", "404"}


def test_what_can_be_known_is_there_before_it_happens(client: Client, model: dict[str, str]) -> None:
    found = scrape(client)
    for name, labels in (
        ("llmrs_errors_total", {"status": "500", "code": "non_finite_embedding"}),
        ("llmrs_rejected_requests_total", {"reason": "queue_full"}),
        ("llmrs_failed_batches_total", model),
        ("llmrs_dropped_texts_total", {**model, "reason": "deadline"}),
        ("llmrs_queue_seconds_count", model),
    ):
        assert found[name, frozenset(labels.items())] == 0, name
    names = {name for name, _ in found}
    assert not {name for name in names if name.endswith("_info") and name != "llmrs_build_info"}
    build = next(dict(labels) for name, labels in found if name == "llmrs_build_info")
    assert build["version"] == __version__


def test_requests_that_are_turned_away_are_counted_by_reason(make_client: MakeClient) -> None:
    client = make_client(FakeBackend(seconds=0.3), queue_capacity=1, payload_limit=200)
    client.error(413, "/v1/embeddings", {"input": "a" * 300})
    computed = gevent.spawn(client.vectors, {"input": "a"})
    gevent.sleep(0.05)
    waiting = gevent.spawn(client.vectors, {"input": "b"})
    gevent.sleep(0.05)
    assert value(client, "llmrs_requests_in_flight") == 3  # those and the scrape
    client.app.metrics.connection_limit = lambda: 3
    client.error(429, "/v1/embeddings", {"input": "a"})
    gevent.joinall([computed, waiting])
    client.app.draining = lambda: True
    client.error(503, "/v1/embeddings", {"input": "a"})
    for reason in ("payload", "queue_full", "not_ready"):
        assert value(client, "llmrs_rejected_requests_total", reason=reason) == 1, reason
    assert value(client, "llmrs_requests_in_flight") == 1


def test_ready_is_what_readyz_says(client: Client) -> None:
    assert value(client, "llmrs_ready") == 1
    client.app.models[0].health.reason = "down"
    assert client.get("/readyz").status_code == 503
    assert value(client, "llmrs_ready") == 0


def test_requests_are_counted_by_the_name_of_their_key() -> None:
    config = load({"api_key": "secret", "key_rate": "0.01"}, environ={}, path=None)
    client = Client(create_app([FakeBackend()], config, load_keys(config)), FakeBackend())
    ours = {"Authorization": "Bearer secret"}
    client.vectors({"input": "a"}, headers=ours)
    client.error(429, "/v1/embeddings", {"input": "a"}, headers=ours)
    client.error(401, "/v1/embeddings", {"input": "a"}, headers={"Authorization": "Bearer wrong"})
    keys = {dict(labels)["key"]: n for (name, labels), n in scrape(client).items() if "key_requests" in name}
    assert keys == {"key-1": 2}
    assert value(client, "llmrs_rejected_requests_total", reason="key_rate") == 1
    client.app.close()


def test_padding_is_what_was_computed_beside_the_tokens(client: Client, model: dict[str, str]) -> None:
    client.vectors({"input": "a b c"})
    assert value(client, "llmrs_computed_cells_total", **model) == 0  # this backend does not say
    client.backend.cells_per_text = 16
    client.vectors({"input": ["d", "e f"]})
    assert value(client, "llmrs_computed_cells_total", **model) == 32


def test_texts_that_nobody_waits_for_any_more(make_client: MakeClient) -> None:
    backend = FakeBackend(limits=Limits(1, 1000, 1), seconds=0.5)
    client = make_client(backend, request_timeout=0.3)
    model = {"model": client.app.models[0].name}
    client.error(504, "/v1/embeddings", {"input": ["a", "b", "c"]})  # b and c still waited
    assert value(client, "llmrs_dropped_texts_total", **model, reason="deadline") == 2


def test_work_is_counted_for_its_model(client: Client, model: dict[str, str]) -> None:
    client.vectors({"input": ["a b", "c", "a b"]})
    assert value(client, "llmrs_inputs_total", **model) == 3
    assert value(client, "llmrs_tokens_total", **model) == 4 + 3 + 4
    assert value(client, "llmrs_shared_texts_total", **model) == 1
    assert value(client, "llmrs_batch_texts_sum", **model) == 2
    assert value(client, "llmrs_batch_tokens_sum", **model) == 4 + 3
    for stage in ("queue", "tokenize", "inference", "encode", "batch"):
        assert value(client, f"llmrs_{stage}_seconds_count", **model) >= 1, stage
    assert value(client, "llmrs_truncated_inputs_total", **model) == 0
    client.post("/v1/embeddings", {"input": "w " * 500, "truncate": "end"})
    assert value(client, "llmrs_truncated_inputs_total", **model) == 1


def test_failed_batches_and_vectors_that_are_not_finite(client: Client, model: dict[str, str]) -> None:
    client.error(500, "/v1/embeddings", {"input": "nan here"})
    assert value(client, "llmrs_errors_total", status="500", code="non_finite_embedding") == 1
    assert value(client, "llmrs_failed_batches_total", **model) == 0
    client.error(502, "/v1/embeddings", {"input": "unreachable"})
    assert value(client, "llmrs_failed_batches_total", **model) == 1


def test_the_queue_is_asked_when_scraped(make_client: MakeClient) -> None:
    client = make_client(FakeBackend(limits=Limits(1, 1000, 1), seconds=0.2))
    model = {"model": client.app.models[0].name}
    assert value(client, "llmrs_backend_up", **model) == 1
    waiting = [gevent.spawn(client.vectors, {"input": [f"{i} a", f"{i} b"]}) for i in range(2)]
    gevent.sleep(0.1)
    assert value(client, "llmrs_running_batches", **model) == 1
    assert value(client, "llmrs_waiting_requests", **model) == 2
    assert value(client, "llmrs_waiting_texts", **model) == 3
    gevent.joinall(waiting)
    assert value(client, "llmrs_waiting_requests", **model) == 0


def test_a_hub_that_is_held_up_shows(client: Client) -> None:
    gevent.sleep(0.3)
    time.sleep(0.6)  # nothing may do this
    gevent.sleep(0.05)
    assert value(client, "llmrs_hub_lag_seconds_sum") >= 0.3


def test_a_loop_that_stands_still_is_worth_a_line(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    gevent.sleep(0.3)
    time.sleep(1.5)
    gevent.sleep(0.3)
    assert "stood still" in caplog.text
    assert value(client, "process_resident_memory_bytes") > 1e6


@pytest.mark.parametrize(
    ("setting", "without_key", "with_key"), [("open", 200, 200), ("key", 401, 200), ("off", 401, 404)]
)
def test_who_may_read_it(setting: str, without_key: int, with_key: int) -> None:
    config = load({"metrics": setting, "api_key": "secret"}, environ={}, path=None)
    app = create_app([FakeBackend()], config, load_keys(config))
    client = Client(app, FakeBackend())._client
    assert client.simulate_get("/metrics").status_code == without_key
    key = {"Authorization": "Bearer secret"}
    assert client.simulate_get("/metrics", headers=key).status_code == with_key
    app.close()


def test_every_metric_says_what_it_is(client: Client) -> None:
    client.vectors({"input": "a"})
    page: Any = client._client.simulate_get("/metrics").text
    for family in text_string_to_metric_families(page):
        assert family.documentation, family.name
        assert re.fullmatch(r"(llmrs|process)_[a-z_]+", family.name)
