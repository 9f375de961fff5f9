"""A local engine that fails on a batch: an answer to whose text it was, vectors for all others."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.faults.watch import INSIDE, Bystander, error_of, post, recovers, rows, watched
from tests.processes import Server

PLUGIN = Path(__file__).parent / "plugin"
_spec = importlib.util.spec_from_file_location("llmrs_faulty", PLUGIN / "llmrs_faulty.py")
assert _spec is not None
assert _spec.loader is not None
faulty = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(faulty)

RAISING = ("bug", "exit", "memory")
MISSHAPEN = ("short", "flat", "none")


def known(text: str) -> np.ndarray:
    found = faulty.vector_of(text).astype(np.float64)
    return found / np.linalg.norm(found)


@pytest.fixture(scope="module")
def engine() -> Iterator[Server]:
    with watched(
        BACKEND_TYPE="faulty", PYTHONPATH=f"{INSIDE}:{PLUGIN}", REQUEST_TIMEOUT="30", QUEUE_CAPACITY="1000"
    ) as server:
        yield server


@pytest.mark.parametrize("fault", RAISING)
def test_what_an_engine_raises_is_answered_to_its_text_only(engine: Server, fault: str) -> None:
    """The good ones are in the same batch: a slow one holds the engine while they gather."""
    texts = ["slow start", *(f"good {i}" for i in range(20)), f"{fault} 1", f"{fault} 2"]
    with recovers(engine), Bystander(engine, known) as other:
        with ThreadPoolExecutor(len(texts)) as pool:
            found = list(pool.map(lambda text: post(engine, {"input": text}), texts))
        for text, answer in zip(texts, found, strict=True):
            if text.startswith(fault):
                assert (answer.status, error_of(answer)["code"]) == (500, "internal_error")
                assert b"secret" not in answer.body
            else:
                assert answer.status == 200, (text, answer)
                np.testing.assert_allclose(rows(answer.body)[0], known(text), atol=1e-6)
        other.wait_for_more()


@pytest.mark.parametrize("fault", MISSHAPEN)
def test_a_misshapen_matrix_is_never_shared_out(engine: Server, fault: str) -> None:
    with recovers(engine), Bystander(engine, known, may_fail=True) as other:
        for _ in range(3):
            answer = post(engine, {"input": [f"{fault} 1", "good 1", "good 2"]})
            assert answer.status in (500, 502), answer
            error_of(answer)
        other.wait_for_more()
    with Bystander(engine, known) as other:
        other.wait_for_more()


def test_a_non_finite_row_concerns_its_own_request_only(engine: Server) -> None:
    texts = ["slow start", "good 1", "nan 1", "good 2", "nan 2"]
    with recovers(engine), Bystander(engine, known) as other:
        with ThreadPoolExecutor(len(texts)) as pool:
            found = list(pool.map(lambda text: post(engine, {"input": text}), texts))
        for text, answer in zip(texts, found, strict=True):
            if text.startswith("nan"):
                assert error_of(answer)["code"] == "non_finite_embedding"
                assert answer.headers["x-should-retry"] == "false"
            else:
                np.testing.assert_allclose(rows(answer.body)[0], known(text), atol=1e-6)
        other.wait_for_more()


def test_a_bug_before_the_queue_gives_its_place_back(engine: Server) -> None:
    with recovers(engine), Bystander(engine, known) as other:
        for _ in range(20):
            answer = post(engine, {"input": "unpreparable"})
            assert (answer.status, error_of(answer)["code"]) == (500, "internal_error")
        other.wait_for_more()
    assert post(engine, {"input": "good"}).status == 200
