"""Identical texts are computed once, within a batch and while one is under way."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from llmrs.batch import Computing
from llmrs.embeddings import Prepared, Vectors
from llmrs.errors import DeadlineExceeded, EngineError, UpstreamError
from llmrs.fairqueue import Group, Span
from tests.collector.test_collector import Bench, rows


def test_a_text_is_computed_once_within_a_batch() -> None:
    bench = Bench(batch_size=8)
    a, b = bench.submit("a", 1, 2, 1, 3), bench.submit("b", 2)
    bench.collector.dispatch()
    assert bench.payloads(bench.started[0]) == [1, 2, 3]
    bench.finish()
    assert (rows(a), rows(b)) == ([1, 2, 1, 3], [2])


def test_a_text_that_is_under_way_is_waited_for() -> None:
    bench = Bench(slots=2)
    a = bench.submit("a", 1, 2)
    bench.collector.dispatch()
    b, c = bench.submit("b", 2), bench.submit("c", 1, 5, 2)
    bench.collector.dispatch()
    assert [bench.payloads(batch) for batch in bench.started] == [[1, 2], [5]]
    assert bench.collector.waiting == 0
    bench.finish()
    assert bench.answered == ["a", "b"]
    bench.finish()
    assert (rows(a), rows(b), rows(c)) == ([1, 2], [2], [1, 5, 2])


def test_a_text_is_computed_again_once_its_batch_has_ended() -> None:
    bench = Bench(slots=2)
    bench.submit("a", 1)
    bench.collector.dispatch()
    bench.finish()
    bench.submit("b", 1)
    bench.collector.dispatch()
    assert bench.payloads(bench.started[0]) == [1]


def test_whoever_joined_does_not_share_a_failure() -> None:
    bench = Bench(slots=2)
    a = bench.submit("a", 1)
    bench.collector.dispatch()
    b = bench.submit("b", 1)
    bench.collector.dispatch()
    bench.fail(DeadlineExceeded("the deadline of a"))
    assert isinstance(a.error, DeadlineExceeded)
    assert not b.done
    bench.collector.dispatch()
    bench.finish()
    assert rows(b) == [1]


def test_whoever_joined_and_left_is_not_computed_again() -> None:
    bench = Bench(slots=2)
    bench.submit("a", 1)
    bench.collector.dispatch()
    bench.collector.cancel(b := bench.submit("b", 1))
    c = bench.submit("c", 1, deadline=200)
    bench.collector.dispatch()
    bench.now = 300
    bench.fail(UpstreamError("down"))
    bench.collector.dispatch()
    assert not bench.started
    assert b.done
    assert isinstance(c.error, DeadlineExceeded)


def test_a_poison_text_is_found_among_its_copies() -> None:
    bench = Bench(batch_size=8)
    a, b, c = bench.submit("a", 1, 13, 1), bench.submit("b", 2, 1), bench.submit("c", 13)
    bench.collector.dispatch()
    while bench.started:
        if 13 in bench.payloads(bench.started[0]):
            bench.fail(EngineError("poison"))
        else:
            bench.finish()
        bench.collector.dispatch()
    assert rows(b) == [2, 1]
    assert isinstance(a.error, EngineError)
    assert isinstance(c.error, EngineError)
    assert bench.collector.running == bench.collector.waiting == 0


@pytest.mark.parametrize("n_rows", [1, 3])
def test_a_wrong_number_of_rows_is_not_spread_over_the_copies(n_rows: int) -> None:
    bench = Bench()
    a = bench.submit("a", 1, 2, 1)
    bench.collector.dispatch()
    bench.collector.finish(bench.started.pop(), Vectors(np.zeros((n_rows, 2), np.float32)))
    assert isinstance(a.error, UpstreamError)


texts = st.text("ab", max_size=2)
arrays = st.lists(st.integers(0, 2), max_size=2).map(lambda ids: np.array(ids, np.int32))
lists = st.lists(st.integers(0, 2), min_size=1, max_size=2)


def plain(payload: Any) -> Any:
    """What makes two payloads the same, as far as a model is concerned."""
    if isinstance(payload, np.ndarray):
        return ("array", *payload.tolist())
    return payload if isinstance(payload, str) else ("list", *payload)


@given(st.lists(st.lists(texts | arrays | lists, min_size=1, max_size=9), min_size=1, max_size=5))
def test_shares_lead_back_to_the_texts(payloads: list[list[Any]]) -> None:
    groups = []
    for each in payloads:
        group = Group(lambda: None, 1e9, None)
        group.prepared = [Prepared(payload, 1) for payload in each]
        groups.append(group)
    batch = Computing().form([Span(group, 0, len(group.prepared)) for group in groups], 0.0)
    distinct = [plain(text.payload) for text in batch.prepared]
    assert len(distinct) == len(set(distinct))
    assert set(distinct) == {plain(payload) for each in payloads for payload in each}
    found: dict[tuple[Group, int], Any] = {}
    for (group, start, stop), row in batch.shares:
        for index in range(start, stop):
            found[group, index] = distinct[row + index - start]
    assert found == {
        (group, index): plain(text.payload) for group in groups for index, text in enumerate(group.prepared)
    }
    left, right = batch.halves()
    halves = [
        [(span.group, index) for span in half for index in range(span.start, span.stop)]
        for half in (left, right)
    ]
    assert {*halves[0], *halves[1]} == set(found)
    assert not {*halves[0]} & {*halves[1]}
    middle = len(distinct) // 2
    assert {found[place] for place in halves[0]} == set(distinct[:middle])
