"""The collector without a server: the clock, the backend and the loop are this file's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrs.batch import Batch
from llmrs.collector import ClientGone, Collector
from llmrs.embeddings import Limits, Prepared, Vectors
from llmrs.errors import (
    DeadlineExceeded,
    EngineError,
    InternalError,
    NotReady,
    QueueFull,
    ServiceError,
    UpstreamError,
    UpstreamRejected,
)
from llmrs.fairqueue import Group


class Bench:
    """A collector with a clock that is moved by hand and batches that end when told to."""

    def __init__(
        self, *, batch_size: int = 4, batch_tokens: int = 1000, slots: int = 1, capacity: int = 10
    ) -> None:
        self.limits = Limits(batch_size=batch_size, batch_tokens=batch_tokens, slots=slots)
        self.now = 100.0
        self.started: list[Batch] = []
        self.wakes = 0
        self.answered: list[str] = []
        self.collector = Collector(
            self.started.append, self._wake, lambda: self.limits, capacity, clock=lambda: self.now
        )

    def _wake(self) -> None:
        self.wakes += 1

    def submit(
        self,
        name: str,
        *texts: int | str,
        tokens: int = 5,
        deadline: float = 1e9,
        abandoned: Callable[[], bool] | None = None,
        cap: int = 0,
    ) -> Group:
        group = self.collector.admit(
            lambda: self.answered.append(name),
            deadline,
            abandoned,
            n_texts=len(texts),
            n_tokens=tokens * len(texts),
        )
        self.collector.submit(group, [Prepared(text, tokens) for text in texts], cap)
        return group

    def payloads(self, batch: Batch) -> list[Any]:
        return [text.payload for text in batch.prepared]

    def finish(self, index: int = 0) -> list[Any]:
        """End a running batch: the vector of text x is [x, -x]. Returns its texts."""
        batch = self.started.pop(index)
        texts = self.payloads(batch)
        rows = np.array([[text, -text] for text in texts], np.float32)
        self.collector.finish(batch, Vectors(rows))
        return texts

    def fail(self, error: ServiceError, index: int = 0) -> None:
        self.collector.fail(self.started.pop(index), error)


def rows(group: Group) -> list[float]:
    assert group.done
    assert group.error is None
    assert group.matrix is not None
    assert (group.matrix[:, 1] == -group.matrix[:, 0]).all()
    return [float(x) for x in group.matrix[:, 0]]


def test_nothing_starts_before_the_loop_is_idle() -> None:
    bench = Bench()
    bench.submit("a", 1)
    bench.submit("b", 2)
    assert not bench.started
    assert bench.wakes == 2
    bench.collector.dispatch()
    assert bench.payloads(bench.started[0]) == [1, 2], "what arrived in the same tick shares the batch"


def test_rows_come_back_to_their_requests_in_order() -> None:
    bench = Bench(batch_size=8)
    a, b = bench.submit("a", 1, 2, 3), bench.submit("b", 4)
    bench.collector.dispatch()
    bench.finish()
    assert rows(a) == [1, 2, 3]
    assert rows(b) == [4]
    assert bench.answered == ["a", "b"]
    assert bench.collector.waiting == 0


def test_a_request_larger_than_a_batch_is_put_together_again() -> None:
    bench = Bench(batch_size=4)
    a = bench.submit("a", *range(10))
    bench.collector.dispatch()
    sizes = []
    while bench.started:
        sizes.append(len(bench.finish()))
        bench.collector.dispatch()
    assert sizes == [4, 4, 2]
    assert rows(a) == list(range(10))


def test_no_more_batches_than_slots() -> None:
    bench = Bench(batch_size=1, slots=2)
    for number, name in enumerate("abc"):
        bench.submit(name, number)
    bench.collector.dispatch()
    assert len(bench.started) == 2
    bench.collector.dispatch()
    assert len(bench.started) == 2
    bench.finish()
    assert len(bench.started) == 2, "a full batch waited, so it started at once"


def test_texts_are_shared_out_among_free_slots_that_are_cores() -> None:
    bench = Bench(batch_size=8, slots=3)
    bench.limits = Limits(batch_size=8, batch_tokens=1000, slots=3, spread=True)
    a, b = bench.submit("a", *range(5)), bench.submit("b", 5, 6)
    bench.collector.dispatch()
    assert sorted(len(batch) for batch in bench.started) == [2, 2, 3]
    bench.submit("c", *range(10, 20))
    bench.finish()
    bench.collector.dispatch()
    assert len(bench.started[-1]) == 8, "one slot was free, and took a full batch"
    bench.finish()
    bench.finish()
    assert (rows(a), rows(b)) == ([0, 1, 2, 3, 4], [5, 6])


def test_behind_a_network_one_batch_is_better_than_many() -> None:
    bench = Bench(batch_size=8, slots=3)
    bench.submit("a", *range(8))
    bench.collector.dispatch()
    assert [len(batch) for batch in bench.started] == [8]


def test_a_batch_with_enough_tokens_starts_before_the_answers_are_written() -> None:
    bench = Bench(batch_size=10)
    bench.limits = Limits(batch_size=10, batch_tokens=1000, slots=1, efficient_tokens=12)
    bench.submit("a", 1)
    bench.collector.dispatch()
    bench.submit("b", 2, 3, tokens=5)
    bench.finish()
    assert not bench.started, "10 tokens are too few"
    bench.collector.dispatch()
    bench.submit("c", 4, 5, 6, tokens=5)
    bench.finish()
    assert bench.payloads(bench.started[0]) == [4, 5, 6]


def test_without_a_full_batch_waiting_the_loop_is_asked_first() -> None:
    bench = Bench(batch_size=4)
    bench.submit("a", 1)
    bench.collector.dispatch()
    bench.submit("b", 2)
    bench.wakes = 0
    bench.finish()
    assert not bench.started
    assert bench.wakes == 1


def test_a_batch_holds_no_more_padded_tokens_than_its_budget() -> None:
    bench = Bench(batch_size=100, batch_tokens=40)
    bench.submit("a", 1, 2, tokens=10)
    bench.submit("b", 3, tokens=18)
    bench.collector.dispatch()
    assert bench.payloads(bench.started[0]) == [1, 2], "3 x 18 tokens exceed 40"
    bench.finish()
    bench.collector.dispatch()
    assert bench.payloads(bench.started[0]) == [3]


def test_a_text_longer_than_the_budget_is_computed_alone() -> None:
    bench = Bench(batch_tokens=40)
    a = bench.submit("a", 1, tokens=500)
    bench.submit("b", 2)
    bench.collector.dispatch()
    assert bench.finish() == [1]
    assert rows(a) == [1]


def test_a_small_request_shares_the_next_batch_of_a_large_one() -> None:
    bench = Bench(batch_size=4)
    bench.submit("bulk", *range(1000))
    bench.collector.dispatch()
    query = bench.submit("query", 7777)
    bench.finish()
    bench.collector.dispatch()
    assert 7777 in bench.payloads(bench.started[0])
    bench.finish()
    assert rows(query) == [7777]


class BulkAndQueries(Bench):
    """A bulk request that has shown the engine's speed: 0.9 ms a token; a text has five."""

    def __init__(self, slots: int = 1) -> None:
        super().__init__(batch_size=8, slots=slots, capacity=100)
        self.bulk = self.submit("bulk", *range(1000))
        self.collector.dispatch()
        self.turn()

    def turn(self) -> list[Any]:
        """One batch at the engine's speed, and what the idle loop then starts."""
        self.now += 0.0009 * self.started[0].n_tokens
        texts = self.finish()
        self.collector.dispatch()
        return texts


