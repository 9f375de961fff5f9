"""No interleaving of arrivals, batches, failures and departures loses, doubles or swaps a row."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from llmrs.batch import Batch
from llmrs.collector import ClientGone, Collector
from llmrs.embeddings import Limits, Prepared, Vectors
from llmrs.errors import (
    DeadlineExceeded,
    EngineError,
    NotReady,
    QueueFull,
    UpstreamError,
)
from llmrs.fairqueue import Group


class Request:
    def __init__(self, texts: list[int], deadline: float) -> None:
        self.texts = texts
        self.deadline = deadline
        self.prepared = [Prepared(text, text * 7 % 30 + 1) for text in texts]
        self.gone = False
        self.answers = 0
        self.group: Group | None = None
        self.was_at_door = False
        self.let_in = 0


class Interleavings(RuleBasedStateMachine):
    """Texts are numbers and the vector of x is [x, x + 0.5]; number 13k is poison."""

    @initialize(
        patience=st.sampled_from([0.2, float("inf")]),
        batch_size=st.integers(1, 9),
        batch_tokens=st.integers(1, 60),
        slots=st.integers(1, 3),
        capacity=st.integers(1, 6),
        spread=st.booleans(),
        repeats=st.booleans(),
    )
    def begin(
        self,
        batch_size: int,
        batch_tokens: int,
        slots: int,
        capacity: int,
        spread: bool,
        repeats: bool,
        patience: float,
    ) -> None:
        self.limits = Limits(batch_size, batch_tokens, slots, spread=spread)
        self.capacity = capacity
        self.patience = patience
        self.repeats = repeats
        self.now = 0.0
        self.running: list[Batch] = []
        self.requests: list[Request] = []
        self.computed: list[int] = []
        self.next_text = 1
        self.woken = False
        self.closed = False
        self.collector = Collector(
            self.running.append, self._wake, lambda: self.limits, capacity, patience, lambda: self.now
        )

    def _wake(self) -> None:
        self.woken = True

    @rule(
        n=st.integers(1, 20),
        earlier=st.lists(st.integers(0, 9), min_size=20, max_size=20),
        patience=st.sampled_from([0.5, 3.0, 1e9]),
        cap=st.sampled_from([0, 0, 1, 3]),
        guess=st.integers(1, 300),
    )
    def arrive(self, n: int, earlier: list[int], patience: float, cap: int, guess: int) -> None:
        texts = range(self.next_text, self.next_text + n)
        if self.repeats:
            texts = [max(1, text - back) for text, back in zip(texts, earlier[:n], strict=True)]
        request = Request(list(texts), self.now + patience)

        def notify() -> None:
            group = request.group
            if group is not None and not group.done:
                request.let_in += 1
                self.collector.submit(group, request.prepared, cap)
            else:
                request.answers += 1

        try:
            group = self.collector.admit(
                notify, request.deadline, lambda: request.gone, n_texts=n, n_tokens=guess
            )
        except QueueFull:
            assert self.collector.waiting, "an idle server refuses nobody"
            assert self.patience < 1.0 or patience < 1e9, "only a long wait is refused"
            return
        self.next_text += n
        request.group = group
        self.requests.append(request)
        request.was_at_door = group.at_door
        if not group.at_door:
            self.collector.submit(group, request.prepared, cap)

    @rule()
    def idle(self) -> None:
        if self.woken:
            self.woken = False
            self.collector.dispatch()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        batch = self._one_of(data)
        texts = [text.payload for text in batch.prepared]
        if any(text % 13 == 0 for text in texts):
            self.collector.fail(batch, EngineError("poison"))
            return
        self.computed += texts
        rows = np.array([[text, text + 0.5] for text in texts], np.float32)
        self.collector.finish(batch, Vectors(rows))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def backend_fails(self, data: st.DataObject) -> None:
        self.collector.fail(self._one_of(data), UpstreamError("down"))

    def _one_of(self, data: st.DataObject) -> Batch:
        return self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))

    @rule(seconds=st.sampled_from([0.001, 0.1, 1.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), explicitly=st.booleans())
    def client_leaves(self, data: st.DataObject, explicitly: bool) -> None:
        request = data.draw(st.sampled_from(self.requests))
        request.gone = True
        if explicitly:
            assert request.group is not None
            self.collector.cancel(request.group)

    @rule()
    def close(self) -> None:
        if self.next_text > 60:
            self.closed = True
            self.collector.close(lambda: NotReady("closing"))

    @invariant()
    def nobody_is_answered_twice_or_wrongly(self) -> None:
        for request in getattr(self, "requests", []):
            group = request.group
            assert group is not None
            assert request.answers == int(group.done)
            assert request.let_in <= int(request.was_at_door)
            if group.done and group.error is None:
                assert group.matrix is not None
                assert group.matrix.tolist() == [[text, text + 0.5] for text in request.texts]
            if isinstance(group.error, EngineError):
                assert any(text % 13 == 0 for text in request.texts)
            if isinstance(group.error, DeadlineExceeded):
                assert self.now >= request.deadline
            if isinstance(group.error, ClientGone):
                assert request.gone

    @invariant()
    def bounds_hold(self) -> None:
        if not hasattr(self, "running"):
            return
        assert len(self.running) == self.collector.running <= self.limits.slots
        groups = [r.group for r in self.requests if r.group is not None]
        waiting = [group for group in groups if group.waiting]
        at_door = [group for group in groups if group.at_door]
        assert not any(group.waiting or group.done for group in at_door)
        assert len(waiting) <= self.capacity
        assert (self.collector.at_door, self.collector.waiting) == (len(at_door), len(waiting) + len(at_door))
        assert self.collector.waiting_tokens == sum(
            sum(group.n_tokens[group.next :]) if group.prepared else group.backlog
            for group in (*waiting, *at_door)
        )
        places = self.capacity - self.capacity // 4
        bulk = sum(group.bulk for group in waiting)
        for group in at_door:
            assert len(waiting) == self.capacity or (group.bulk and bulk >= places), (
                "nobody waits for nothing"
            )
        for batch in self.running:
            texts = batch.prepared
            assert 1 <= len(texts) <= self.limits.batch_size
            padded = len(texts) * max(text.n_tokens for text in texts)
            assert len(texts) == 1 or padded <= self.limits.batch_tokens
        under_way = [text.payload for batch in self.running for text in batch.prepared]
        assert len(under_way) == len(set(under_way))

    def teardown(self) -> None:
        """Left alone, the collector answers everyone, computes no text twice, and is empty."""
        if not hasattr(self, "running"):
            return
        for _ in range(10_000):
            if self.running:
                batch = self.running.pop()
                texts = [text.payload for text in batch.prepared]
                if any(text % 13 == 0 for text in texts):
                    self.collector.fail(batch, EngineError("poison"))
                else:
                    self.computed += texts
                    rows = np.array([[text, text + 0.5] for text in texts], np.float32)
                    self.collector.finish(batch, Vectors(rows))
            elif self.woken:
                self.woken = False
                self.collector.dispatch()
            else:
                break
        assert all(request.answers == 1 for request in self.requests)
        self.nobody_is_answered_twice_or_wrongly()
        assert self.repeats or len(self.computed) == len(set(self.computed))
        assert self.collector.waiting == self.collector.running == 0


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
