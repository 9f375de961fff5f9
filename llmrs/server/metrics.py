"""Metrics: what is counted, and under which names.

Counting is done here, on the hub's thread alone and so without locks: with prometheus_client's own
counters and histograms a request cost 25 us more, a third of what all of HTTP costs. What others know
anyway (queue, backend, connections) is asked when somebody scrapes. `exposition` writes the page.

Every name and every label value that is known beforehand is there from the start, at zero: Prometheus
sees no increase in a series that begins at one.
"""

from __future__ import annotations

import logging
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf
from typing import Literal, Protocol

import gevent

from llmrs import __version__
from llmrs.backends.base import ReplicaState, Retries
from llmrs.batch import Batch
from llmrs.collector import DROPS, Collector
from llmrs.embeddings import Vectors
from llmrs.errors import ServiceError
from llmrs.server.porch import Porch
from llmrs.server.series import Answered, Family, Histogram
from llmrs.server.tei_metrics import TeiMetrics

log = logging.getLogger("llmrs.server")

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TOKENS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)

FULL_SHARE = 0.9
"""Share of the connections beyond which there are hardly any left."""

LONG_LAG = 1.0
"""Seconds of lag that are worth a line in the log."""

LAG_SECONDS = 0.25
"""How often the event loop's lag is measured."""


class Watched(Protocol):
    """What is asked of a served model at a scrape."""

    collector: Collector

    @property
    def name(self) -> str: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def state(self) -> str: ...
    @property
    def running_batches(self) -> int: ...
    @property
    def replicas(self) -> Sequence[ReplicaState]: ...
    @property
    def retries(self) -> Retries: ...