def test_alone_a_large_request_gets_full_batches() -> None:
    bench = BulkAndQueries()
    assert {len(bench.turn()) for _ in range(5)} == {8}


def test_while_queries_come_a_large_request_gets_small_helpings() -> None:
    bench = BulkAndQueries()
    bench.submit("query", 7777)
    bench.turn()  # the batch that had begun
    assert bench.turn() == [7777], "the query is next, and pays for nobody else's text"
    assert len(bench.turn()) == 2, "two texts, because 11 tokens take 10 ms"
    bench.now += 1.5
    bench.turn()
    assert len(bench.turn()) == 8, "nobody came for a second"


def test_both_kinds_of_requests_take_turns() -> None:
    bench = BulkAndQueries()
    for i in range(30):
        bench.submit(f"query {i}", 5000 + i)
        if i % 10 == 9:
            bench.now += 0.1
    bench.turn()
    kinds = ["".join(sorted({"q" if text >= 5000 else "b" for text in bench.turn()})) for _ in range(8)]
    assert kinds == ["q", "b"] * 4 or kinds == ["b", "q"] * 4


def test_while_both_kinds_come_the_loop_is_asked_before_the_next_helping() -> None:
    bench = BulkAndQueries()
    bench.submit("query", 7777)
    bench.finish()
    assert not bench.started


