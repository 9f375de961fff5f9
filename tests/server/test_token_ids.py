"""Which policy for token ids is a refusal, and how often the vocabulary is looked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import pytest

from llmrs.errors import ConfigError, InvalidRequest
from llmrs.server import token_ids
from llmrs.server.token_ids import translator


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is imported, and fails, as where tiktoken finds no vocabulary."""
    names: list[str] = []

    def fail(name: str) -> None:
        names.append(name)
        raise ConnectionError("no network")

    token_ids._cl100k.cache_clear()
    monkeypatch.setattr(importlib, "import_module", fail)
    yield names
    token_ids._cl100k.cache_clear()


def test_a_vocabulary_that_cannot_be_loaded_is_looked_for_once(imported: list[str]) -> None:
    for _ in range(3):  # models of one process
        translate = translator("auto", forwards_ids=False)
        assert translate(["text"]) == ["text"]
        with pytest.raises(InvalidRequest):
            translate([[1, 2]])
    assert imported == ["tiktoken"]
    with pytest.raises(ConfigError, match="no network"):
        translator("cl100k", forwards_ids=False)


@pytest.mark.parametrize(("policy", "forwards_ids"), [("native", False), ("auto", True)])
def test_ids_that_are_the_models_own_need_no_vocabulary(
    imported: list[str], policy: str, forwards_ids: bool
) -> None:
    assert translator(policy, forwards_ids=forwards_ids)([[1, 2]]) == [[1, 2]]
    assert imported == []
