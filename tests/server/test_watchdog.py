"""Computing that does not come back."""

from __future__ import annotations

import logging

import pytest

from llmrs.collector import Collector
from llmrs.embeddings import Prepared
from llmrs.server.watchdog import BROKEN_GRACE_SECONDS, GRACE_SECONDS, Watchdog
from tests.engines import FakeBackend


class Backend(FakeBackend):
    """Its step under way began when a test says so."""

    began: float | None = None
    is_broken = False

    def computing_since(self) -> float | None:
        return self.began


class Watched:
    def __init__(self, backend: FakeBackend, seconds: float = 60.0) -> None:
        self.backend = backend
        self.ends = 0
        self.collector = Collector(
            lambda batch: None, lambda: None, lambda: backend.limits, 10, clock=lambda: 0.0
        )
        self.dog = Watchdog(backend, self.collector, seconds, self._end)

    def _end(self) -> None:
        self.ends += 1

    def check(self, now: float) -> bool:
        """Whether something hangs at this time."""
        self.dog.check(now)
        return self.dog.reason is not None


def test_a_step_that_does_not_come_back_ends_the_process_after_a_grace() -> None:
    backend = Backend()
    watched = Watched(backend)
    assert not watched.check(1000)
    backend.began = 1000
    assert not watched.check(1059)
    assert watched.check(1061)
    assert watched.check(1060 + GRACE_SECONDS - 1)
    assert not watched.ends
    assert watched.check(1060 + GRACE_SECONDS)
    assert watched.ends == 1


def test_one_that_comes_back_after_all_is_forgiven(caplog: pytest.LogCaptureFixture) -> None:
    backend = Backend()
    watched = Watched(backend)
    backend.began = 1000
    with caplog.at_level(logging.WARNING):
        assert watched.check(1065)
        backend.began = 1066
        assert not watched.check(1067)
    assert [record.levelname for record in caplog.records] == ["CRITICAL", "WARNING"]
    assert not watched.check(1066 + 59)
    assert not watched.ends


@pytest.mark.parametrize("seconds", [60.0, 0.0])
def test_a_broken_model_ends_the_process_after_a_grace(
    seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    backend = Backend()
    watched = Watched(backend, seconds)
    assert not watched.check(1000)
    backend.is_broken = True
    with caplog.at_level(logging.WARNING):
        assert watched.check(1001)
    assert len(caplog.records) == 1
    assert not watched.ends
    assert watched.check(1001 + BROKEN_GRACE_SECONDS)
    assert watched.ends == 1


def test_many_steps_one_after_the_other_are_no_hang() -> None:
    backend = Backend()
    watched = Watched(backend)
    for second in range(0, 1000, 5):
        backend.began = second
        assert not watched.check(second + 4)


def test_a_backend_that_cannot_tell_hangs_when_a_batch_outlives_its_deadline() -> None:
    watched = Watched(FakeBackend())
    group = watched.collector.admit(lambda: None, 30.0)
    watched.collector.submit(group, [Prepared("text", 3)])
    watched.collector.dispatch()
    assert not watched.check(30 + 59)
    assert watched.check(30 + 61)


def test_the_engine_tells_since_when_it_computes() -> None:
    from llmrs.backends.local import LocalBackend

    backend = LocalBackend()
    try:
        assert backend.computing_since() is None
        backend.embed(backend.prepare(["a text"]), timeout=30)
        assert backend.computing_since() is None
    finally:
        backend.close()
    assert backend.computing_since() is None


def test_of_several_models_one_that_hangs_makes_the_service_not_ready() -> None:
    from types import SimpleNamespace

    from llmrs.server.registry import Registry

    well = SimpleNamespace(reason=None, watchdog=SimpleNamespace(reason=None))
    down = SimpleNamespace(reason="down", watchdog=SimpleNamespace(reason=None))
    hangs = SimpleNamespace(reason="hangs", watchdog=SimpleNamespace(reason="hangs"))
    assert Registry([well, down]).reason is None  # type: ignore[list-item]
    assert Registry([down, down]).reason == "down"  # type: ignore[list-item]
    assert Registry([well, hangs]).reason == "hangs"  # type: ignore[list-item]
