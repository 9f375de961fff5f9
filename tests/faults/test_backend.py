"""An HTTP backend that goes wrong in every way: the right error for its texts, nothing for others."""

from __future__ import annotations

import contextlib
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.faults.backend import BROKEN, HARMLESS, NON_FINITE, SLOW
from tests.faults.conftest import SLOTS
from tests.faults.service import service
from tests.faults.watch import Bystander, error_of, post, recovers, rows, unit, watched
from tests.processes import Server, free_port, wait_until
from tests.worker.client import Answer

TIMES = 3


def ask_all(server: Server, texts: list[str]) -> list[Answer]:
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda text: post(server, {"input": text}), texts))


def test_a_backend_that_never_ends_its_answer_is_a_504(gateway: Server) -> None:
    with recovers(gateway, kept=SLOTS), Bystander(gateway) as other:
        for answer in ask_all(gateway, [f"{name} {i}" for i in range(2) for name in SLOW]):
            assert answer.status == 504
            assert error_of(answer)["code"] == "timeout"
        other.wait_for_more()


def test_a_slow_text_is_slow_for_its_own_request_only(gateway: Server) -> None:
    with recovers(gateway, kept=SLOTS):
        answer = post(gateway, {"input": ["good 1", "hangs 9", "good 2"]})
        assert (answer.status, error_of(answer)["code"]) == (504, "timeout")


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_answer_is_a_502(gateway: Server, fault: str) -> None:
    with recovers(gateway, kept=SLOTS), Bystander(gateway) as other:
        for answer in ask_all(gateway, [f"{fault} {i}" for i in range(TIMES)]):
            assert answer.status == 502, answer
            assert error_of(answer)["code"] == "upstream_error"
            assert b"secret" not in answer.body
            assert b"<" not in answer.body
        other.wait_for_more()


@pytest.mark.parametrize("fault", NON_FINITE)
@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_a_vector_that_is_none_is_never_handed_on(gateway: Server, fault: str, encoding: str) -> None:
    with Bystander(gateway) as other:
        answer = post(gateway, {"input": ["good", f"{fault} {encoding}"], "encoding_format": encoding})
        assert answer.status in (500, 502), answer
        assert error_of(answer)["code"] in ("non_finite_embedding", "upstream_error")
        other.wait_for_more()


@pytest.mark.parametrize("fault", HARMLESS)
def test_a_connection_that_the_backend_closes_costs_no_request(gateway: Server, fault: str) -> None:
    texts = [f"{fault} {i}" for i in range(40)]
    with recovers(gateway, kept=SLOTS), Bystander(gateway):
        for text, answer in zip(texts, ask_all(gateway, texts), strict=True):
            assert answer.status == 200, answer
            np.testing.assert_allclose(rows(answer.body)[0], unit(text), atol=1e-6)


def test_a_backend_that_is_killed_under_load_and_returns() -> None:
    """No vector is lost or wrong: clients get theirs, or an error that tells them to come again."""
    port = free_port()
    with watched(BACKEND_URL=f"http://127.0.0.1:{port}", BACKEND_PROTOCOL="openai") as gateway:
        assert post(gateway, {"input": "x"}).status == 502, "nobody listens there yet"
        with contextlib.ExitStack() as clients:
            with service(port):
                wait_until(lambda: post(gateway, {"input": "x"}).status == 200)
                clients.enter_context(recovers(gateway, kept=8))
                others = [clients.enter_context(Bystander(gateway, may_fail=True)) for _ in range(4)]
                for other in others:
                    other.wait_for_more()
            for _ in range(2):
                with service(port) as running:
                    for other in others:
                        other.wait_for_more()
                    running.signal(signal.SIGKILL)
                    running.wait()
                    for other in others:
                        seen = len(other.refused)
                        wait_until(lambda other=other, seen=seen: len(other.refused) > seen)
            with service(port):
                for other in others:
                    other.wait_for_more()
                refused = {status for other in others for status in other.refused}
                assert refused <= {502, 503}
                clients.close()
