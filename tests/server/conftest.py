"""The application in-process, on a fake backend: every layer but the socket."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from falcon import testing

from llmrs.config import load
from llmrs.server.app import Application, create_app
from llmrs.server.auth import ApiKeys
from tests.engines import FakeBackend

JSON = {"Content-Type": "application/json"}


class Client:
    """Requests against an application, and the checks that hold for every answer."""

    def __init__(self, app: Application, backend: FakeBackend) -> None:
        self.app = app
        self.backend = backend
        self._client = testing.TestClient(app)

    def post(
        self, path: str, body: Any, headers: dict[str, str] | None = None, **kwargs: Any
    ) -> testing.Result:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("POST", path, body=raw, headers={**JSON, **(headers or {})}, **kwargs)

    def request(self, method: str, path: str, **kwargs: Any) -> testing.Result:
        result = self._client.simulate_request(method, path, **kwargs)
        assert result.headers["x-request-id"]
        assert "total;dur=" in result.headers["server-timing"]
        if method != "HEAD":
            assert result.headers["content-type"] == "application/json"
        if result.status_code >= 400 and method != "HEAD":
            assert set(result.json["error"]) == {"message", "type", "param", "code"}
            assert len(result.json["error"]["message"]) <= 1024
        return result

    def get(self, path: str, **kwargs: Any) -> testing.Result:
        return self.request("GET", path, **kwargs)

    def error(self, status: int, path: str, body: Any, **kwargs: Any) -> dict[str, Any]:
        """The error object of a request that must fail with this status."""
        result = self.post(path, body, **kwargs)
        assert result.status_code == status, result.text
        error: dict[str, Any] = result.json["error"]
        return error

    def vectors(self, body: Any, **kwargs: Any) -> np.ndarray:
        """The vectors of a request to /v1/embeddings that must succeed, float32 [n, d]."""
        result = self.post("/v1/embeddings", body, **kwargs)
        assert result.status_code == 200, result.text
        rows = [row["embedding"] for row in result.json["data"]]
        assert [row["index"] for row in result.json["data"]] == list(range(len(rows)))
        if isinstance(rows[0], str):
            return np.stack([np.frombuffer(base64.b64decode(row, validate=True), "<f4") for row in rows])
        return np.array(rows, np.float32)


@pytest.fixture
def make_client() -> Iterator[Callable[..., Client]]:
    """Builds a client: options of the configuration as keywords, `backend` and `keys` beside."""
    apps: list[Application] = []

    def make(backend: FakeBackend | None = None, keys: tuple[str, ...] = (), **options: Any) -> Client:
        backend = backend or FakeBackend()
        overrides = {name: str(value) for name, value in options.items()}
        app = create_app([backend], load(overrides, environ={}, path=None), ApiKeys(keys))
        apps.append(app)
        return Client(app, backend)

    yield make
    for app in apps:
        app.close()


@pytest.fixture
def client(make_client: Callable[..., Client]) -> Client:
    return make_client()
