"""What is known about a backend, from its batches and from probes."""

from __future__ import annotations

from collections.abc import Sequence

from llmrs.embeddings import Prepared, Vectors
from llmrs.errors import EngineError, NotReady, QueueFull, UpstreamError, UpstreamRejected
from llmrs.server.health import FAILURES, Health
from tests.engines import FakeBackend


class Backend(FakeBackend):
    """A backend behind a network that answers health checks and vectors as told."""

    waits_on = "network"

    def __init__(self) -> None:
        super().__init__()
        self.listens = True
        self.embeds = True

    def check(self, *, timeout: float) -> None:
        if not self.listens:
            raise UpstreamError("nobody listens")

    def embed(self, batch: Sequence[Prepared], *, timeout: float) -> Vectors:
        if not self.embeds:
            raise UpstreamError("the backend answered HTTP 500")
        return super().embed(batch, timeout=timeout)


def test_a_probe_tells_that_nobody_listens_and_that_somebody_does() -> None:
    backend = Backend()
    health = Health(backend)
    backend.listens = False
    health.probe()
    assert health.reason == "nobody listens"
    backend.listens = True
    health.probe()
    assert health.reason is None
    assert not backend.batches, "a healthy backend is not made to embed"


def test_a_backend_that_listens_and_fails_is_down_until_it_embeds() -> None:
    backend = Backend()
    health = Health(backend)
    backend.embeds = False
    for _ in range(FAILURES - 1):
        health.note(UpstreamError("the backend answered HTTP 500"))
    assert health.reason is None
    health.note(UpstreamError("the backend answered HTTP 500"))
    assert health.reason == "the backend answered HTTP 500"
    health.probe()
    assert health.reason == "the backend answered HTTP 500", "that it listens means nothing now"
    backend.embeds = True
    health.probe()
    assert health.reason is None


def test_one_good_batch_is_a_sign_of_life() -> None:
    health = Health(Backend())
    for _ in range(FAILURES):
        health.note(UpstreamError("x"))
    health.note(None)
    assert health.reason is None
    health.note(UpstreamError("x"))
    assert health.reason is None, "failures are counted in a row"


def test_refused_inputs_and_a_busy_backend_are_no_failures() -> None:
    health = Health(Backend())
    for _ in range(2 * FAILURES):
        health.note(UpstreamRejected("an input"))
        health.note(QueueFull("busy", retry_after=1))
        health.note(EngineError("a text that its engine fails on"))
    assert health.reason is None


def test_a_backend_that_is_not_ready_is_not_well() -> None:
    health = Health(Backend())
    for _ in range(FAILURES):
        health.note(NotReady("nobody computes", retry_after=1))
    assert health.reason == "nobody computes"
