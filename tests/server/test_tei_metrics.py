"""TEI's series: there on request, under its names and kinds, with what it would have counted."""

from __future__ import annotations

from collections.abc import Callable

import gevent
import pytest
from prometheus_client.parser import text_string_to_metric_families

from llmrs.embeddings import Limits
from tests.engines import FakeBackend

from .conftest import Client
from .test_metrics import value as sample

STAGES = ("duration", "tokenization_duration", "queue_duration", "inference_duration")
KINDS = {
    **dict.fromkeys(("te_request_count", "te_request_success", "te_request_failure"), "counter"),
    **dict.fromkeys(("te_embed_count", "te_embed_success"), "counter"),
    "te_queue_size": "gauge",
    **dict.fromkeys(("te_batch_next_size", "te_batch_next_tokens", "te_request_input_length"), "histogram"),
    **{f"te_{of}_{stage}": "histogram" for of in ("request", "embed") for stage in STAGES},
}


def value(client: Client, name: str, **labels: str) -> float:
    """A sample, by the name it has on the page: the parser calls all counters `_total`."""
    return sample(client, name + "_total" if KINDS.get(name) == "counter" else name, **labels)


@pytest.fixture
def client(make_client: Callable[..., Client]) -> Client:
    return make_client(tei_metrics="true")


def kinds(client: Client) -> dict[str, str]:
    page = client._client.simulate_get("/metrics").text
    return {f.name: f.type for f in text_string_to_metric_families(page) if f.name.startswith("te_")}


def test_only_on_request(make_client: Callable[..., Client]) -> None:
    client = make_client()
    client.vectors({"input": "a"})
    assert not kinds(client)


def test_names_and_kinds_before_the_first_request(client: Client) -> None:
    assert kinds(client) == KINDS
    page = client._client.simulate_get("/metrics").text
    for line in ('te_request_count{method="single"} 0.0', "te_embed_count 0.0", "te_queue_size 0.0"):
        assert line in page.splitlines()
    assert "# TYPE te_request_count counter" in page.splitlines()
    assert "llmrs_inputs_total" in page


def test_requests_and_their_texts(client: Client) -> None:
    client.vectors({"input": "a"})
    client.vectors({"input": ["b c", "d", "e"]})
    client.error(502, "/v1/embeddings", {"input": "unreachable"})
    for method in ("single", "batch"):
        assert value(client, "te_request_success", method=method) == 1
    assert value(client, "te_request_count", method="single") == 2
    assert value(client, "te_request_count", method="batch") == 1
    assert value(client, "te_embed_count") == 5
    assert value(client, "te_embed_success") == 4
    for stage in STAGES:
        assert value(client, f"te_request_{stage}_count") == 2
        assert value(client, f"te_embed_{stage}_count") == 4
        assert value(client, f"te_embed_{stage}_sum") >= value(client, f"te_request_{stage}_sum")
    assert value(client, "te_batch_next_size_count") == 2
    assert value(client, "te_batch_next_size_sum") == 4
    assert value(client, "te_batch_next_tokens_sum") == value(client, "te_request_input_length_sum") == 13
    assert value(client, "te_request_input_length_count") == 4
    assert value(client, "te_request_input_length_bucket", le="4") == 4
    assert value(client, "te_request_input_length_bucket", le="2") == 0


def test_failures_by_teis_reasons(client: Client) -> None:
    for status, text, reason in (
        (502, "unreachable", "inference"),
        (500, "nan", "inference"),
        (400, "w " * 50, "tokenization"),
        (400, ["a"] * 3000, "batch_size"),
        (400, 7, "validation"),
    ):
        before = value(client, "te_request_failure", err=reason)
        client.error(status, "/v1/embeddings", {"input": text, "truncate": "none"})
        assert value(client, "te_request_failure", err=reason) == before + 1, text
    assert value(client, "te_request_success", method="single") == 0


def test_the_queue_holds_texts(make_client: Callable[..., Client]) -> None:
    client = make_client(FakeBackend(limits=Limits(1, 1000, 1), seconds=0.3), tei_metrics="true")
    waiting = gevent.spawn(client.vectors, {"input": ["a", "b", "c"]})
    gevent.sleep(0.1)
    assert value(client, "te_queue_size") == 2
    waiting.join()
