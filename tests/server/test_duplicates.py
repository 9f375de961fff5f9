"""Identical texts of a batch are computed once, and everyone still gets the right row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from llmrs.embeddings import Prepared, Vectors
from llmrs.errors import UpstreamError
from llmrs.server.duplicates import embed_distinct


class Backend:
    """The vector of a text is its payload's hash; every text counts two tokens more than it says."""

    def __init__(self, counts: bool = True) -> None:
        self.asked: list[Any] = []
        self._counts = counts

    def __call__(self, texts: Sequence[Prepared]) -> Vectors:
        self.asked = [_plain(text.payload) for text in texts]
        rows = np.array([[hash(each) % 9973, len(each)] for each in self.asked], np.float32)
        return Vectors(rows, [text.n_tokens + 2 for text in texts] if self._counts else None)


def _plain(payload: Any) -> Any:
    return payload if isinstance(payload, str) else tuple(int(token) for token in payload)


texts = st.text("ab", max_size=2)
arrays = st.lists(st.integers(0, 2), max_size=2).map(lambda ids: np.array(ids, np.int32))
lists = st.lists(st.integers(0, 2), min_size=1, max_size=2)


@given(st.lists(texts | arrays | lists, min_size=1, max_size=30), st.booleans())
def test_it_gives_what_the_backend_gives(payloads: list[Any], counts: bool) -> None:
    batch = [Prepared(payload, len(payload)) for payload in payloads]
    expected = Backend(counts)(batch)
    backend = Backend(counts)
    found = embed_distinct(backend, batch)
    np.testing.assert_array_equal(found.matrix, expected.matrix)
    assert found.n_tokens == expected.n_tokens
    assert len(backend.asked) <= len(payloads)


@given(st.lists(texts, min_size=1, max_size=30))
def test_each_text_is_computed_once(payloads: list[str]) -> None:
    backend = Backend()
    embed_distinct(backend, [Prepared(payload, 1) for payload in payloads])
    assert backend.asked == list(dict.fromkeys(payloads))


@pytest.mark.parametrize("rows", [1, 3])
def test_a_wrong_number_of_rows_is_not_spread_over_the_copies(rows: int) -> None:
    with pytest.raises(UpstreamError):
        embed_distinct(
            lambda texts: Vectors(np.zeros((rows, 2), np.float32)), [Prepared(text, 1) for text in "aba"]
        )
