"""Means of rows of a table, the vectors of static models, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from llmrs import _fast

LENGTHS = [3, 0, 1, 20, 0, 7]


def arrays(width=37, rows=50, vocabulary=50):
    random = np.random.default_rng(width)
    table = random.normal(size=(rows, width)).astype(np.float32)
    ids = random.integers(0, vocabulary, sum(LENGTHS)).astype(np.int32)
    return ids, np.array(LENGTHS, np.int64), table


def expected(ids, lengths, table):
    """Rows added one after the other, in float32, and divided by their number."""
    texts = np.split(table[ids], np.cumsum(lengths)[:-1])
    sums = [text.cumsum(axis=0)[-1] if len(text) else np.zeros(table.shape[1]) for text in texts]
    return np.stack(sums).astype(np.float32) / np.maximum(lengths, 1).astype(np.float32)[:, None]


@pytest.mark.parametrize("width", [1, 3, 8, 16, 37, 256, 1025])
def test_means(kernels, width):
    ids, lengths, table = arrays(width)
    np.testing.assert_array_equal(_fast.mean_rows(ids, lengths, table), expected(ids, lengths, table))


@pytest.mark.parametrize("width", [8, 37, 1024])
def test_mapped_and_weighted(kernels, width):
    ids, lengths, table = arrays(width, rows=10)
    mapping = np.arange(50, dtype=np.int32) % 10
    weights = np.random.default_rng(0).random(50).astype(np.float32)
    whole = table[mapping]
    found = _fast.mean_rows(ids, lengths, table, mapping)
    np.testing.assert_array_equal(found, expected(ids, lengths, whole))
    found = _fast.mean_rows(ids, lengths, table, mapping, weights)
    np.testing.assert_array_equal(found, expected(ids, lengths, whole * weights[:, None]))


def test_so_many_that_the_gil_is_given_away():
    table = np.random.default_rng(0).normal(size=(100, 256)).astype(np.float32)
    ids = np.arange(3000, dtype=np.int32) % 100
    lengths = np.array([1000, 2000], np.int64)
    np.testing.assert_array_equal(_fast.mean_rows(ids, lengths, table), expected(ids, lengths, table))


def test_a_table_that_may_not_be_written():
    ids, lengths, table = arrays()
    for array in (ids, lengths, table):
        array.flags.writeable = False
    np.testing.assert_array_equal(_fast.mean_rows(ids, lengths, table), expected(ids, lengths, table))


def test_nothing():
    _, _, table = arrays()
    none = np.empty(0, np.int32)
    assert _fast.mean_rows(none, np.empty(0, np.int64), table).shape == (0, 37)
    assert not _fast.mean_rows(none, np.zeros(2, np.int64), table).any()


@pytest.mark.parametrize("bad", [-1, 50, np.iinfo(np.int32).max])
def test_an_id_that_is_not_in_the_table(bad):
    ids, lengths, table = arrays()
    ids[-1] = bad
    with pytest.raises(ValueError, match="outside the table"):
        _fast.mean_rows(ids, lengths, table)


@pytest.mark.parametrize("row", [-1, 50])
def test_an_id_whose_row_is_not_in_the_table(row):
    ids, lengths, table = arrays()
    mapping = np.arange(50, dtype=np.int32)
    mapping[ids[0]] = row
    with pytest.raises(ValueError, match="outside the table"):
        _fast.mean_rows(ids, lengths, table, mapping)


@pytest.mark.parametrize("lengths", [[30], [32], [], [40, -9], [-1, 32], [2**62, 2**62, 31]])
def test_lengths_that_are_not_those_of_the_ids(lengths):
    ids, _, table = arrays()
    with pytest.raises(ValueError, match="add up"):
        _fast.mean_rows(ids, np.array(lengths, np.int64), table)


def test_arrays_that_do_not_fit():
    ids, lengths, table = arrays()
    with pytest.raises(ValueError, match="weight for every id"):
        _fast.mean_rows(ids, lengths, table, None, np.ones(49, np.float32))
    for wrong in (table.astype(np.float64), table[:, ::2], table[0], table.astype(np.float16)):
        with pytest.raises(ValueError, match=r"[Bb]uffer|contiguous"):
            _fast.mean_rows(ids, lengths, wrong)
    with pytest.raises(ValueError, match=r"[Bb]uffer"):
        _fast.mean_rows(ids.astype(np.int64), lengths, table)
