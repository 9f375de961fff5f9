"""The page that Prometheus reads.

Wraps prometheus_client, which knows the text format and what the kernel says of the process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from llmrs.server.series import Family, Histogram

CONTENT_TYPE = CONTENT_TYPE_LATEST

TEI_COUNTER = re.compile(rb"^((?:# (?:HELP|TYPE) )?te_\w+)_total\b", re.MULTILINE)
"""prometheus_client gives every counter this suffix, and TEI's have none."""


class Page(Collector):
    """All families of a source."""

    def __init__(self, families: Callable[[], Iterable[Family]]) -> None:
        self._families = families
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return TEI_COUNTER.sub(rb"\1", generate_latest(self._registry))

    def describe(self) -> Iterator[Metric]:
        """Nothing: prometheus_client would look for names that occur twice, by asking for everything."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client asks for at a scrape."""
        return map(_metric, self._families())


def process_families() -> Iterator[Family]:
    """What the kernel says of this process: memory, CPU, file descriptors."""
    for metric in _process.collect():
        kind: Literal["counter", "gauge"] = "counter" if metric.type == "counter" else "gauge"
        members = [((), sample.value) for sample in metric.samples]
        yield Family(kind, metric.name, metric.documentation, (), members)


_process = ProcessCollector(registry=None)


def _metric(family: Family) -> Metric:
    if family.kind == "histogram":
        histograms = HistogramMetricFamily(family.name, family.text, labels=family.labels)
        for labels, value in family.members:
            assert isinstance(value, Histogram)
            histograms.add_metric(labels, buckets=value.buckets(), sum_value=value.total)
        return histograms
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    numbers = kind(family.name, family.text, labels=family.labels)
    for labels, value in family.members:
        assert not isinstance(value, Histogram)
        numbers.add_metric(labels, value)
    return numbers