class Metrics:
    """All metrics of the process.

    Args:
        tei: whether to count under text-embeddings-inference's names, too.

    Attributes:
        in_flight: requests that the application is answering.
        connections: tells how many client connections are open; None where that is not known.
        refused: tells how many answers, by status, went to what was no acceptable request.
        ready: tells whether the process takes requests.
        connection_limit: tells how many connections there may be.
        porch: where requests wait that are going to be refused.
        payload_bytes: tells how many bytes the bodies of requests take.
        lost_log_lines: tells how many lines could not be written.
    """

    def __init__(self, *, tei: bool = False) -> None:
        self.tei = TeiMetrics() if tei else None
        self._requests: Counter[tuple[str, str]] = Counter()
        self._errors: Counter[tuple[str, str]] = Counter(dict.fromkeys(_known_errors(), 0))
        self._rejections: Counter[str] = Counter(dict.fromkeys(_known_rejections(), 0))
        self._keys: Counter[str] = Counter()
        self._request_seconds: dict[str, Histogram] = {}
        self._lag = Histogram(SECONDS)
        self._watching: gevent.Greenlet[[], None] | None = None
        self.models: dict[str, ModelMetrics] = {}
        self.watched: Sequence[Watched] = ()
        self.in_flight = 0
        self.connections: Callable[[], int] | None = None
        self.connection_limit: Callable[[], float] = lambda: inf
        self.porch = Porch()
        self.refused: Callable[[], Mapping[int, int]] = dict
        self.ready: Callable[[], bool] = lambda: False
        self.payload_bytes: Callable[[], int] = lambda: 0
        self.lost_log_lines: Callable[[], int] = lambda: 0

    def crowding(self) -> float:
        """The share of the connections that have a request in progress."""
        return self.in_flight / self.connection_limit()

    def is_full(self) -> bool:
        """Whether hardly any more connections can be taken, idle ones included."""
        return self.connections is not None and self.connections() >= FULL_SHARE * self.connection_limit()

    def model(self, name: str) -> ModelMetrics:
        """The metrics of a model by the name it is served under."""
        found = self.models.get(name)
        if found is None:
            found = self.models[name] = ModelMetrics()
        return found

    def count_request(self, route: str, status: str, seconds: float, key: str | None = None) -> None:
        """An answer to a request of a route (its template), with a status of three digits.

        `key` is the name of the API key that it came with, if that has one.
        """
        self._requests[route, status] += 1
        if route not in self._request_seconds:
            self._request_seconds[route] = Histogram(SECONDS)
        self._request_seconds[route].observe(seconds)
        if key is not None:
            self._keys[key] += 1

    def count_error(self, status: str, code: str, rejection: str | None = None) -> None:
        """An answer with an error, its status of three digits; `rejection` as in ServiceError."""
        self._errors[status, code] += 1
        if rejection is not None:
            self._rejections[rejection] += 1

    def watch(self, models: Sequence[Watched]) -> None:
        """Show the state of these models, and measure the loop's lag in a greenlet from now on."""
        self.show(models)
        self._watching = gevent.spawn(self._measure_lag)

    def show(self, models: Sequence[Watched]) -> None:
        """Show the state of these models from now on."""
        self.watched = models
        for model in models:
            self.model(model.name)

    def close(self) -> None:
        """Stop measuring."""
        if self._watching is not None:
            self._watching.kill()

    def families(self) -> Iterator[Family]:
        """All that there is to show now."""
        yield from self._process()
        for name, text in COUNTERS.items():
            counts = [((model,), metrics.counts[name]) for model, metrics in self.models.items()]
            yield Family("counter", f"llmrs_{name}", text, ("model",), counts)
        for name, (text, _) in HISTOGRAMS.items():
            members = [((model,), metrics.histograms[name]) for model, metrics in self.models.items()]
            yield Family("histogram", f"llmrs_{name}", text, ("model",), members)
        yield from self._states()
        yield from self._replicas()
        if self.tei is not None:
            yield from self.tei.families(
                self._errors, sum(each.collector.waiting_texts for each in self.watched)
            )

    def _process(self) -> Iterator[Family]:
        """What is counted for all models together."""

        def labelled(counts: Counter[str]) -> list[tuple[tuple[str, ...], float]]:
            return [((value,), count) for value, count in counts.items()]

        yield Family(
            "counter", "llmrs_requests", "Answered requests.", ("route", "status"), self._requests.items()
        )
        yield Family(
            "counter", "llmrs_errors", "Answers with an error.", ("status", "code"), self._errors.items()
        )
        text = "Requests turned away before any work was done for them."
        yield Family("counter", "llmrs_rejected_requests", text, ("reason",), labelled(self._rejections))
        text = "Answers to what was no acceptable HTTP request, or came too slowly."
        refused = [((str(status),), count) for status, count in self.refused().items()]
        yield Family("counter", "llmrs_refused_requests", text, ("status",), refused)
        text = "Answered requests by the name of their API key."
        yield Family("counter", "llmrs_key_requests", text, ("key",), labelled(self._keys))
        text = "From a request's head to its answer."
        seconds = [((route,), histogram) for route, histogram in self._request_seconds.items()]
        yield Family("histogram", "llmrs_request_seconds", text, ("route",), seconds)
        text = "How late the event loop wakes a sleeper."
        yield Family("histogram", "llmrs_hub_lag_seconds", text, (), [((), self._lag)])
        yield _gauge("llmrs_requests_in_flight", "Requests being answered.", self.in_flight)
        held = self.payload_bytes()
        yield _gauge(
            "llmrs_payload_bytes", "Bytes of request bodies held, the first 64 KiB of each less.", held
        )
        if self.connections is not None:
            yield _gauge("llmrs_connections", "Open client connections.", self.connections())
        yield _gauge("llmrs_ready", "1 while the process takes requests, as /readyz says.", self.ready())
        lost = [((), float(self.lost_log_lines()))]
        yield Family("counter", "llmrs_lost_log_lines", "Log lines that could not be written.", (), lost)
        build = ("version", "python"), [((__version__, platform.python_version()), 1.0)]
        yield Family("gauge", "llmrs_build_info", "Always 1; the labels say what runs.", *build)

    def _states(self) -> Iterator[Family]:
        """Queues, backends, and what the collectors count."""
        for name, (text, value) in STATES.items():
            members = [((model.name,), value(model)) for model in self.watched]
            yield Family("gauge", f"llmrs_{name}", text, ("model",), members)
        shared = [((model.name,), model.collector.shared_texts) for model in self.watched]
        text = "Texts that got the vector of an identical one."
        yield Family("counter", "llmrs_shared_texts", text, ("model",), shared)
        dropped = [
            ((model.name, reason), model.collector.dropped_texts[reason])
            for model in self.watched
            for reason in DROPS
        ]
        text = "Queued texts that were not computed, because their request was over."
        yield Family("counter", "llmrs_dropped_texts", text, ("model", "reason"), dropped)

    def _replicas(self) -> Iterator[Family]:
        """Each address where a model has several; no series otherwise."""
        for name, (kind, text, value) in REPLICAS.items():
            members = [
                ((model.name, replica.url), float(value(replica)))
                for model in self.watched
                for replica in model.replicas
            ]
            yield Family(kind, f"llmrs_replica_{name}", text, ("model", "url"), members)
        retries = [
            ((model.name, outcome), float(count))
            for model in self.watched
            if model.replicas
            for outcome, count in model.retries._asdict().items()
        ]
        text = "Batches that failed on an address and were sent to another, or not."
        yield Family("counter", "llmrs_batch_retries", text, ("model", "outcome"), retries)

    def _measure_lag(self) -> None:
        while True:
            asleep = time.monotonic()
            gevent.sleep(LAG_SECONDS)
            lag = max(0.0, time.monotonic() - asleep - LAG_SECONDS)
            self._lag.observe(lag)
            if lag >= LONG_LAG:
                log.warning("the event loop stood still for %.1f s: nobody was answered", lag)


