"""A model's threads: only a model that is served may have some, and not every batch goes to one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from threading import get_ident

import gevent
import numpy as np
import pytest
from gevent import Greenlet

from llmrs.config import load
from llmrs.embeddings import Limits, Prepared, Vectors
from llmrs.errors import ConfigError, EngineError
from llmrs.server.metrics import Metrics
from llmrs.server.native import NativeThreads
from llmrs.server.serving import Answer, ServedModel
from llmrs.wire import EmbeddingRequest
from tests.engines import FakeBackend, vector_of


def test_a_model_that_cannot_be_served_leaves_no_threads() -> None:
    """Or every attempt to load it, at each change of the configuration, would leave some."""
    config = load({"default_prompt": "nothing"}, environ={}, path=os.devnull)
    tokenizing = NativeThreads(1)
    try:
        before = len(os.listdir("/proc/self/task"))
        with pytest.raises(ConfigError):
            ServedModel(FakeBackend(), config, Metrics(), tokenizing, lambda: False)
        assert len(os.listdir("/proc/self/task")) == before
    finally:
        tokenizing.close()


class Recording(FakeBackend):
    """Knows which threads it was computed on."""

    def __init__(self) -> None:
        super().__init__(limits=Limits(batch_size=4, batch_tokens=1000, slots=1, inline_tokens=12))
        self.threads: set[int] = set()

    def embed(self, batch: Sequence[Prepared], *, timeout: float) -> Vectors:
        self.threads.add(get_ident())
        return super().embed(batch, timeout=timeout)


@pytest.fixture
def recorded() -> Iterator[tuple[Recording, ServedModel]]:
    """A backend whose short batches are not worth a thread, and the model that serves it."""
    backend, tokenizing = Recording(), NativeThreads(1)
    model = ServedModel(backend, load({}, environ={}, path=os.devnull), Metrics(), tokenizing, lambda: False)
    yield backend, model
    model.close()
    tokenizing.close()


def ask(model: ServedModel, *texts: str) -> Greenlet[..., Answer]:
    request = EmbeddingRequest(form="openai", inputs=list(texts))
    return gevent.spawn(model.embed, request, time.monotonic() + 30)


def test_a_short_batch_is_computed_on_the_hub_and_a_long_one_is_not(
    recorded: tuple[Recording, ServedModel],
) -> None:
    backend, model = recorded
    ask(model, "a text of a few words").get()  # 8 tokens
    assert backend.threads == {get_ident()}
    backend.threads.clear()
    ask(model, "a text of a few words", "and another one").get()  # 13
    assert backend.threads
    assert get_ident() not in backend.threads


def test_requests_share_a_batch_that_is_computed_on_the_hub(recorded: tuple[Recording, ServedModel]) -> None:
    backend, model = recorded
    answers = [ask(model, f"text-{number}") for number in range(10)]
    for number, answer in enumerate(answers):
        np.testing.assert_array_equal(answer.get().matrix, [vector_of(f"text-{number}")])
    assert sorted(map(len, backend.batches)) == [2, 4, 4]
    assert backend.threads == {get_ident()}
    assert not model.collector.running
    assert not model.collector.waiting


def test_failures_on_the_hub_reach_those_they_concern(recorded: tuple[Recording, ServedModel]) -> None:
    backend, model = recorded
    good, bad = ask(model, "good"), ask(model, "poison")
    np.testing.assert_array_equal(good.get().matrix, [vector_of("good")])
    for answer in (bad, ask(model, "broken")):
        with pytest.raises(EngineError):
            answer.get()
    assert backend.threads == {get_ident()}
    assert not model.collector.running