def test_two_large_requests_share_every_batch() -> None:
    bench = Bench(batch_size=4)
    bench.submit("a", *range(100))
    bench.submit("b", *range(1000, 1100))
    for _ in range(5):
        bench.collector.dispatch()
        assert sum(text >= 1000 for text in bench.finish()) == 2


def test_a_request_may_ask_for_smaller_batches() -> None:
    bench = Bench(batch_size=8)
    a = bench.submit("a", *range(5), cap=2)
    bench.submit("b", 100, 101, 102)
    bench.collector.dispatch()
    first = bench.finish()
    assert sum(text < 100 for text in first) == 2
    assert 100 in first
    while not a.done:
        bench.collector.dispatch()
        assert sum(text < 100 for text in bench.finish()) <= 2
    assert rows(a) == list(range(5))


def test_one_request_more_than_the_capacity_is_refused_with_a_wait() -> None:
    bench = Bench(capacity=2, batch_size=1)
    bench.collector.close_door(lambda: True)
    bench.submit("a", 1)
    bench.submit("b", 2)
    with pytest.raises(QueueFull) as refusal:
        bench.submit("c", 3)
    assert 1000 <= int(refusal.value.headers["retry-after-ms"]) <= 1250
    bench.collector.dispatch()  # a leaves the queue
    bench.submit("c", 3)


def test_the_wait_is_the_backlog_at_the_measured_speed() -> None:
    bench = Bench(capacity=2, batch_size=10)
    bench.collector.close_door(lambda: True)
    bench.submit("a", *range(10))
    bench.collector.dispatch()
    bench.now += 5.0  # half a second a text
    bench.finish()
    bench.submit("b", *range(20))
    bench.submit("c", *range(10))
    with pytest.raises(QueueFull) as refusal:
        bench.submit("d", 1)
    # It passes b, which is more than a batch: the ten texts of c, and its own.
    assert 5500 <= int(refusal.value.headers["retry-after-ms"]) <= 5500 * 1.25


def test_what_waits_is_counted_until_it_is_in_a_batch() -> None:
    bench = Bench(batch_size=4)
    group = bench.collector.admit(lambda: None, 1e9, n_texts=6, n_tokens=100)
    assert (bench.collector.waiting, bench.collector.waiting_tokens) == (1, 100)
    bench.collector.submit(group, [Prepared(text, 5) for text in range(6)])
    assert bench.collector.waiting_tokens == 30
    bench.collector.dispatch()
    assert (bench.collector.waiting, bench.collector.waiting_tokens) == (1, 10)
    bench.collector.cancel(group)
    assert (bench.collector.waiting, bench.collector.waiting_tokens) == (0, 0)


def test_a_request_larger_than_the_queue_is_served() -> None:
    bench = Bench(capacity=1, batch_size=4)
    a = bench.submit("a", *range(50))
    while not a.done:
        bench.collector.dispatch()
        bench.finish()
    assert rows(a) == list(range(50))


def test_a_request_admitted_but_not_submitted_holds_its_place() -> None:
    bench = Bench(capacity=1)
    bench.collector.close_door(lambda: True)
    group = bench.collector.admit(lambda: None, 1e9)
    with pytest.raises(QueueFull):
        bench.submit("b", 1)
    bench.collector.cancel(group)
    bench.submit("b", 1)


def test_one_request_more_than_the_capacity_waits_at_the_door() -> None:
    bench = Bench(capacity=2, batch_size=1)
    told: list[str] = []
    a, b = bench.submit("a", 1), bench.submit("b", 2)
    c = bench.collector.admit(lambda: told.append("c"), 1e9)
    assert (c.at_door, bench.collector.at_door, bench.collector.waiting) == (True, 1, 3)
    assert list(bench.collector.groups()) == [c, a, b]
    bench.collector.dispatch()  # a leaves the queue
    assert (c.at_door, told, bench.collector.waiting) == (False, ["c"], 2)
    bench.collector.submit(c, [Prepared(3, 5)])
    for text in (1, 2, 3):
        assert bench.finish() == [text]
        bench.collector.dispatch()
    assert rows(c) == [3]
    assert told == ["c", "c"]
    assert bench.collector.waiting == 0


def test_who_leaves_gives_the_place_to_one_at_the_door() -> None:
    """70 clients left, 70 came."""
    bench = Bench(capacity=100, batch_size=4)
    bench.submit("running", 1000)
    bench.collector.dispatch()
    left: set[int] = set()
    stay = [bench.submit(f"{i}", i, abandoned=lambda i=i: i in left) for i in range(100)]
    left |= set(range(70))
    new = [bench.collector.admit(lambda: None, 1e9) for _ in range(70)]
    assert bench.collector.at_door == 70
    bench.now += 1.0
    for group in tuple(bench.collector.groups()):
        bench.collector.look_after(group)
    assert (bench.collector.at_door, bench.collector.waiting) == (0, 100)
    assert [isinstance(group.error, ClientGone) for group in stay] == [True] * 70 + [False] * 30
    assert all(group.waiting for group in new)


