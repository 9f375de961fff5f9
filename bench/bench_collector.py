"""The collector's own cost: from arriving requests to answered ones, with an engine that takes no time.

    pytest bench/bench_collector.py --benchmark-group-by=group --benchmark-columns=min,median,rounds

`futures` is the usual hand-written batcher: a queue of (text, Future), cut into batches. It knows no
fairness, deadlines, token budgets, identical texts or failures, so it is a floor and no rival. A group
is one load: compare inside it. What it does not show: threads, the loop, and waiting.
"""

from __future__ import annotations

from concurrent.futures import Future
from queue import SimpleQueue

import numpy as np
import pytest

from llmrs.collector import Collector
from llmrs.embeddings import Limits, Prepared, Vectors

BATCH = 32
LIMITS = Limits(batch_size=BATCH, batch_tokens=16384, slots=1)
LOADS = {
    "64 requests of 1 text": (64, 1),
    "8 requests of 32 texts": (8, 32),
    "1 request of 2048 texts": (1, 2048),
}
ROWS = np.zeros((BATCH, 384), np.float32)


def ours(requests):
    started = []
    collector = Collector(started.append, lambda: None, lambda: LIMITS, queue_capacity=1000)
    answered = []
    groups = []
    for texts in requests:
        group = collector.admit(lambda: answered.append(1), 1e12)
        collector.submit(group, texts)
        groups.append(group)
    collector.dispatch()
    while started:
        batch = started.pop()
        collector.finish(batch, Vectors(ROWS[: len(batch)]))
        collector.dispatch()
    assert len(answered) == len(requests)
    return [group.matrix for group in groups]


def futures(requests):
    queue = SimpleQueue()
    waiting = []
    for texts in requests:
        waiting.append([Future() for _ in texts])
        for text, future in zip(texts, waiting[-1], strict=True):
            queue.put((text, future))
    while not queue.empty():
        batch = [queue.get() for _ in range(min(BATCH, queue.qsize()))]
        for (_, future), row in zip(batch, ROWS[: len(batch)], strict=True):
            future.set_result(row)
    return [np.array([future.result() for future in each]) for each in waiting]


@pytest.mark.parametrize("contender", ["llmrs", "futures"])
@pytest.mark.parametrize("name", LOADS)
def test_answer_all(benchmark, name, contender):
    benchmark.group = f"collect {name}"
    count, size = LOADS[name]
    requests = [[Prepared(f"{i}-{j}", 20) for j in range(size)] for i in range(count)]
    found = benchmark(ours if contender == "llmrs" else futures, requests)
    assert [matrix.shape for matrix in found] == [(size, 384)] * count
