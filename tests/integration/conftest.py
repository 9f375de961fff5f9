"""One real server with the real default model, shared by all tests that only ask it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.processes import Server, llmrs


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with llmrs(
        QUEUE_CAPACITY="1000", MODEL_ALIASES="text-embedding-3-small", ALLOW_ANY_DIMENSIONS="true"
    ) as running:
        yield running
