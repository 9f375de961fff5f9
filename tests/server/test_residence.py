"""Models that are loaded on request, and the memory that they share."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import gevent
import numpy as np
import pytest
from gevent import Greenlet

from llmrs.config import load
from llmrs.embeddings import Prepared, Vectors
from llmrs.errors import DeadlineExceeded, ModelError, NotReady
from llmrs.server.metrics import Metrics
from llmrs.server.native import NativeThreads
from llmrs.server.registry import Registry
from llmrs.server.residence import FAILED_SECONDS, STAY_SECONDS, Residents
from llmrs.server.serving import Answer, ServedModel
from llmrs.wire import EmbeddingRequest
from tests.engines import FakeBackend, vector_of


class OnDemand(FakeBackend):
    """Is loaded when it is told to, and fails if it is asked while it is not.

    Attributes:
        may_load: loading waits for it.
        fault: what loading raises.
        loads: how often it was loaded.
    """

    on_demand = True
    weight_bytes = 10
    is_loaded = False

    def __init__(self) -> None:
        super().__init__()
        self.may_load = threading.Event()
        self.may_load.set()
        self.fault: Exception | None = None
        self.loads = 0

    def load(self) -> None:
        assert self.may_load.wait(60)
        if self.fault is not None:
            raise self.fault
        self.loads += 1
        self.is_loaded = True

    def unload(self) -> None:
        self.is_loaded = False

    def close(self) -> None:
        super().close()
        self.unload()

    def embed(self, batch: Sequence[Prepared], *, timeout: float) -> Vectors:
        assert self.is_loaded
        vectors = super().embed(batch, timeout=timeout)
        assert self.is_loaded, "it was unloaded while it computed"
        return vectors


class AtTheStart(FakeBackend):
    weight_bytes = 10


class House:
    """Models that share a memory of a size, and a clock that stands still until it is set."""

    def __init__(self, memory: int = 0) -> None:
        self.now = 1000.0
        self.residents = Residents(memory, lambda: self.now)
        self._tokenizing = NativeThreads(1)
        self.models: list[ServedModel] = []

    def serve(self, backend: FakeBackend, **flags: str) -> ServedModel:
        config = load(flags, environ={}, path=os.devnull)
        model = ServedModel(backend, config, Metrics(), self._tokenizing, lambda: False, self.residents)
        self.models.append(model)
        return model

    def close(self) -> None:
        for model in self.models:
            model.close()
        self._tokenizing.close()


@pytest.fixture
def house() -> Iterator[House]:
    house = House(memory=10)
    yield house
    house.close()


def ask(model: ServedModel, text: str = "text", seconds: float = 30) -> Greenlet[..., Answer]:
    request = EmbeddingRequest(form="openai", inputs=[text])
    return gevent.spawn(model.embed, request, time.monotonic() + seconds)


def is_right(answer: Greenlet[..., Answer], text: str = "text") -> bool:
    return bool(np.array_equal(answer.get(timeout=30).matrix, [vector_of(text)]))


def wait_until(condition: Any) -> None:
    with gevent.Timeout(30):
        while not condition():
            gevent.sleep(0.005)


def test_the_first_requests_wait_while_it_is_loaded(house: House) -> None:
    backend = OnDemand()
    model = house.serve(backend)
    assert (model.state, model.reason) == ("unloaded", None)
    assert Registry([model]).reason is None, "it is ready all the same"
    backend.may_load.clear()
    answers = [ask(model), ask(model, "other")]
    wait_until(lambda: model.collector.waiting_texts == 2)
    assert model.state == "loading"
    assert not model.collector.running, "or the watchdog would take the loading for a hang"
    assert model.watchdog._began(house.now) == house.now
    backend.may_load.set()
    assert is_right(answers[0])
    assert is_right(answers[1], "other")
    assert (model.state, backend.loads, model.metrics.counts["loads"]) == ("loaded", 1, 1)
    assert is_right(ask(model))
    assert backend.loads == 1


def test_the_time_of_loading_is_not_taken_for_the_models_speed(house: House) -> None:
    backend = OnDemand()
    model = house.serve(backend)
    backend.may_load.clear()
    answer = ask(model)
    gevent.sleep(0.5)
    backend.may_load.set()
    assert is_right(answer)
    assert model.collector._admission.speed._seconds < 0.25
    assert answer.value.queue_seconds > 0.25


def test_loading_goes_on_when_those_who_wait_give_up(house: House) -> None:
    backend = OnDemand()
    model = house.serve(backend)
    backend.may_load.clear()
    with pytest.raises(DeadlineExceeded):
        ask(model, seconds=0.05).get()
    backend.may_load.set()
    wait_until(lambda: model.state == "loaded")
    assert is_right(ask(model))
    assert backend.loads == 1


@pytest.mark.parametrize("fault", [ModelError("/a/path is broken"), OSError("/a/path")])
def test_a_model_that_cannot_be_loaded(house: House, fault: Exception) -> None:
    backend, other = OnDemand(), house.serve(OnDemand())
    model = house.serve(backend)
    backend.fault = fault
    answers = [ask(model), ask(model, "other")]
    for answer in answers:
        with pytest.raises(NotReady, match="cannot be loaded") as refused:
            answer.get(timeout=30)
        assert "path" not in str(refused.value)
        assert refused.value.retry_after == FAILED_SECONDS
    assert (model.state, model.metrics.counts["failed_loads"]) == ("unloaded", 1)
    assert "cannot be loaded" in (model.reason or "")
    house.now += FAILED_SECONDS - 1
    with pytest.raises(NotReady) as again:
        ask(model).get(timeout=30)
    assert again.value.retry_after == 1
    assert model.metrics.counts["failed_loads"] == 1, "it is not tried at every request"
    assert is_right(ask(other))
    house.now += 1
    assert model.reason is None
    backend.fault = None
    assert is_right(ask(model))


def test_the_least_recently_used_model_goes() -> None:
    house = House(memory=20)
    try:
        models = [house.serve(OnDemand()) for _ in range(3)]
        for model in (models[0], models[1], models[0], models[2]):
            house.now += 1
            assert is_right(ask(model))
        assert [model.state for model in models] == ["loaded", "unloaded", "loaded"]
        assert models[1].metrics.counts["unloads"] == 1
        assert is_right(ask(models[1]))
        assert [model.state for model in models] == ["unloaded", "loaded", "loaded"]
    finally:
        house.close()


def test_a_model_in_use_stays_until_it_is_idle(house: House) -> None:
    one, two = house.serve(OnDemand()), house.serve(OnDemand())
    slow = ask(one, "slow")
    wait_until(lambda: one.collector.running)
    answer = ask(two)
    gevent.sleep(0.1)
    assert (one.state, two.state) == ("loaded", "loading")
    assert is_right(slow, "slow")
    assert is_right(answer)
    assert one.state == "unloaded"


def test_no_model_waits_for_ever_for_others_that_are_never_idle(house: House) -> None:
    """Between two batches the other has to go, and its requests wait for it to come back."""
    models = [house.serve(OnDemand()), house.serve(OnDemand())]
    answers = {model: [ask(model, "slow") for _ in range(6)] for model in models}
    wait_until(lambda: models[0].collector.running or models[1].collector.running)
    with gevent.Timeout(60):
        while not all(answer.ready() for each in answers.values() for answer in each):
            gevent.sleep(0.05)
            house.now += STAY_SECONDS / 2
    for each in answers.values():
        assert all(is_right(answer, "slow") for answer in each)


def test_a_model_that_will_never_fit_is_refused_before_it_is_served(house: House) -> None:
    house.serve(OnDemand())
    with pytest.raises(ModelError, match="model_memory = 10 is too little"):
        house.serve(AtTheStart())
    large = OnDemand()
    large.weight_bytes = 11
    with pytest.raises(ModelError, match="the largest"):
        house.serve(large)
    assert len(house.models) == 1
    assert is_right(ask(house.models[0])), "the others are unharmed"


def test_a_model_that_outgrew_the_memory_harms_no_other(house: House) -> None:
    one, two = OnDemand(), OnDemand()
    models = house.serve(one), house.serve(two)
    two.weight_bytes = models[1].residence.size = 11
    with pytest.raises(NotReady):
        ask(models[1]).get(timeout=30)
    assert is_right(ask(models[0]))


def test_a_model_nobody_asks_for_is_unloaded(house: House) -> None:
    model = house.serve(OnDemand(), unload_after="60")
    assert is_right(ask(model))
    house.now += 59
    house.residents.sweep()
    assert model.state == "loaded"
    house.now += 1
    house.residents.sweep()
    assert (model.state, model.backend.is_loaded) == ("unloaded", False)
    assert is_right(ask(model))


def test_a_model_that_is_removed_while_it_is_loaded_keeps_no_memory(house: House) -> None:
    backend = OnDemand()
    model = house.serve(backend)
    backend.may_load.clear()
    answer = ask(model)
    wait_until(lambda: model.state == "loading")
    gevent.sleep(0.05)
    model.close()
    with pytest.raises(NotReady):
        answer.get(timeout=30)
    backend.may_load.set()
    wait_until(lambda: backend.loads == 1 and not backend.is_loaded)
    assert is_right(ask(house.serve(OnDemand()))), "and takes no place"
