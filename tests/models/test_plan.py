"""The plan of runs: every text once, in a shape that holds it, with no more work than needed."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from llmrs.models.plan import MAX_CELLS, ROWS, RUN_COST, columns_for, plan

LONGEST = 512
lengths = st.lists(st.integers(1, LONGEST), min_size=1, max_size=80)


def cost(runs):
    return sum(RUN_COST + run.rows * run.columns for run in runs)


@given(lengths, st.integers(LONGEST, 600))
def test_every_text_is_in_one_run_that_holds_it(texts, longest):
    runs = plan(texts, longest)
    assert sorted(itertools.chain(*(run.texts for run in runs))) == list(range(len(texts)))
    for run in runs:
        assert 1 <= len(run.texts) <= run.rows
        assert max(texts[index] for index in run.texts) <= run.columns <= longest
        assert run.rows in ROWS
        assert run.rows == 1 or run.rows * run.columns <= MAX_CELLS


@given(st.integers(1, 2000), st.integers(1, 2000))
def test_columns(length, longest):
    columns = columns_for(min(length, longest), longest)
    assert min(length, longest) <= columns <= longest
    assert columns <= max(8, 1.25 * length)


def test_there_are_few_shapes():
    columns = {columns_for(length, LONGEST) for length in range(1, LONGEST + 1)}
    shapes = {(rows, width) for rows in ROWS for width in columns if rows == 1 or rows * width <= MAX_CELLS}
    assert sorted(columns)[:9] == [8, 16, 24, 32, 40, 48, 56, 64, 80]
    assert len(columns) == 20
    assert len(shapes) <= 100


@settings(deadline=None)
@given(st.lists(st.integers(1, LONGEST), min_size=1, max_size=7))
def test_no_other_plan_of_neighbours_is_cheaper(texts):
    """Against every way to cut the sorted texts into runs."""
    ordered = sorted(texts)

    def cheapest(group):
        columns = columns_for(group[-1], LONGEST)
        return min(
            (
                RUN_COST + rows * columns
                for rows in ROWS
                if rows >= len(group) and (rows == 1 or rows * columns <= MAX_CELLS)
            ),
            default=float("inf"),
        )

    best = float("inf")
    for cuts in itertools.product([False, True], repeat=len(ordered) - 1):
        edges = [0, *(index + 1 for index, cut in enumerate(cuts) if cut), len(ordered)]
        best = min(best, sum(cheapest(ordered[a:b]) for a, b in itertools.pairwise(edges)))
    assert cost(plan(texts, LONGEST)) == best


def test_mixed_lengths_are_not_padded_to_the_longest():
    runs = plan([8] * 16 + [256], LONGEST)
    assert [(run.rows, run.columns) for run in runs] == [(1, 256), (16, 8)]


def test_equal_lengths_share_a_run():
    assert [(run.rows, run.columns) for run in plan([20] * 32, LONGEST)] == [(32, 24)]
    assert [(run.rows, run.columns) for run in plan([5, 6, 7], LONGEST)] == [(4, 8)]


def test_an_empty_batch():
    assert plan([], LONGEST) == []
