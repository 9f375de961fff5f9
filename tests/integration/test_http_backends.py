"""The gateway: a real llmrs in front of real services, one for each protocol."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from tests.backends.services import shapes
from tests.backends.services.vectors import vector
from tests.backends.services.wire import Behaviour, Connection, Request, serve
from tests.processes import Server, free_port, listens, llmrs, start, wait_until

SERVICES = Path(__file__).parents[1] / "backends" / "services"


def unit(text: str) -> np.ndarray:
    found = np.array(vector(text), np.float64)
    return found / np.linalg.norm(found)


def embed(server: Server, texts: Any, **fields: Any) -> requests.Response:
    return requests.post(f"{server.url}/v1/embeddings", json={"input": texts, **fields}, timeout=30)


def vectors(server: Server, texts: list[str], **fields: Any) -> np.ndarray:
    answer = embed(server, texts, **fields)
    assert answer.status_code == 200, answer.text
    return np.array([row["embedding"] for row in answer.json()["data"]])


@pytest.fixture(scope="module")
def fastapi() -> Iterator[str]:
    """The address of a FastAPI service that speaks the legacy form."""

    def ready(service: Server) -> bool:
        service.url = f"http://127.0.0.1:{service.log.split()[0]}" if service.log.endswith("\n") else ""
        return bool(service.url) and listens(service.port)

    with start([sys.executable, str(SERVICES / "legacy.py")], ready) as service:
        yield service.url


@pytest.fixture(scope="module")
def through(fastapi: str) -> Iterator[Server]:
    with llmrs(BACKEND_URL=fastapi, MODEL_NAME="legacy-model", QUEUE_CAPACITY="1000") as gateway:
        yield gateway


def test_a_fastapi_service_is_recognised_and_batched(through: Server, fastapi: str) -> None:
    texts = [f"text {i}" for i in range(100)]
    np.testing.assert_allclose(vectors(through, texts), [unit(text) for text in texts], atol=1e-6)
    health = requests.get(f"{through.url}/health", timeout=10).json()
    assert health["status"] == "ok"
    assert health["backend_url"] == fastapi
    assert health["model_name"] == "legacy-model"
    assert health["backend"] == "embed"
    assert "speaks embed" in through.log


def test_vectors_as_the_backend_gives_them_where_the_caller_wants_that(through: Server) -> None:
    body = {"texts": ["a", "b"], "normalize_embeddings": False}
    answer = requests.post(f"{through.url}/embed", json=body, timeout=30).json()
    np.testing.assert_allclose(answer["vectors"], [vector("a"), vector("b")], rtol=1e-6)


def test_many_clients_get_their_own_vectors(through: Server) -> None:
    def ask(i: int) -> None:
        texts = [f"client {i} text {k}" for k in range(i % 4 + 1)]
        np.testing.assert_allclose(vectors(through, texts), [unit(text) for text in texts], atol=1e-6)

    with ThreadPoolExecutor(64) as pool:
        list(pool.map(ask, range(300)))


def test_a_poison_text_is_a_400_for_its_sender_only(through: Server) -> None:
    def ask(text: str) -> int:
        return embed(through, ["fine", text]).status_code

    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(ask, ["poison", *[f"good {i}" for i in range(15)]]))
    assert statuses == [400] + [200] * 15
    error = embed(through, ["fine", "fine", "poison"]).json()["error"]
    assert error["param"] == "input"
    assert "[2]" in error["message"]
    assert "cannot embed" not in error["message"], "nothing of the backend's answer is passed on"


@pytest.mark.parametrize("protocol", ["auto", "openai", "tei"])
def test_a_second_llmrs_as_backend(server: Server, protocol: str) -> None:
    texts = ["hello world", "你好", "", "x " * 100, *(f"number {i}" for i in range(60))]
    direct = vectors(server, texts)
    with llmrs(BACKEND_URL=server.url, BACKEND_PROTOCOL=protocol, ALLOW_ANY_DIMENSIONS="true") as gateway:
        found = vectors(gateway, texts)
        assert (found * direct).sum(1).min() >= 0.9998
        model = requests.get(f"{gateway.url}/v1/models", timeout=10).json()["data"][0]
        assert model["dimensions"] == 384
        assert model["backend"] == ("tei" if protocol == "tei" else "openai")
        short = vectors(gateway, ["hello world"], dimensions=10)
        expected = direct[0, :10] / np.linalg.norm(direct[0, :10])
        assert (short[0] * expected).sum() >= 0.9998
        if protocol != "tei":  # TEI's form tells no counts in the body
            assert model["id"] == "all-MiniLM-L6-v2"
            assert model["max_input_tokens"] == 256
            usage = embed(gateway, ["hello world"]).json()["usage"]
            assert usage["prompt_tokens"] == 4
        long = embed(gateway, ["ok", "word " * 1000])
        assert (long.status_code, long.headers["x-truncated-inputs"]) == (200, "1")
        refused = embed(gateway, ["ok", "word " * 1000], truncate="none")
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")
        assert "input[1]" in refused.json()["error"]["message"]


def test_token_ids_are_forwarded_to_an_openai_backend() -> None:
    with (
        llmrs(TOKEN_IDS="native") as engine,
        llmrs(BACKEND_URL=engine.url, BACKEND_PROTOCOL="openai") as gateway,
    ):
        text = vectors(engine, ["hello world"])
        ids: Any = [[7592, 2088]]
        assert (vectors(gateway, ids) * text).sum() >= 0.9998


def test_over_a_unix_socket_between_two(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    with (
        llmrs(command=[sys.executable, "-m", "llmrs", "serve", "--host", f"unix:{path}"]),
        llmrs(BACKEND_URL=f"unix:{path}") as gateway,
    ):
        assert vectors(gateway, ["x"]).shape == (1, 384)


@pytest.mark.parametrize(
    ("shape", "kind", "name"),
    [
        (shapes.ollama(), "ollama", "minilm:latest"),
        (shapes.tei(), "tei", "org/tei-model"),
        (shapes.openai(), "openai", "org/m"),
        (shapes.openai(refuses_base64=True), "openai", "org/m"),
        (shapes.embed("embeddings"), "embed", "default"),
    ],
)
@pytest.mark.parametrize("found_out", [True, False])
def test_every_protocol_in_the_shape_of_its_own_server(
    shape: Behaviour, kind: str, name: str, found_out: bool
) -> None:
    texts = [f"text {i}" for i in range(40)]
    with serve(shape) as service:
        protocol = "auto" if found_out else kind
        with llmrs(BACKEND_URL=service.url, BACKEND_PROTOCOL=protocol) as gateway:
            np.testing.assert_allclose(vectors(gateway, texts), [unit(text) for text in texts], atol=1e-6)
            model = requests.get(f"{gateway.url}/v1/models", timeout=10).json()["data"][0]
            assert (model["id"], model["backend"]) == (name, kind)
            usage = embed(gateway, texts).json()["usage"]
            assert usage["prompt_tokens"] == usage["total_tokens"] > 0


def test_a_backend_that_comes_late_goes_and_returns() -> None:
    port = free_port()
    command = [sys.executable, "-m", "llmrs", "serve", "--port", str(port)]
    with llmrs(BACKEND_URL=f"http://127.0.0.1:{port}") as gateway:
        for path in ("/health", "/readyz"):
            answer = requests.get(f"{gateway.url}{path}", timeout=10)
            assert answer.status_code == 503
            assert answer.json()["reason"]
            assert answer.json()["error"]["code"] == "not_ready"
        assert requests.get(f"{gateway.url}/livez", timeout=10).status_code == 200
        refused = embed(gateway, "x")
        assert (refused.status_code, refused.json()["error"]["code"]) == (502, "upstream_error")

        def healthy() -> bool:
            return requests.get(f"{gateway.url}/health", timeout=10).status_code == 200

        for _ in range(2):
            with llmrs(command=command):
                wait_until(healthy)
                assert vectors(gateway, ["x"]).shape == (1, 384)
            assert embed(gateway, "x").status_code == 502
            wait_until(lambda: not healthy())


def test_a_backend_that_listens_and_fails_is_reported() -> None:
    broken = [False]
    good = shapes.openai()

    def behave(connection: Connection, request: Request) -> object:
        if broken[0] and request.method == "POST":
            return connection.answer({"error": "out of memory"}, 500)
        return good(connection, request)

    with serve(behave) as service, llmrs(BACKEND_URL=service.url) as gateway:

        def status() -> int:
            return requests.get(f"{gateway.url}/readyz", timeout=10).status_code

        assert vectors(gateway, ["x"]).shape[0] == 1
        broken[0] = True
        for _ in range(3):
            assert embed(gateway, "x").status_code == 502
        wait_until(lambda: status() == 503)
        time.sleep(2.5)
        assert status() == 503, "its health check being answered changes nothing"
        broken[0] = False
        wait_until(lambda: status() == 200)


def test_a_backend_key_is_sent_and_never_shown(tmp_path: Path) -> None:
    with llmrs(API_KEY="sk-upstream-secret") as engine:
        with llmrs(BACKEND_URL=engine.url, BACKEND_API_KEY="sk-upstream-secret") as gateway:
            assert vectors(gateway, ["x"]).shape == (1, 384)
            assert "sk-upstream-secret" not in gateway.log
        with llmrs(BACKEND_URL=engine.url, BACKEND_API_KEY="sk-wrong-secret") as gateway:
            assert embed(gateway, "x").status_code == 502
            health = requests.get(f"{gateway.url}/health", timeout=10)
            assert health.status_code == 503
            assert "sk-wrong" not in health.text + gateway.log
