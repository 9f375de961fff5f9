"""The loops over a request's elements."""

from __future__ import annotations

import numpy as np
import pytest

from llmrs import _fast


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("items", "index"),
    [
        ([], -1),
        (["a"], -1),
        (["a", ""], -1),
        ([1], 0),
        (["a", None], 1),
        (["a", "b", b"c", 4], 2),
        (["a", Text("b")], 1),
    ],
)
def test_first_not_text(items, index):
    assert _fast.first_not_text(items) == index


@pytest.mark.parametrize(
    ("items", "index"),
    [
        ([], -1),
        ([0, 1, 2**31 - 1], -1),
        ([2**31], 0),
        ([1, 2**63], 1),
        ([1, 2**200], 1),
        ([-1], 0),
        ([0, -(2**200)], 1),
        ([True], 0),
        ([1, False], 1),
        ([1, 2.0], 1),
        ([1, "2"], 1),
        ([1, None], 1),
        ([1, [2]], 1),
        ([np.int32(1)], 0),
    ],
)
def test_first_not_token_id(items, index):
    assert _fast.first_not_token_id(items) == index
    assert _fast.first_not_token_ids([[7], items] if items else []) == (-1 if index < 0 else 1)


@pytest.mark.parametrize(
    ("items", "index"),
    [([], -1), ([[1]], -1), ([[1], []], 1), ([[1], 2], 1), ([(1,)], 0), ([[1], [[1]]], 1), (["a"], 0)],
)
def test_first_not_token_ids(items, index):
    assert _fast.first_not_token_ids(items) == index


@pytest.mark.parametrize("check", [_fast.first_not_text, _fast.first_not_token_id, _fast.first_not_token_ids])
@pytest.mark.parametrize("items", [None, (1, 2), "ab", 1])
def test_only_lists_are_taken(check, items):
    with pytest.raises(TypeError):
        check(items)
