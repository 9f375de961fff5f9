"""Prometheus metrics: what is counted, under which names, and how it is shown.

Wraps prometheus_client. Everything is counted on the hub's thread. Children of labelled metrics are
looked up once, because that costs more than counting: a request costs five microseconds here. What
others know anyway (queue, backend) is asked when somebody scrapes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import gevent
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector as Source

from llmrs.batch import Batch
from llmrs.collector import Collector
from llmrs.embeddings import Matrix
from llmrs.server.health import Health

CONTENT_TYPE = CONTENT_TYPE_LATEST

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TOKENS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)

LAG_SECONDS = 0.25
"""How often the event loop's lag is measured."""


class Watched(Protocol):
    """What is asked of a served model at a scrape."""

    collector: Collector
    health: Health

    @property
    def name(self) -> str: ...


class Answered(Protocol):
    """What is counted of a request that got its vectors; times in seconds."""

    @property
    def matrix(self) -> Matrix: ...
    @property
    def n_tokens(self) -> int: ...
    @property
    def truncated(self) -> int: ...
    @property
    def tokenize_seconds(self) -> float: ...
    @property
    def queue_seconds(self) -> float: ...
    @property
    def inference_seconds(self) -> float: ...


class Metrics:
    """All metrics of the process."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "llmrs_requests", "Answered requests.", ("route", "status"), registry=registry
        )
        self._errors = Counter(
            "llmrs_errors", "Answers with an error.", ("status", "code"), registry=registry
        )
        self._request_seconds = Histogram(
            "llmrs_request_seconds", "From a request's head to its answer.", ("route",), registry=registry,
            buckets=SECONDS,
        )  # fmt: skip
        self._lag = Histogram(
            "llmrs_hub_lag_seconds", "How late the event loop wakes a sleeper.", registry=registry,
            buckets=SECONDS,
        )  # fmt: skip
        self._counters = {
            name: Counter(f"llmrs_{name}", text, ("model",), registry=registry)
            for name, text in COUNTERS.items()
        }
        self._histograms = {
            name: Histogram(f"llmrs_{name}", text, ("model",), registry=registry, buckets=buckets)
            for name, (text, buckets) in HISTOGRAMS.items()
        }
        self._watching: gevent.Greenlet[[], None] | None = None
        self._routes: dict[tuple[str, str], tuple[Counter, Histogram]] = {}
        self._models: dict[str, ModelMetrics] = {}

    def model(self, name: str) -> ModelMetrics:
        """The metrics of a model by the name it is served under."""
        found = self._models.get(name)
        if found is None:
            found = self._models[name] = ModelMetrics(
                {metric: family.labels(name).inc for metric, family in self._counters.items()},
                {metric: family.labels(name).observe for metric, family in self._histograms.items()},
            )
        return found

    def count_request(self, route: str, status: str, seconds: float) -> None:
        """An answer to a request of a route (its template), with a status of three digits."""
        children = self._routes.get((route, status))
        if children is None:
            children = self._requests.labels(route, status), self._request_seconds.labels(route)
            self._routes[route, status] = children
        children[0].inc()
        children[1].observe(seconds)

    def count_error(self, status: int, code: str) -> None:
        """An answer with an error."""
        self._errors.labels(status, code).inc()

    def watch(self, models: Sequence[Watched]) -> None:
        """Show the state of these models, and measure the loop's lag in a greenlet from now on."""
        self._registry.register(_States(models))
        self._watching = gevent.spawn(self._measure_lag)

    def close(self) -> None:
        """Stop measuring."""
        if self._watching is not None:
            self._watching.kill()

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self._registry)

    def _measure_lag(self) -> None:
        while True:
            asleep = time.monotonic()
            gevent.sleep(LAG_SECONDS)
            self._lag.observe(max(0.0, time.monotonic() - asleep - LAG_SECONDS))


COUNTERS = {
    "inputs": "Inputs of answered requests.",
    "tokens": "Tokens of answered requests.",
    "truncated_inputs": "Inputs that were cut to the model's length.",
    "failed_batches": "Batches that gave no vectors.",
}
HISTOGRAMS = {
    "queue_seconds": ("From tokenized to the start of the first batch.", SECONDS),
    "tokenize_seconds": ("Tokenizing a request.", SECONDS),
    "inference_seconds": ("From the start of the first batch to the end of the last.", SECONDS),
    "encode_seconds": ("Writing the vectors of a request as a body.", SECONDS),
    "batch_texts": ("Texts of a computed batch.", TEXTS),
    "batch_tokens": ("Tokens of a computed batch, padding not included.", TOKENS),
    "batch_seconds": ("Computing a batch, or asking the backend for it.", SECONDS),
}
"""What is counted for each model, and what it means."""


class ModelMetrics:
    """What is counted for one model."""

    def __init__(
        self, count: Mapping[str, Callable[[float], None]], observe: Mapping[str, Callable[[float], None]]
    ) -> None:
        self._count = count
        self._observe = observe

    def count_answer(self, answer: Answered) -> None:
        """The vectors of a request were computed."""
        self._count["inputs"](len(answer.matrix))
        self._count["tokens"](answer.n_tokens)
        if answer.truncated:
            self._count["truncated_inputs"](answer.truncated)
        self._observe["queue_seconds"](answer.queue_seconds)
        self._observe["tokenize_seconds"](answer.tokenize_seconds)
        self._observe["inference_seconds"](answer.inference_seconds)

    def count_encoding(self, seconds: float) -> None:
        """The body of an answer was written."""
        self._observe["encode_seconds"](seconds)

    def count_batch(self, batch: Batch, seconds: float, failed: bool) -> None:
        """A batch ended."""
        if failed:
            self._count["failed_batches"](1)
            return
        self._observe["batch_texts"](len(batch))
        self._observe["batch_tokens"](batch.n_tokens)
        self._observe["batch_seconds"](seconds)


class _States(Source):
    """What is asked at a scrape: queues, backends, texts that joined others."""

    def __init__(self, models: Sequence[Watched]) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        families = (
            ("llmrs_waiting_requests", "Requests in the queue.", lambda model: model.collector.waiting),
            ("llmrs_waiting_texts", "Texts in the queue.", lambda model: model.collector.waiting_texts),
            ("llmrs_running_batches", "Batches being computed.", lambda model: model.collector.running),
            ("llmrs_backend_up", "1 while the backend answers.", lambda model: model.health.reason is None),
        )
        for name, text, value in families:
            gauge = GaugeMetricFamily(name, text, labels=("model",))
            for model in self._models:
                gauge.add_metric((model.name,), float(value(model)))
            yield gauge
        shared = CounterMetricFamily(
            "llmrs_shared_texts", "Texts that got the vector of an identical one.", labels=("model",)
        )
        for model in self._models:
            shared.add_metric((model.name,), model.collector.shared_texts)
        yield shared