STATES: dict[str, tuple[str, Callable[[Watched], float]]] = {
    "waiting_requests": ("Requests at the door and in the queue.", lambda model: model.collector.waiting),
    "requests_at_door": (
        "Requests that wait for a place of the queue.",
        lambda model: model.collector.at_door,
    ),
    "waiting_texts": ("Texts in the queue.", lambda model: model.collector.waiting_texts),
    "running_batches": ("Batches being computed.", lambda model: model.running_batches),
    "model_loaded": ("1 while the model is in memory.", lambda model: float(model.state == "loaded")),
    "backend_up": ("1 while the backend answers.", lambda model: float(model.reason is None)),
}
"""What is asked of each model at a scrape."""

REPLICAS: dict[str, tuple[Literal["counter", "gauge"], str, Callable[[ReplicaState], float]]] = {
    "up": ("gauge", "1 while the address gets batches.", lambda replica: replica.state == "up"),
    "refused": (
        "gauge",
        "1 while the address serves another model than its peers.",
        lambda replica: replica.state == "refused",
    ),
    "running_batches": ("gauge", "Batches in flight to the address.", lambda replica: replica.running),
    "share": ("gauge", "Batches that the address may have in flight.", lambda replica: replica.share),
    "tries": ("counter", "Batches sent to the address.", lambda replica: replica.tries),
    "failures": ("counter", "Batches that failed on the address.", lambda replica: replica.failures),
}
"""What is asked of each of several addresses at a scrape."""

COUNTERS = {
    "inputs": "Inputs of answered requests.",
    "tokens": "Tokens of answered requests.",
    "truncated_inputs": "Inputs that were cut to the model's length.",
    "chunked_inputs": "Inputs that were split into chunks of the model's length.",
    "failed_batches": "Batches that gave no vectors.",
    "loads": "Times the model was loaded on request.",
    "failed_loads": "Times it could not be.",
    "unloads": "Times it was unloaded.",
    "computed_cells": "Places for tokens that a local engine computed, padding included.",
}
HISTOGRAMS = {
    "queue_seconds": ("At the door, and from tokenized to the start of the first batch.", SECONDS),
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
        if answer.chunked:
            self.counts["chunked_inputs"] += answer.chunked
        self.histograms["queue_seconds"].observe(answer.queue_seconds)
        self.histograms["tokenize_seconds"].observe(answer.tokenize_seconds)
        self.histograms["inference_seconds"].observe(answer.inference_seconds)

    def count_encoding(self, seconds: float) -> None:
        """The body of an answer was written."""
        self.histograms["encode_seconds"].observe(seconds)

    def count_batch(self, batch: Batch, seconds: float, vectors: Vectors | None) -> None:
        """A batch ended, without vectors if it failed."""
        if vectors is None:
            self.counts["failed_batches"] += 1
            return
        self.histograms["batch_texts"].observe(len(batch))
        self.histograms["batch_tokens"].observe(batch.n_tokens)
        self.histograms["batch_seconds"].observe(seconds)
        if vectors.cells is not None:
            self.counts["computed_cells"] += vectors.cells


def _gauge(name: str, text: str, value: float) -> Family:
    return Family("gauge", name, text, (), [((), float(value))])


def _known_errors() -> Iterator[tuple[str, str]]:
    """Status and code of every error there is."""
    return ((str(each.status), each.code) for each in _subclasses(ServiceError) if each.code)


def _known_rejections() -> Iterator[str]:
    return (each.rejection for each in _subclasses(ServiceError) if each.rejection)


def _subclasses(base: type[ServiceError]) -> Iterator[type[ServiceError]]:
    yield base
    for each in base.__subclasses__():
        yield from _subclasses(each)
