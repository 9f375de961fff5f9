"""Against the service llmrs was made for: FastAPI and uvicorn, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmrs.backends.pool import open_http
from llmrs.config import Config
from llmrs.errors import UpstreamError, UpstreamRejected

from .services.vectors import vector
from .test_bad_texts import Desk, check_answers, texts_with

PROGRAM = Path(__file__).parent / "services" / "legacy.py"


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, str(PROGRAM)], stdout=subprocess.PIPE, text=True) as running:
        yield running
        running.kill()


@pytest.fixture
def backend(process):
    return open_http(Config(backend_url=(f"http://127.0.0.1:{int(process.stdout.readline())}",)))


def test_its_whole_life(process, backend):
    backend.check(timeout=10)
    assert (backend.kind, backend.info.dimensions) == ("embed", 8)
    texts = [f"text {i}" for i in range(50)] + ["", "日本語 😀", 'quote " and \\ and \n']
    vectors = backend.embed(backend.prepare(texts), timeout=10)
    assert vectors.matrix.tolist() == [vector(text) for text in texts]
    assert vectors.n_tokens is None
    with pytest.raises(UpstreamRejected):
        backend.embed(backend.prepare(["a", "poison"]), timeout=10)
    backend.check(timeout=10)
    process.kill()
    process.wait()
    with pytest.raises(UpstreamError, match="cannot be reached"):
        backend.check(timeout=10)
    with pytest.raises(UpstreamError, match="cannot be reached"):
        backend.embed(backend.prepare(["a"]), timeout=10)


def test_texts_on_which_its_model_raises(backend):
    backend.check(timeout=10)
    desk = Desk(backend)
    groups = {text: desk.ask(text) for text in texts_with(0.1)}
    desk.work()
    check_answers(groups)
    backend.check(timeout=10)
