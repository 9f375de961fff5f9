"""What each policy for token ids makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from llmrs.errors import InvalidRequest
from llmrs.server import token_ids
from llmrs.server.token_ids import translator

HELLO = [15339, 1917]
"""How LangChain sends "hello world"."""


@pytest.mark.parametrize("policy", ["auto", "cl100k"])
@pytest.mark.parametrize("forwards_ids", [None, lambda: False])
def test_ids_are_decoded_and_texts_stay_as_they_are(
    policy: str, forwards_ids: Callable[[], bool] | None
) -> None:
    translate = translator(policy, forwards_ids=forwards_ids)
    assert translate([HELLO, [29474]]) == ["hello world", "bye"]
    assert translate(["a", HELLO, "b", [29474]]) == ["a", "hello world", "b", "bye"]
    texts: Any = ["hello", "world"]
    assert translate(texts) is texts


def test_an_id_that_is_in_no_vocabulary_is_refused_with_its_index() -> None:
    with pytest.raises(InvalidRequest, match=r"input\[2\] holds an id that is not in the cl100k") as caught:
        translator("auto")(["a", HELLO, [5, 2**31 - 1]])
    assert caught.value.param == "input"


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """An entry for each time that the vocabulary is loaded."""
    loads: list[int] = []
    real = token_ids.Cl100k
    token_ids._cl100k.cache_clear()
    monkeypatch.setattr(token_ids, "Cl100k", lambda: (loads.append(1), real())[1])
    yield loads
    token_ids._cl100k.cache_clear()


def test_ids_that_nobody_here_reads_need_no_vocabulary(loads: list[int]) -> None:
    for policy in ("native", "auto"):
        assert translator(policy, forwards_ids=lambda: True)([[1, 2]]) == [[1, 2]]
    with pytest.raises(InvalidRequest, match="check_embedding_ctx_length=False"):
        translator("reject")([[1, 2]])
    assert not loads


def test_the_vocabulary_is_loaded_once_and_before_the_first_request(loads: list[int]) -> None:
    for _ in range(3):  # models of one process
        translate = translator("auto")
    assert len(loads) == 1
    translate([HELLO])
    assert len(loads) == 1


def test_ids_wait_for_what_the_backend_turns_out_to_be(loads: list[int]) -> None:
    known: list[bool] = []
    translate = translator("auto", forwards_ids=lambda: bool(known))
    assert translate(["text"]) == ["text"]
    assert not loads, "the vocabulary is not needed yet"
    assert translate([HELLO]) == ["hello world"]
    known.append(True)
    assert translate([[1, 2]]) == [[1, 2]]