@pytest.mark.parametrize("end", ["close", "abort", "refuse_at_door"])
def test_an_end_answers_those_at_the_door(end: str) -> None:
    bench = Bench(capacity=1)
    bench.submit("a", 1)
    groups = [bench.collector.admit(lambda: None, 1e9) for _ in range(3)]
    getattr(bench.collector, end)(lambda: NotReady("the end"))
    assert [type(group.error) for group in groups] == [NotReady] * 3
    assert bench.collector.at_door == 0


def test_a_group_at_the_door_can_be_turned_away_or_given_up() -> None:
    bench = Bench(capacity=1)
    bench.submit("a", 1)
    late, given_up = (bench.collector.admit(lambda: None, 1e9) for _ in range(2))
    bench.collector.turn_away(late)
    assert isinstance(late.error, QueueFull)
    bench.collector.cancel(given_up)
    assert isinstance(given_up.error, ClientGone)
    assert bench.collector.waiting == 1


def test_an_expired_request_is_answered_and_not_computed() -> None:
    bench = Bench()
    a = bench.submit("a", 1, deadline=101.0)
    b = bench.submit("b", 2, deadline=200.0)
    bench.now = 101.0
    bench.collector.dispatch()
    assert isinstance(a.error, DeadlineExceeded)
    assert bench.finish() == [2]
    assert rows(b) == [2]
    assert bench.answered == ["a", "b"]


def test_a_request_whose_client_left_is_not_computed() -> None:
    bench = Bench()
    a = bench.submit("a", 1, abandoned=lambda: True)
    b = bench.submit("b", 2, abandoned=lambda: False)
    bench.now += 1.0
    bench.collector.dispatch()
    assert isinstance(a.error, ClientGone)
    assert bench.finish() == [2]
    assert rows(b) == [2]


def test_a_fresh_request_is_not_probed() -> None:
    bench = Bench()
    probes: list[bool] = []

    def probe() -> bool:
        probes.append(True)
        return True

    bench.submit("a", 1, abandoned=probe)
    bench.collector.dispatch()
    assert bench.started
    assert not probes


def test_the_rest_of_a_cancelled_request_is_dropped() -> None:
    bench = Bench(batch_size=4)
    a = bench.submit("a", *range(100))
    bench.collector.dispatch()
    bench.collector.cancel(a)
    b = bench.submit("b", 555)
    bench.finish()
    bench.collector.dispatch()
    assert bench.finish() == [555]
    assert rows(b) == [555]
    assert bench.answered == ["a", "b"]
    assert bench.collector.waiting == 0


def test_one_poison_text_fails_its_request_only() -> None:
    bench = Bench(batch_size=8)
    groups = {
        name: bench.submit(name, *texts) for name, texts in {"a": (1, 2), "b": (3, 13, 4), "c": (5,)}.items()
    }
    bench.collector.dispatch()
    batches = 0
    while bench.started:
        batches += 1
        if 13 in bench.payloads(bench.started[0]):
            bench.fail(UpstreamRejected("the backend refused an input"))
        else:
            bench.finish()
        bench.collector.dispatch()
    assert rows(groups["a"]) == [1, 2]
    assert rows(groups["c"]) == [5]
    error = groups["b"].error
    assert isinstance(error, UpstreamRejected)
    assert error.message == "the backend refused an input (input[1])"
    assert error.param == "input"
    assert batches <= 2 * 6
    assert sorted(bench.answered) == ["a", "b", "c"]


@given(st.sets(st.integers(0, 31), min_size=1), st.integers(1, 32), st.integers(1, 3))
def test_finding_texts_takes_a_bounded_number_of_batches(bad: set[int], size: int, slots: int) -> None:
    """At most 2 b log2(n) + 1 for b bad texts among n, each of a request of its own; no other one is lost."""
    bench = Bench(batch_size=32, slots=slots, capacity=99)
    groups = [bench.submit(str(text), text) for text in range(size)]
    bad &= set(range(size))
    batches = 0
    bench.collector.dispatch()
    while bench.started:
        batches += 1
        if bad.intersection(bench.payloads(bench.started[0])):
            bench.fail(UpstreamRejected("refused"))
        else:
            bench.finish()
        bench.collector.dispatch()
    assert {text for text, group in enumerate(groups) if group.error} == bad
    assert batches <= min(2 * size - 1, 1 + 2 * len(bad) * math.ceil(math.log2(size)))


