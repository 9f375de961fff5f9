"""The collector driven by threads: who shares a batch, and that everyone is answered."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import pytest

from llmrs.embeddings import Limits, Prepared, Vectors
from llmrs.errors import EngineError, InternalError
from llmrs.threaded import ThreadedCollector

PATIENCE = 60
"""Seconds. Nothing here waits for time to pass, but the machine may be busy."""


class Backend:
    """A text's vector is its number, and its number plus one. The first batch waits for `gate`."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun = threading.Event()
        self.batches: list[list[str]] = []
        self.fails: dict[str, Exception] = {}

    def embed(self, batch: list[Prepared], *, timeout: float) -> Vectors:
        assert timeout == float("inf")
        texts = [each.payload for each in batch]
        self.batches.append(texts)
        self.begun.set()
        assert self.gate.wait(PATIENCE)
        for text in texts:
            if text in self.fails:
                raise self.fails[text]
        return Vectors(np.array([[int(text), int(text) + 1] for text in texts], np.float32))


@pytest.fixture
def backend() -> Iterator[Backend]:
    backend = Backend()
    yield backend
    backend.gate.set()


@pytest.fixture
def make(backend: Backend) -> Iterator[Callable[..., ThreadedCollector]]:
    made = []

    def make(slots: int = 1, batch_size: int = 32) -> ThreadedCollector:
        made.append(ThreadedCollector(backend.embed, Limits(batch_size, 1000, slots, spread=True)))
        return made[-1]

    yield make
    backend.gate.set()
    for collector in made:
        collector.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


def prepared(*numbers: int) -> list[Prepared]:
    return [Prepared(str(number), 1) for number in numbers]


def occupied(make, backend, pool, **settings):
    """A collector whose only slot computes text 0 until the gate is opened."""
    collector = make(**settings)
    first = pool.submit(collector.compute, prepared(0))
    assert backend.begun.wait(PATIENCE)
    return collector, first


def submitted(collector, pool, calls):
    """Calls of `compute`, all of which wait for a batch by now."""
    futures = [pool.submit(collector.compute, call) for call in calls]
    wanted = sum(map(len, calls))
    pause = threading.Event()
    for _ in range(PATIENCE * 1000):
        if collector._collector.waiting_texts == wanted:
            return futures
        pause.wait(0.001)
    raise AssertionError("the calls did not come")


def test_callers_of_the_same_time_share_a_batch(make, backend, pool):
    collector, first = occupied(make, backend, pool)
    rest = submitted(collector, pool, [prepared(n) for n in range(1, 17)])
    backend.gate.set()
    assert [future.result(PATIENCE).tolist() for future in (first, *rest)] == [
        [[n, n + 1]] for n in range(17)
    ]
    assert [sorted(map(int, batch)) for batch in backend.batches] == [[0], list(range(1, 17))]


def test_a_large_call_goes_in_batches_and_comes_back_in_order(make, backend):
    backend.gate.set()
    matrix = make(slots=2, batch_size=4).compute(prepared(*range(50)))
    assert matrix.dtype == np.float32
    assert matrix[:, 0].tolist() == list(range(50))
    assert max(map(len, backend.batches)) == 4


def test_as_many_batches_at_once_as_there_are_slots(make, backend, pool):
    collector = make(slots=3)
    call = pool.submit(collector.compute, prepared(*range(9)))
    pause = threading.Event()
    for _ in range(PATIENCE * 1000):
        if len(backend.batches) == 3:
            break
        pause.wait(0.001)
    assert sorted(map(len, backend.batches)) == [3, 3, 3]  # shared out, none answered yet
    backend.gate.set()
    assert len(call.result(PATIENCE)) == 9


def test_identical_texts_are_computed_once(make, backend, pool):
    collector, _ = occupied(make, backend, pool)
    rest = submitted(collector, pool, [prepared(5), prepared(5, 6)])
    backend.gate.set()
    assert rest[0].result(PATIENCE).tolist() == [[5, 6]]
    assert rest[1].result(PATIENCE).tolist() == [[5, 6], [6, 7]]
    assert sorted(backend.batches[1]) == ["5", "6"]


def test_a_text_the_engine_fails_on_fails_its_own_call_only(make, backend, pool):
    backend.fails["3"] = EngineError("no vector")
    collector, _ = occupied(make, backend, pool)
    calls = submitted(collector, pool, [prepared(1, 2), prepared(7, 3), prepared(4)])
    backend.gate.set()
    assert calls[0].result(PATIENCE)[:, 0].tolist() == [1, 2]
    assert calls[2].result(PATIENCE)[:, 0].tolist() == [4]
    with pytest.raises(EngineError, match=r"no vector \(input\[1\]\)"):
        calls[1].result(PATIENCE)


def test_an_error_nobody_foresaw_is_an_engine_error_with_its_cause(make, backend):
    backend.gate.set()
    backend.fails["1"] = ZeroDivisionError("deep inside")
    collector = make()
    with pytest.raises(EngineError, match="could not compute") as caught:
        collector.compute(prepared(1))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert collector.compute(prepared(2)).tolist() == [[2, 3]]  # its thread lives on


def test_an_error_that_is_no_texts_fault(make, backend, pool):
    backend.fails["1"] = InternalError("broken")
    collector, _ = occupied(make, backend, pool)
    calls = submitted(collector, pool, [prepared(1), prepared(2)])
    backend.gate.set()
    for call in calls:
        with pytest.raises(InternalError, match="broken"):
            call.result(PATIENCE)


def test_what_is_cancelled_is_not_computed(make, backend, pool):
    collector, first = occupied(make, backend, pool)
    told = threading.Event()
    group = collector.submit(prepared(8), told.set)
    call = pool.submit(collector.compute, prepared(9))
    collector.cancel(group)
    assert told.wait(PATIENCE)
    collector.cancel(group)  # again, harmless
    backend.gate.set()
    assert call.result(PATIENCE).tolist() == [[9, 10]]
    assert first.result(PATIENCE).tolist() == [[0, 1]]
    assert all("8" not in batch for batch in backend.batches)


def test_closing_answers_what_waits_and_ends_the_threads(make, backend, pool):
    before = set(threading.enumerate())
    collector, first = occupied(make, backend, pool)
    mine = {
        thread for thread in set(threading.enumerate()) - before if thread.name.startswith("llmrs-embedder")
    }
    assert len(mine) == 1
    waiting = submitted(collector, pool, [prepared(1)])
    collector.close()
    with pytest.raises(EngineError, match="unloaded"):
        waiting[0].result(PATIENCE)
    with pytest.raises(EngineError, match="unloaded"):
        collector.compute(prepared(2))
    backend.gate.set()
    assert first.result(PATIENCE).tolist() == [[0, 1]]  # it was under way
    for thread in mine:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_many_threads_with_many_calls(make, backend, pool):
    backend.gate.set()
    collector = make(slots=2, batch_size=8)

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(40):
            numbers = random.integers(0, 1000, random.integers(1, 12)).tolist()
            assert collector.compute(prepared(*numbers))[:, 0].tolist() == numbers

    futures = [pool.submit(work, seed) for seed in range(16)]
    assert not wait(futures, PATIENCE).not_done
    for future in futures:
        future.result()
    assert max(map(len, backend.batches)) <= 8
    assert collector._collector.running == collector._collector.waiting == 0


def test_a_forked_process_is_told_and_does_not_hang(make, monkeypatch):
    collector = make()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="forked"):
        collector.compute(prepared(1))
