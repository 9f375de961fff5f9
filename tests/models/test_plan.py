"""The plan of runs: every text once, in a row that holds it, with little more work than needed."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrs.models.plan import (
    ATTENTION_COST,
    MAX_CELLS,
    ROWS,
    RUN_COST,
    Row,
    Run,
    columns_for,
    cut_into_runs,
    pack_into_rows,
    plan,
    plan_padded,
)

LONGEST = 512
CELLS = 2048
lengths = st.lists(st.integers(1, LONGEST), min_size=1, max_size=80)


def work(rows, columns):
    return RUN_COST + rows * columns * (1 + ATTENTION_COST * columns)


def fill(texts, longest=256):
    return sum(texts) / sum(run.rows * run.columns for run in plan(texts, longest))


@given(lengths, st.integers(LONGEST, 600))
def test_every_text_is_in_one_row_that_holds_it(texts, longest):
    runs = plan(texts, longest)
    rows = [row for run in runs for row in run.texts]
    assert sorted(itertools.chain(*rows)) == list(range(len(texts)))
    for run in runs:
        assert 1 <= len(run.texts) <= run.rows
        assert run.rows in ROWS
        assert run.rows == 1 or run.rows * run.columns <= MAX_CELLS
        for row in run.texts:
            assert row
            assert sum(texts[index] for index in row) <= run.columns <= longest


@given(lengths)
def test_texts_that_may_not_share_a_row(texts):
    runs = plan(texts, LONGEST, "rows")
    assert sorted(row for run in runs for row in run.texts) == [[index] for index in range(len(texts))]
    for run in runs:
        assert len(run.texts) <= run.rows
        assert run.rows == 1 or run.rows * run.columns <= MAX_CELLS
        assert all(texts[index] <= run.columns <= LONGEST for [index] in run.texts)


@given(lengths)
def test_texts_that_may_not_be_computed_together(texts):
    runs = plan(texts, LONGEST, "single")
    assert runs == [Run([[index]], 1, length) for index, length in enumerate(texts)]


@given(st.integers(1, 2000), st.integers(1, 2000))
def test_columns(length, longest):
    columns = columns_for(min(length, longest), longest)
    assert min(length, longest) <= columns <= longest
    assert columns <= max(length + 7, 1.25 * length)


def test_there_are_few_shapes():
    columns = {columns_for(length, LONGEST) for length in range(1, LONGEST + 1)}
    shapes = {(rows, width) for rows in ROWS for width in columns if rows == 1 or rows * width <= MAX_CELLS}
    assert sorted(columns)[:9] == [8, 16, 24, 32, 40, 48, 56, 64, 80]
    assert len(columns) == 28
    assert len(shapes) <= 160


@given(st.lists(st.integers(1, 100), min_size=1, max_size=60), st.integers(100, 200))
def test_rows_are_filled_best_fit_decreasing(texts, capacity):
    rows = pack_into_rows(texts, capacity)
    assert sorted(itertools.chain(*(row.texts for row in rows))) == list(range(len(texts)))
    for row in rows:
        assert row.tokens == sum(texts[index] for index in row.texts) <= capacity
    # No text that came late found room in a row begun before its own: two rows together exceed one.
    for one, other in itertools.combinations(rows, 2):
        assert one.tokens + min(texts[index] for index in other.texts) > capacity or (
            other.tokens + min(texts[index] for index in one.texts) > capacity
        )


@settings(deadline=None)
@given(st.lists(st.integers(1, LONGEST), min_size=1, max_size=7))
def test_no_other_runs_of_neighbours_are_less_work(texts):
    """Against every way to cut the sorted rows into runs."""
    rows = [Row(length, [index]) for index, length in enumerate(texts)]
    ordered = sorted(texts)

    def least(group):
        columns = columns_for(group[-1], LONGEST)
        return min(
            (
                work(rows, columns)
                for rows in ROWS
                if rows >= len(group) and (rows == 1 or rows * columns <= MAX_CELLS)
            ),
            default=float("inf"),
        )

    best = float("inf")
    for cuts in itertools.product([False, True], repeat=len(ordered) - 1):
        edges = [0, *(index + 1 for index, cut in enumerate(cuts) if cut), len(ordered)]
        best = min(best, sum(least(ordered[a:b]) for a, b in itertools.pairwise(edges)))
    runs = cut_into_runs(rows, LONGEST)
    assert sum(work(run.rows, run.columns) for run in runs) == pytest.approx(best)


def test_mixed_lengths_fill_their_rows():
    assert fill([8] * 16 + [256]) == 1
    assert fill([*range(4, 128, 4)]) > 0.9
    assert fill([*range(8, 64, 2)]) > 0.9
    assert fill([*range(16, 256, 16)]) > 0.9


def test_equal_lengths_lose_little():
    assert [(run.rows, run.columns) for run in plan([32] * 32, LONGEST)] == [(32, 32)]
    assert [(run.rows, run.columns) for run in plan([16] * 4, LONGEST)] == [(4, 16)]
    assert fill([20] * 32) > 0.9
    assert fill([70] * 8) > 0.8


def test_one_text_has_a_row_of_its_own():
    for length in (1, 20, 63, 64, 65, 200, LONGEST):
        runs = plan([length], LONGEST)
        assert [(run.texts, run.rows, run.columns) for run in runs] == [
            ([[0]], 1, columns_for(length, LONGEST))
        ]


def test_an_empty_batch():
    assert plan([], LONGEST) == []


@given(lengths, st.booleans())
def test_padded_runs_hold_every_text_once(texts, equal):
    runs = plan_padded(texts, CELLS, equal=equal)
    assert sorted(itertools.chain(*runs)) == list(range(len(texts)))
    for run in runs:
        own = [texts[index] for index in run]
        assert own == sorted(own, reverse=True)
        assert len(run) == 1 or len(run) * own[0] <= CELLS
        assert not equal or len(set(own)) == 1


def test_a_padded_run_ends_before_texts_that_are_much_shorter():
    assert plan_padded([100] * 10 + [10] * 10, CELLS) == [[*range(10)], [*range(10, 20)]]
    assert plan_padded([100] * 10 + [90] * 10, CELLS) == [[*range(20)]]
    assert plan_padded([10, 1, 5], CELLS) == [[0, 2, 1]], "not worth a run of their own"
    assert plan_padded([3000], CELLS) == [[0]]
    assert plan_padded([], CELLS) == []
