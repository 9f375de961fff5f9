"""A backend that fails on some texts, behind a gateway whose clients share batches."""

from __future__ import annotations

import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.backends.services import shapes
from tests.backends.services.wire import Behaviour, Connection, Request, serve
from tests.faults.watch import error_of, post, rows, unit, watched

TOO_LARGE = {"error": {"code": 500, "message": "input is too large to process", "type": "server_error"}}
RAISED = b"Internal Server Error"
CLIENTS = 40


def short_only(good: Behaviour, answer: object) -> Behaviour:
    """A service that answers 500 to a batch with a text of more than 400 characters."""

    def behave(connection: Connection, request: Request) -> object:
        if request.method == "POST":
            texts = next(value for value in request.json.values() if isinstance(value, list))
            if max(map(len, texts)) > 400:
                return connection.answer(answer, 500)
        return good(connection, request)

    return behave


@pytest.mark.parametrize("addresses", [1, 2])
@pytest.mark.parametrize(
    ("good", "answer", "status"),
    [(shapes.openai(), TOO_LARGE, 400), (shapes.embed(), RAISED, 502)],
    ids=["openai", "embed"],
)
def test_one_text_in_eight_fails_its_own_request_only(
    good: Behaviour, answer: object, status: int, addresses: int
) -> None:
    with serve(short_only(good, answer)) as one, serve(short_only(good, answer)) as two:
        urls = ",".join(service.url for service in (one, two)[:addresses])
        with watched(BACKEND_URL=urls) as gateway, ThreadPoolExecutor(CLIENTS) as pool:
            texts = [f"{i} " + ("long " * 90 if i % 8 == 3 else "short") for i in range(400)]
            answers = list(pool.map(lambda text: post(gateway, {"input": text}), texts))
            for text, got in zip(texts, answers, strict=True):
                if "long" in text:
                    assert got.status == status
                    error_of(got)
                else:
                    assert got.status == 200, got
                    np.testing.assert_allclose(rows(got.body)[0], unit(text), atol=1e-6)
            with urllib.request.urlopen(f"{gateway.url}/health", timeout=10) as health:
                assert json.load(health)["status"] == "ok"
            assert "down" not in gateway.log, "the backend is well"
            many = post(gateway, {"input": ["a", "b", "long " * 90, "c"]})
            assert many.status == status
            assert error_of(many)["param"] == "input"
            assert "input[2]" in error_of(many)["message"]
