"""One HTTP address: whole bounded answers, each by its deadline, on kept-alive connections.

Rules of this file. It alone imports requests, and it knows no protocol and no JSON. Connecting,
TLS, sending and every single read of head and body end at one absolute moment; this holds in a
plain process as in a gevent-patched one, where waiting parks a greenlet (only a host name's
resolution has no limit of its own). No redirect is followed, no proxy, .netrc or cookie is used,
nothing is decompressed, and a connection whose answer was not read to its end is never used again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)

from llmrs.backends.connections import Pool, TLSPool, UnixPool, Until
from llmrs.errors import ConfigError, DeadlineExceeded, ServiceError, UpstreamError

READ_STEP = 1 << 20
"""Bytes asked for at once: a usual batch's answer is read in one piece."""

HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",  # inflating costs more than a local network's bytes, and can be a bomb
    "Content-Type": "application/json",
    "User-Agent": "llmrs",
}

# The first that fits, and some are subclasses of the next.
REASONS: tuple[tuple[type[Exception], str], ...] = (
    (NameResolutionError, "its host name cannot be resolved"),
    (NewConnectionError, "connecting failed"),
    (ConnectTimeoutError, "connecting timed out"),
    (SSLError, "TLS failed, or its certificate is not trusted"),
)


class Answer(NamedTuple):
    """An HTTP answer. `body` is empty unless `status` is 200: nothing else of a backend is used."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait as `retry-after-ms` or `Retry-After` (seconds or a date) says, if it does."""
        try:
            if "retry-after-ms" in self.headers:
                return max(0.0, float(self.headers["retry-after-ms"]) / 1000)  # in this order NaN gives 0
            return Retry().parse_retry_after(self.headers["Retry-After"])
        except (KeyError, ValueError, HTTPError):
            return None


class Transport:
    """Requests to one address. Safe to share between threads and between greenlets.

    Attributes:
        address: where it goes, for logs and `/health`.

    Does no I/O until the first request. Raises ConfigError if `url` is no address.
    """

    def __init__(self, url: str, *, connections: int, api_key: str | None = None) -> None:
        self.address = url
        self._base, socket_path = _parse(url)
        self._session = requests.Session()
        self._session.trust_env = False
        adapter = _Adapter(connections) if socket_path is None else _UnixAdapter(socket_path, connections)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)
        self._headers = HEADERS | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
        self._templates: dict[tuple[str, str], requests.PreparedRequest] = {}

    def get(self, path: str, *, deadline: float, limit: int) -> Answer:
        """GET `path` (appended to the address); see `post`."""
        return self._exchange(self._prepared("GET", path), deadline, limit)

    def post(self, path: str, body: bytes, *, deadline: float, limit: int) -> Answer:
        """POST a JSON body. `deadline` is a `time.monotonic()` moment, `limit` bytes of the answer.

        A request that met a kept-alive connection which the server had closed is sent once more on
        a new one: embedding changes nothing, so twice is as good as once.

        Raises:
            DeadlineExceeded: the answer was not complete in time.
            UpstreamError: unreachable, broken off or longer than `limit`; says which.
        """
        request = self._prepared("POST", path)
        request.body = body
        request.headers["Content-Length"] = str(len(body))
        return self._exchange(request, deadline, limit)

    def close(self) -> None:
        """Close the idle connections."""
        self._session.close()

    def _prepared(self, method: str, path: str) -> requests.PreparedRequest:
        template = self._templates.get((method, path))
        if template is None:
            request = requests.Request(method, self._base + path, headers=self._headers)
            template = self._templates[method, path] = request.prepare()
        return template.copy()

    def _exchange(self, request: requests.PreparedRequest, deadline: float, limit: int) -> Answer:
        timeout: Any = Until(deadline)
        try:
            # The adapter directly: Session.send reads a redirect's whole body, however long.
            adapter = self._session.get_adapter(str(request.url))
            with adapter.send(request, stream=True, timeout=timeout, verify=True) as response:
                body = _read(response.raw, limit) if response.status_code == 200 else b""
                return Answer(response.status_code, response.headers, body)
        except (requests.RequestException, HTTPError, OSError) as error:
            # Without its cause: that holds the request, and with it the key.
            raise _failure(error, deadline) from None


def _parse(url: str) -> tuple[str, str | None]:
    """What all request URLs start with, and the path of the Unix socket if it is one.

    A final `/v1` is dropped: OpenAI clients want it written, and here the protocols add it.
    """
    if url.startswith("unix:/"):
        return "http://localhost", url.removeprefix("unix:")
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or any(mark in url for mark in "@?# "):
        # Not quoted: what is wrong with it may be the password in it.
        raise ConfigError(
            "backend_url: expected http://host:port, https://host:port or unix:/path without user "
            "name, password, ? and # (a key goes into backend_api_key)"
        )
    return url.rstrip("/").removesuffix("/v1").rstrip("/"), None


def _read(raw: Any, limit: int) -> bytes:
    """The rest of a urllib3 response, as it came; UpstreamError beyond `limit` bytes."""
    chunks: list[bytes] = []
    size = 0
    declared = raw.length_remaining or 0
    while max(size, declared) <= limit and (chunk := raw.read(READ_STEP, decode_content=False)):
        chunks.append(chunk)
        size += len(chunk)
    if max(size, declared) > limit:
        raise UpstreamError(f"the backend's answer is longer than the {limit} bytes it may have")
    return b"".join(chunks)


def _failure(error: Exception, deadline: float) -> ServiceError:
    timed_out = isinstance(error, (requests.ReadTimeout, ReadTimeoutError))
    if timed_out or time.monotonic() >= deadline:
        return DeadlineExceeded("the backend did not answer in time")
    cause = error.args[0] if error.args else error
    cause = getattr(cause, "reason", cause)  # requests wraps urllib3's wrapper of what happened
    for kind, reason in REASONS:
        if isinstance(cause, kind):
            return UpstreamError(f"the backend cannot be reached: {reason}")
    return UpstreamError("the backend broke off the connection")


class _Adapter(HTTPAdapter):
    def __init__(self, connections: int) -> None:
        super().__init__(pool_connections=1, pool_maxsize=connections)
        self.poolmanager.pool_classes_by_scheme = {"http": Pool, "https": TLSPool}


class _UnixAdapter(HTTPAdapter):
    def __init__(self, path: str, connections: int) -> None:
        super().__init__(pool_connections=1, pool_maxsize=connections)
        self._pool = UnixPool("localhost", maxsize=connections, path=path)

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        return self._pool

    def close(self) -> None:
        self._pool.close()
