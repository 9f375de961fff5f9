"""Splitting batches and sharing out token counts: exact on every input."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrs.backends.parts import share_out, split

ITEMS = st.lists(st.tuples(st.binary(max_size=12), st.booleans()), max_size=40)


@given(ITEMS, st.integers(1, 8), st.integers(1, 40))
def test_a_split_keeps_every_position_once_in_order_and_within_bounds(items, max_items, max_bytes):
    parts = split([i for i, _ in items], [k for _, k in items], max_items=max_items, max_bytes=max_bytes)
    assert sorted(position for part in parts for position in part) == list(range(len(items)))
    for part in parts:
        assert part == sorted(part)
        assert len(part) <= max_items
        assert len({items[position][1] for position in part}) == 1
        assert len(part) == 1 or sum(len(items[position][0]) + 1 for position in part) <= max_bytes


@pytest.mark.parametrize(
    ("max_items", "max_bytes", "parts"),
    [
        (10, 100, [[0, 1, 3], [2]]),
        (2, 100, [[0, 1], [2], [3]]),
        (10, 4, [[0, 1], [2], [3]]),
        (10, 1, [[0], [1], [2], [3]]),
    ],
)
def test_a_split_is_no_finer_than_it_must_be(max_items, max_bytes, parts):
    items = [b"a", b"b", b"c", b"d"]
    assert split(items, [True, True, False, True], max_items=max_items, max_bytes=max_bytes) == parts


@given(st.lists(st.integers(1, 500), min_size=1, max_size=50), st.integers(0, 10_000))
def test_shares_sum_to_the_total_and_are_proportional(weights, more):
    total = len(weights) + more
    shares = share_out(total, weights)
    assert sum(shares) == total
    assert min(shares) >= 1
    for share, weight in zip(shares, weights, strict=True):
        assert abs(share - 1 - more * weight / sum(weights)) < 1


def test_one_input_gets_the_whole_total():
    assert share_out(17, [3]) == [17]


def test_equal_weights_differ_by_at_most_one():
    assert share_out(8, [2, 2, 2]) == [3, 3, 2]
    assert share_out(5, [0, 0, 0]) == [2, 2, 1]
