"""One real server with the real default model, shared by all tests that only ask it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends.services import shapes
from tests.backends.services.wire import serve
from tests.integration.house import House
from tests.processes import Server, llmrs


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with llmrs(
        QUEUE_CAPACITY="1000", MODEL_ALIASES="text-embedding-3-small", ALLOW_ANY_DIMENSIONS="true"
    ) as running:
        yield running


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with serve(shapes.openai()) as first, serve(shapes.tei()) as second:
        yield House(tmp_path, first.url, second.url)