def test_an_unreachable_backend_fails_the_batch_without_retries() -> None:
    bench = Bench(batch_size=8)
    a, b = bench.submit("a", 1, 2), bench.submit("b", 3)
    bench.collector.dispatch()
    bench.fail(UpstreamError("unreachable"))
    assert isinstance(a.error, UpstreamError)
    assert isinstance(b.error, UpstreamError)
    assert a.error is not b.error, "each waiter raises an exception of its own"
    bench.collector.dispatch()
    assert not bench.started
    bench.submit("c", 4)
    bench.collector.dispatch()
    assert bench.finish() == [4], "the collector goes on"


def test_a_short_answer_is_an_upstream_error() -> None:
    bench = Bench()
    a = bench.submit("a", 1, 2)
    bench.collector.dispatch()
    bench.collector.finish(bench.started.pop(), Vectors(np.zeros((1, 2), np.float32)))
    assert isinstance(a.error, UpstreamError)


def test_a_width_that_changes_within_a_request_is_an_upstream_error() -> None:
    bench = Bench(batch_size=1)
    a = bench.submit("a", 1, 2)
    bench.collector.dispatch()
    bench.collector.finish(bench.started.pop(), Vectors(np.zeros((1, 2), np.float32)))
    bench.collector.finish(bench.started.pop(), Vectors(np.zeros((1, 3), np.float32)))
    assert isinstance(a.error, UpstreamError)


def test_a_batch_is_answered_once() -> None:
    bench = Bench()
    a = bench.submit("a", 1)
    bench.collector.dispatch()
    batch = bench.started[0]
    bench.finish()
    bench.collector.fail(batch, EngineError("late"))
    assert rows(a) == [1]
    assert bench.collector.running == 0
    assert bench.answered == ["a"]


def test_a_start_that_raises_answers_its_groups_and_frees_the_slot() -> None:
    bench = Bench()

    def broken(batch: Batch) -> None:
        raise ZeroDivisionError

    bench.collector._start = broken
    a = bench.submit("a", 1)
    with pytest.raises(ZeroDivisionError):
        bench.collector.dispatch()
    assert isinstance(a.error, InternalError)
    assert bench.collector.running == 0


def test_tokens_counted_by_the_backend_replace_the_estimate() -> None:
    bench = Bench()
    a, b = bench.submit("a", 1, 2), bench.submit("b", 3)
    bench.collector.dispatch()
    bench.collector.finish(bench.started.pop(), Vectors(np.ones((3, 2), np.float32), [7, 8, 9]))
    assert a.n_tokens == [7, 8]
    assert b.n_tokens == [9]


def test_closing_answers_what_waits_and_what_still_comes() -> None:
    bench = Bench(batch_size=1)
    running, waiting = bench.submit("a", 1), bench.submit("b", 2)
    late = bench.collector.admit(lambda: bench.answered.append("late"), 1e9)
    bench.collector.dispatch()
    bench.collector.close(lambda: NotReady("closing", retry_after=1))
    assert isinstance(waiting.error, NotReady)
    assert not running.done
    bench.finish()
    assert rows(running) == [1]
    bench.collector.submit(late, [Prepared(1, 1)])
    assert isinstance(late.error, NotReady)
    assert bench.answered == ["b", "a", "late"]


def test_limits_learned_later_hold_for_the_next_batch() -> None:
    bench = Bench(batch_size=8)
    bench.submit("a", *range(8))
    bench.limits = Limits(batch_size=3, batch_tokens=1000, slots=1)
    bench.collector.dispatch()
    assert len(bench.finish()) == 3


def test_texts_that_are_never_computed_are_counted_by_reason() -> None:
    bench = Bench(batch_size=2)
    failing = bench.submit("failing", 1, 2, 3)
    bench.collector.dispatch()
    bench.fail(UpstreamError("down"))
    assert failing.error is not None
    bench.submit("late", 4, deadline=bench.now + 1)
    given_up = bench.submit("given up", 5, 6)
    bench.submit("gone", 7, 8, abandoned=lambda: True)
    bench.now += 2
    bench.collector.cancel(given_up)
    bench.collector.dispatch()
    assert not bench.started
    assert bench.collector.dropped_texts == {"failed": 1, "deadline": 1, "client_gone": 4}
