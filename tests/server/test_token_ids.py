"""What each policy for token ids makes of them."""

from __future__ import annotations

import pytest

from llmrs.errors import InvalidRequest
from llmrs.server import token_ids
from llmrs.server.token_ids import translator

HELLO = [15339, 1917]
"""How LangChain sends "hello world"."""


@pytest.mark.parametrize("policy", ["auto", "cl100k"])
def test_ids_are_decoded_and_texts_stay_as_they_are(policy: str) -> None:
    translate = translator(policy, forwards_ids=False)
    assert translate([HELLO, [29474]]) == ["hello world", "bye"]
    texts = ["hello", "world"]
    assert translate(texts) is texts  # type: ignore[arg-type]


def test_an_id_that_is_in_no_vocabulary_is_refused_with_its_index() -> None:
    with pytest.raises(InvalidRequest, match=r"input\[1\] holds an id that is not in the cl100k") as caught:
        translator("auto", forwards_ids=False)([HELLO, [5, 2**31 - 1]])
    assert caught.value.param == "input"


def test_the_vocabulary_is_loaded_once_and_only_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[int] = []
    token_ids._cl100k.cache_clear()
    monkeypatch.setattr(token_ids, "Cl100k", lambda: loads.append(1) or object())
    try:
        for policy, forwards_ids in (("native", False), ("auto", True)):
            assert translator(policy, forwards_ids=forwards_ids)([[1, 2]]) == [[1, 2]]
        with pytest.raises(InvalidRequest):
            translator("reject", forwards_ids=False)([[1, 2]])
        assert not loads
        for _ in range(3):  # models of one process
            translator("auto", forwards_ids=False)
        assert loads == [1]
    finally:
        token_ids._cl100k.cache_clear()
