"""Prometheus metrics: what is counted, under which names, and how it is shown.

Wraps prometheus_client, which writes the page. Counting is done here, on the hub's thread alone and so
without its locks: with its own counters and histograms a request cost 25 us more, a third of what all of
HTTP costs. What others know anyway (queue, backend) is asked when somebody scrapes.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Protocol

import gevent
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
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


class Histogram:
    """Values counted by the first bound that they do not exceed."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def add_to(self, family: HistogramMetricFamily, *labels: str) -> None:
        """Show it as the member of a family that has these labels."""
        names = [*map(str, self._bounds), "+Inf"]
        buckets = list(zip(names, map(float, accumulate(self._counts)), strict=True))
        family.add_metric(labels, buckets=buckets, sum_value=self._sum)


class Metrics(Source):
    """All metrics of the process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests: Counter[tuple[str, str]] = Counter()
        self._errors: Counter[tuple[str, str]] = Counter()
        self._request_seconds: dict[str, Histogram] = {}
        self._lag = Histogram(SECONDS)
        self._models: dict[str, ModelMetrics] = {}
        self._watched: Sequence[Watched] = ()
        self._watching: gevent.Greenlet[[], None] | None = None
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    def model(self, name: str) -> ModelMetrics:
        """The metrics of a model by the name it is served under."""
        found = self._models.get(name)
        if found is None:
            found = self._models[name] = ModelMetrics()
        return found

    def count_request(self, route: str, status: str, seconds: float) -> None:
        """An answer to a request of a route (its template), with a status of three digits."""
        self._requests[route, status] += 1
        if route not in self._request_seconds:
            self._request_seconds[route] = Histogram(SECONDS)
        self._request_seconds[route].observe(seconds)

    def count_error(self, status: str, code: str) -> None:
        """An answer with an error, its status of three digits."""
        self._errors[status, code] += 1

    def watch(self, models: Sequence[Watched]) -> None:
        """Show the state of these models, and measure the loop's lag in a greenlet from now on."""
        self._watched = models
        self._watching = gevent.spawn(self._measure_lag)

    def close(self) -> None:
        """Stop measuring."""
        if self._watching is not None:
            self._watching.kill()

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client asks for at a scrape."""
        requests = CounterMetricFamily("llmrs_requests", "Answered requests.", labels=("route", "status"))
        for labels, count in self._requests.items():
            requests.add_metric(labels, count)
        errors = CounterMetricFamily("llmrs_errors", "Answers with an error.", labels=("status", "code"))
        for labels, count in self._errors.items():
            errors.add_metric(labels, count)
        seconds = HistogramMetricFamily(
            "llmrs_request_seconds", "From a request's head to its answer.", labels=("route",)
        )
        for route, histogram in self._request_seconds.items():
            histogram.add_to(seconds, route)
        lag = HistogramMetricFamily(
            "llmrs_hub_lag_seconds", "How late the event loop wakes a sleeper.", labels=()
        )
        self._lag.add_to(lag)
        yield from (requests, errors, seconds, lag)
        for name, text in COUNTERS.items():
            counter = CounterMetricFamily(f"llmrs_{name}", text, labels=("model",))
            for model, metrics in self._models.items():
                counter.add_metric((model,), metrics.counts[name])
            yield counter
        for name, (text, _) in HISTOGRAMS.items():
            family = HistogramMetricFamily(f"llmrs_{name}", text, labels=("model",))
            for model, metrics in self._models.items():
                metrics.histograms[name].add_to(family, model)
            yield family
        yield from self._states()

    def _states(self) -> Iterator[Metric]:
        """Queues, backends, texts that joined others."""
        for name, (text, value) in STATES.items():
            gauge = GaugeMetricFamily(f"llmrs_{name}", text, labels=("model",))
            for model in self._watched:
                gauge.add_metric((model.name,), value(model))
            yield gauge
        shared = CounterMetricFamily(
            "llmrs_shared_texts", "Texts that got the vector of an identical one.", labels=("model",)
        )
        for model in self._watched:
            shared.add_metric((model.name,), model.collector.shared_texts)
        yield shared

    def _measure_lag(self) -> None:
        while True:
            asleep = time.monotonic()
            gevent.sleep(LAG_SECONDS)
            self._lag.observe(max(0.0, time.monotonic() - asleep - LAG_SECONDS))


STATES: dict[str, tuple[str, Callable[[Watched], float]]] = {
    "waiting_requests": ("Requests in the queue.", lambda model: model.collector.waiting),
    "waiting_texts": ("Texts in the queue.", lambda model: model.collector.waiting_texts),
    "running_batches": ("Batches being computed.", lambda model: model.collector.running),
    "backend_up": ("1 while the backend answers.", lambda model: float(model.health.reason is None)),
}
"""What is asked of each model at a scrape."""

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
    """What is counted for one model.

    Attributes:
        counts, histograms: by the names in COUNTERS and HISTOGRAMS.
    """

    def __init__(self) -> None:
        self.counts = dict.fromkeys(COUNTERS, 0)
        self.histograms = {name: Histogram(bounds) for name, (_, bounds) in HISTOGRAMS.items()}

    def count_answer(self, answer: Answered) -> None:
        """The vectors of a request were computed."""
        self.counts["inputs"] += len(answer.matrix)
        self.counts["tokens"] += answer.n_tokens
        if answer.truncated:
            self.counts["truncated_inputs"] += answer.truncated
        self.histograms["queue_seconds"].observe(answer.queue_seconds)
        self.histograms["tokenize_seconds"].observe(answer.tokenize_seconds)
        self.histograms["inference_seconds"].observe(answer.inference_seconds)

    def count_encoding(self, seconds: float) -> None:
        """The body of an answer was written."""
        self.histograms["encode_seconds"].observe(seconds)

    def count_batch(self, batch: Batch, seconds: float, failed: bool) -> None:
        """A batch ended."""
        if failed:
            self.counts["failed_batches"] += 1
            return
        self.histograms["batch_texts"].observe(len(batch))
        self.histograms["batch_tokens"].observe(batch.n_tokens)
        self.histograms["batch_seconds"].observe(seconds)
