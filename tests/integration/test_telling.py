"""What a client asks of a backend behind a real llmrs: done, or refused by the field's name."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import requests

from tests.backends.services import shapes
from tests.backends.services.vectors import WIDTH, cut, vector
from tests.backends.services.wire import serve
from tests.processes import Server, llmrs

LONG = "first " + "word " * 400 + "last"


def unit(numbers: list[float]) -> np.ndarray:
    found = np.array(numbers, np.float64)
    return found / np.linalg.norm(found)


def post(server: Server, path: str = "/v1/embeddings", **body: Any) -> requests.Response:
    return requests.post(f"{server.url}{path}", json=body, timeout=30)


def refused(answer: requests.Response, param: str) -> str:
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param), answer.text
    message: str = error["message"]
    return message


@pytest.fixture(scope="module")
def tei() -> Iterator[Server]:
    with serve(shapes.tei(max_client_batch_size=32)) as service, llmrs(BACKEND_URL=service.url) as server:
        yield server


@pytest.fixture(scope="module")
def ollama() -> Iterator[Server]:
    with serve(shapes.ollama(openai_too=True)) as service, llmrs(BACKEND_URL=service.url) as server:
        yield server


@pytest.fixture(scope="module")
def infinity() -> Iterator[Server]:
    shape = shapes.openai(prefix="", owner="infinity", cuts=True, unit=True)
    with serve(shape) as service, llmrs(BACKEND_URL=service.url) as server:
        yield server


@pytest.mark.parametrize("side", ["start", "end"])
def test_tei_cuts_where_it_is_told_to_and_that_is_told(tei: Server, side: str) -> None:
    answer = post(tei, input=["short", LONG, LONG + "."], truncate=side)
    assert answer.headers["x-truncated-inputs"] == "2"
    found = [row["embedding"] for row in answer.json()["data"]]
    expected = [vector(cut(text, shapes.LONGEST, side=side)) for text in ("short", LONG, LONG + ".")]
    np.testing.assert_allclose(found, [unit(row) for row in expected], atol=1e-6)
    assert "llmrs_truncated_inputs_total" in requests.get(f"{tei.url}/metrics", timeout=10).text


def test_tei_is_asked_for_short_vectors(tei: Server) -> None:
    answer = post(tei, input=["a"], dimensions=4).json()["data"][0]["embedding"]
    np.testing.assert_allclose(answer, unit(vector("a")[:4]), atol=1e-6)
    assert "at most 8" in refused(post(tei, input=["a"], dimensions=WIDTH + 1), "dimensions")


def test_an_empty_text_is_called_empty(tei: Server) -> None:
    assert "input[1] is empty" in refused(post(tei, input=["a", ""]), "input")
    assert "inputs[1] is empty" in refused(post(tei, "/embed", inputs=["a", ""]), "inputs")


def test_raw_vectors_where_the_backend_can_be_told(tei: Server) -> None:
    answer = post(tei, "/embed", inputs=["a"], normalize=False).json()
    np.testing.assert_allclose(answer, [vector("a")], rtol=1e-6)


def test_token_ids_that_are_not_known_to_be_the_models_never_reach_tei(tei: Server) -> None:
    """With the cl100k vocabulary they are decoded, else refused: as they are, they mean another text."""
    answer = post(tei, input=[[15339, 1917]])
    if answer.status_code == 200:
        np.testing.assert_allclose(
            answer.json()["data"][0]["embedding"], unit(vector("hello world")), atol=1e-6
        )
    else:
        assert "token ids" in refused(answer, "input")


def test_token_ids_that_are_the_models_go_to_tei() -> None:
    with (
        serve(shapes.tei()) as service,
        llmrs(BACKEND_URL=service.url, BACKEND_PROTOCOL="tei", TOKEN_IDS="native") as server,
    ):
        answer = post(server, input=[[7592, 2088]]).json()["data"][0]["embedding"]
        np.testing.assert_allclose(answer, unit(vector([7592, 2088])), atol=1e-6)


def test_ollama_through_its_own_protocol(ollama: Server) -> None:
    assert requests.get(f"{ollama.url}/health", timeout=10).json()["backend"] == "ollama"
    answer = post(ollama, input=["short", LONG])
    assert answer.headers["x-truncated-inputs"] == "1"
    error = post(ollama, input=["short", LONG], truncate="none").json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert "input[1]" in error["message"]
    assert "ollama" in refused(post(ollama, input=[LONG], truncate="start"), "truncate")


@pytest.mark.parametrize("truncate", ["none", "start"])
def test_what_infinity_cannot_be_told_is_refused(infinity: Server, truncate: str) -> None:
    message = refused(post(infinity, input=[LONG], truncate=truncate), "truncate")
    assert f"truncate must not be {truncate}" in message
    assert "openai" in message


@pytest.mark.parametrize(
    ("field", "body"), [("normalize_embeddings", {"texts": ["a"]}), ("normalize", {"inputs": ["a"]})]
)
@pytest.mark.parametrize("name", ["ollama", "infinity"])
def test_who_always_normalizes_is_not_asked_not_to(
    name: str, field: str, body: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue(name)
    message = refused(post(server, "/embed", **body, **{field: False}), field)
    assert f"{field} must not be false" in message
    assert post(server, "/embed", **body, **{field: True}).status_code == 200


def test_a_request_without_wishes_is_answered_by_every_backend(
    tei: Server, ollama: Server, infinity: Server
) -> None:
    for server in (tei, ollama, infinity):
        found = [row["embedding"] for row in post(server, input=["short", LONG]).json()["data"]]
        expected = [unit(vector(cut(text, shapes.LONGEST))) for text in ("short", LONG)]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_wishes_are_not_mixed_up_in_shared_batches(tei: Server) -> None:
    """One text, asked for in every way at once: what shares a batch does not share a vector."""
    wishes: list[dict[str, Any]] = [
        {"truncate": side, "dimensions": width} for side in ("start", "end") for width in (2, 4, None)
    ]

    def ask(i: int) -> None:
        wish = wishes[i % len(wishes)]
        answer = post(tei, input=[LONG, "short"], **wish)
        assert answer.headers["x-truncated-inputs"] == "1"
        width = wish["dimensions"] or WIDTH
        lost = cut(LONG, shapes.LONGEST, side=wish["truncate"])
        expected = [unit(vector(text)[:width]) for text in (lost, "short")]
        found = [row["embedding"] for row in answer.json()["data"]]
        np.testing.assert_allclose(found, expected, atol=1e-6)

    with ThreadPoolExecutor(24) as pool:
        list(pool.map(ask, range(120)))


def test_a_backend_that_takes_few_requests_at_a_time_is_waited_for() -> None:
    """200 requests, each on its own connection, before a TEI that takes two: no 429 of its is handed on."""
    shape = shapes.tei(max_client_batch_size=32, at_a_time=2)
    with serve(shape) as service, llmrs(BACKEND_URL=service.url, QUEUE_CAPACITY="1000") as server:
        with ThreadPoolExecutor(100) as pool:
            answers = list(pool.map(lambda i: post(server, input=f"text {i}"), range(200)))
        assert {answer.status_code for answer in answers} == {200}
        for i, answer in enumerate(answers):
            found = answer.json()["data"][0]["embedding"]
            np.testing.assert_allclose(found, unit(vector(f"text {i}")), atol=1e-6)
