"""Texts longer than the model takes: whose word counts, in which spelling, and who is told."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from llmrs.config import load
from llmrs.embeddings import Limits, ModelInfo
from llmrs.errors import ConfigError
from llmrs.server.longtexts import CutsLog
from llmrs.truncation import choose_truncation
from tests.engines import DIMENSIONS, MAX_TOKENS, FakeBackend, vector_of
from tests.server.conftest import Client
from tests.server.test_metrics import value

Make = Callable[..., Client]

WORDS = [str(i) for i in range(40)]
LONG = " ".join(WORDS)
KEPT = MAX_TOKENS - 2
FORMS = {"openai": ("/v1/embeddings", "input"), "legacy": ("/embed", "texts"), "tei": ("/embed", "inputs")}


def unit(words: list[str]) -> np.ndarray:
    vector = vector_of(" ".join(words))
    unit: np.ndarray = vector / np.linalg.norm(vector)
    return unit


def ask(client: Client, form: str, text: str = LONG, **fields: Any) -> tuple[int, Any]:
    """The status, and the one vector or the error."""
    path, field = FORMS[form]
    result = client.post(path, {field: [text], **fields})
    if result.status_code != 200:
        return result.status_code, result.json["error"]
    assert result.headers.get("x-truncated-inputs") == ("1" if text is LONG else None)
    rows = {"openai": lambda body: [body["data"][0]["embedding"]], "legacy": lambda body: body["vectors"]}
    return 200, np.array(rows.get(form, lambda body: body)(result.json)[0], np.float32)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("options", "side", "kept"),
    [
        ({}, "end", WORDS[:KEPT]),
        ({}, "start", WORDS[-KEPT:]),
        ({"truncate": "end"}, "start", WORDS[:KEPT]),
        ({"truncate": "start"}, "end", WORDS[-KEPT:]),
        ({"truncate": "none"}, "end", None),
    ],
)
def test_what_becomes_of_a_long_text_of_a_request_that_says_nothing(
    make_client: Make, form: str, options: dict[str, str], side: Any, kept: list[str] | None
) -> None:
    info = ModelInfo(name="m", dimensions=DIMENSIONS, max_input_tokens=MAX_TOKENS, truncation_side=side)
    client = make_client(FakeBackend(info=info), **options)
    for nothing in ({}, {"truncate": None}):
        status, found = ask(client, form, **nothing)
        if kept is None:
            assert (status, found["code"]) == (400, "context_length_exceeded")
        else:
            np.testing.assert_allclose(found, unit(kept), rtol=1e-5)
    assert ask(client, form, "short")[0] == 200


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("word", "kept"),
    [
        (True, WORDS[:KEPT]), ("end", WORDS[:KEPT]), ("END", WORDS[:KEPT]), ("Start", WORDS[-KEPT:]),
        ("START", WORDS[-KEPT:]), (False, None), ("none", None), ("NONE", None),
    ],
)  # fmt: skip
def test_the_request_wins_in_every_spelling(
    make_client: Make, form: str, word: Any, kept: list[str] | None
) -> None:
    for configured in ("none", "end", "chunk_mean"):
        status, found = ask(make_client(truncate=configured), form, truncate=word)
        if kept is None:
            assert (status, found["code"]) == (400, "context_length_exceeded")
        else:
            np.testing.assert_allclose(found, unit(kept), rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wrong", ["left", "", 1, 0, ["end"], {"end": True}])
def test_other_words_are_refused(make_client: Make, form: str, wrong: Any) -> None:
    status, error = ask(make_client(), form, truncate=wrong)
    assert (status, error["param"]) == (400, "truncate")


def test_chunks_can_be_the_default(make_client: Make) -> None:
    client = make_client(truncate="chunk_mean")
    result = client.post("/v1/embeddings", {"input": LONG})
    assert result.headers["x-chunked-inputs"] == "1"
    assert len(client.backend.batches[0]) == 3
    with pytest.raises(ConfigError, match=r"truncate.*contradicts.*local model"):
        load({"truncate": "chunk_mean", "backend_url": "http://127.0.0.1:1"}, environ={}, path=None)


class Telling(FakeBackend):
    """A backend that does not count tokens, and notes what it is told about long texts."""

    counts_tokens = False

    def __init__(self) -> None:
        super().__init__(limits=Limits(batch_size=4, batch_tokens=1000, slots=1))
        self.told: list[str | None] = []

    def prepare(self, inputs: Any, *, truncate: Any = "none", prompt: str = "") -> Any:
        self.told.append(truncate)
        return super().prepare(inputs, truncate="end", prompt=prompt)


@pytest.mark.parametrize(
    ("options", "fields", "told"),
    [
        ({}, {}, None),
        ({"truncate": "none"}, {}, "none"),
        ({"truncate": "start"}, {}, "start"),
        ({"truncate": "start"}, {"truncate": True}, "start"),
        ({}, {"truncate": True}, "end"),
        ({}, {"truncate": False}, "none"),
    ],
)
def test_a_backend_that_counts_tokens_itself_is_told_what_is_asked_and_nothing_else(
    make_client: Make, options: dict[str, str], fields: dict[str, Any], told: str | None
) -> None:
    backend = Telling()
    ask(make_client(backend, **options), "openai", **fields)
    assert backend.told == [told]


@pytest.mark.parametrize(
    ("asked", "side", "configured", "found"),
    [
        (None, "start", None, "start"),
        (None, "start", "end", "start"),
        (None, "start", "none", "none"),
        (None, "start", "chunk_mean", "chunk_mean"),
        ("cut", "start", "end", "start"),
        ("cut", None, "chunk_mean", "end"),
        ("cut", None, "start", "start"),
        ("none", "start", "end", "none"),
    ],
)
def test_a_side_alone_says_where_to_cut_should_it_come_to_that(
    asked: Any, side: Any, configured: Any, found: str
) -> None:
    assert choose_truncation(asked, side, configured, ModelInfo()) == found


def test_cut_texts_are_counted_and_logged(make_client: Make, caplog: pytest.LogCaptureFixture) -> None:
    client = make_client()
    with caplog.at_level(logging.INFO, "llmrs.server"):
        for _ in range(3):
            client.post("/v1/embeddings", {"input": [LONG, "short", LONG]})
        lines = [line.getMessage() for line in caplog.records if "longer than the model" in line.getMessage()]
        assert len(lines) == 1
        assert "fake-model" in lines[0]
        assert "2 texts" in lines[0]
        assert value(client, "llmrs_truncated_inputs_total", model="fake-model") == 6


def test_the_log_says_once_a_minute_how_many(caplog: pytest.LogCaptureFixture) -> None:
    cuts = CutsLog(lambda: "m")

    def lines() -> list[str]:
        found = [line.getMessage().partition(" longer")[0] for line in caplog.records]
        caplog.clear()
        return found

    with caplog.at_level(logging.INFO, "llmrs.server"):
        cuts.count(1)
        assert lines() == ["model m: 1 text was"]
        cuts.count(2)
        cuts.count(3)
        assert lines() == []
        cuts._tell()  # a minute later
        assert lines() == ["model m: 5 texts were"]
        cuts._tell()
        assert lines() == []
        cuts.count(4)
        assert lines() == ["model m: 4 texts were"]
        cuts.count(1)
        cuts.close()
        assert lines() == ["model m: 1 text was"]
