"""Servers that the fault tests share: a gateway before a faulty backend, and the real model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.backends.services.wire import Service, serve
from tests.faults.backend import behave
from tests.faults.watch import watched
from tests.processes import Server

SLOTS = 32


@pytest.fixture(scope="module")
def backend() -> Iterator[Service]:
    with serve(behave) as service:
        yield service


@pytest.fixture(scope="module")
def gateway(backend: Service) -> Iterator[Server]:
    """Each text is a batch of its own, and many of them may be under way."""
    with watched(
        BACKEND_URL=backend.url,
        BATCH_SIZE="1",
        WORKERS=str(SLOTS),
        REQUEST_TIMEOUT="4",
        QUEUE_CAPACITY="1000",
    ) as server:
        yield server


@pytest.fixture(scope="module")
def model() -> Iterator[Server]:
    """The default model."""
    with watched(QUEUE_CAPACITY="1000") as server:
        yield server
