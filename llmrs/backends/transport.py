"""One HTTP address: whole bounded answers, each by its deadline, on kept-alive connections.

Rules of this file. It alone imports requests, which makes requests out of addresses and headers; the
bytes then go through `connections`. It knows no protocol and no JSON. No redirect is followed, no
proxy (`ignored_proxy` tells of one), .netrc or cookie is used, and nothing is decompressed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

import requests
from urllib3 import Retry
from urllib3.exceptions import InvalidHeader

from llmrs.backends.connections import Address, Pool
from llmrs.backends.trust import tls_context
from llmrs.errors import ConfigError

HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",  # inflating costs more than a local network's bytes, and can be a bomb
    "Content-Type": "application/json",
    "User-Agent": "llmrs",
}

ENDPOINTS = ("/api/embed", "/api/embeddings", "/embeddings", "/embed", "/v1")
"""What addresses end in that were copied from a client's settings. The last may stand before others."""


class Answer(NamedTuple):
    """An HTTP answer.

    Attributes:
        headers: by lower-case name.
        body: of a status other than 200 the first few thousand bytes, if they came at once. Those say why,
            to this program alone: nothing of them is passed on.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait as `retry-after-ms` or `Retry-After` (seconds or a date) says, if it does."""
        try:
            if "retry-after-ms" in self.headers:
                return max(0.0, float(self.headers["retry-after-ms"]) / 1000)  # in this order NaN gives 0
            return Retry().parse_retry_after(self.headers["retry-after"])
        except (KeyError, ValueError, InvalidHeader):
            return None


class Transport:
    """Requests to one address. Safe to share between threads and between greenlets.

    Attributes:
        address: where it goes, for logs and `/health`.

    Does no I/O until the first request, except that it reads `ca_file`, whose certificates are the only ones
    believed then. Raises ConfigError if `url` is no address, or as `trust` does.
    """

    def __init__(
        self,
        url: str,
        *,
        connections: int,
        api_key: str | None = None,
        key_header: str | None = None,
        ca_file: str | None = None,
        resend: bool = True,
    ) -> None:
        self.address = url
        self._base, socket_path = _parse(url)
        self._headers = HEADERS | _credentials(api_key, key_header)
        self._heads: dict[tuple[str, str], bytes] = {}
        self._pool = Pool(_address(self._base, socket_path, ca_file), connections, resend=resend)

    def get(self, path: str, *, deadline: float, limit: int) -> Answer:
        """GET `path` (appended to the address); see `post`."""
        return self._exchange(self._head("GET", path) + b"\r\n", deadline, limit)

    def post(self, path: str, body: bytes, *, deadline: float, limit: int, lines: bytes = b"") -> Answer:
        """POST a JSON body. `deadline` is a `time.monotonic()` moment, `limit` bytes of the answer.

        `lines` are further header lines of this request alone, each ended by CRLF; they come from this
        program, and nothing in them is checked.

        Raises:
            DeadlineExceeded: the answer was not complete in time.
            UpstreamError: unreachable, broken off or longer than `limit`; says which.
        """
        head = b"%b%bContent-Length: %d\r\n\r\n" % (self._head("POST", path), lines, len(body))
        return self._exchange(head + body, deadline, limit)

    def close(self) -> None:
        """Close the idle connections."""
        self._pool.close()

    def _exchange(self, request: bytes, deadline: float, limit: int) -> Answer:
        answer = self._pool.exchange(request, deadline, limit)
        return Answer(answer.status, answer.headers, answer.body)

    def _head(self, method: str, path: str) -> bytes:
        """All of a request's head but the length of its body and the empty line."""
        head = self._heads.get((method, path))
        if head is None:
            request = requests.Request(method, self._base + path, headers=self._headers).prepare()
            host = {"Host": urlsplit(str(request.url)).netloc}
            lines = [f"{method} {request.path_url} HTTP/1.1"]
            lines += [f"{name}: {value}" for name, value in (host | dict(self._headers)).items()]
            head = self._heads[method, path] = "".join(f"{line}\r\n" for line in lines).encode("latin-1")
        return head


def ignored_proxy(url: str) -> str | None:
    """The environment variable with a proxy for an https address, which is not used; None without one."""
    parts = urlsplit(url)
    if parts.scheme != "https" or requests.utils.should_bypass_proxies(url, no_proxy=None):
        return None
    names = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
    return next((name for name in names if os.environ.get(name)), None)


def _address(base: str, socket_path: str | None, ca_file: str | None) -> Address:
    """Where the connections for an address's URLs go."""
    url = urlsplit(str(requests.Request("GET", base).prepare().url))
    host = url.hostname or ""
    if socket_path is not None or url.scheme == "http":
        return Address(host, url.port or 80, socket_path)
    return Address(host, url.port or 443, tls=tls_context(ca_file, requests.adapters.DEFAULT_CA_BUNDLE_PATH))


def _credentials(api_key: str | None, header: str | None) -> dict[str, str]:
    """The header that has the key, by default as a bearer token."""
    if api_key is None:
        return {}
    return {header: api_key} if header else {"Authorization": f"Bearer {api_key}"}


def _parse(url: str) -> tuple[str, str | None]:
    """What all request URLs start with, and the path of the Unix socket if it is one.

    A final `/v1` is dropped: OpenAI clients want it written, and here the protocols add it. So is the
    path of an endpoint that was written out in full.
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
    path = parts.path.rstrip("/")
    for endpoint in ENDPOINTS:
        path = path.removesuffix(endpoint)
    return f"{parts.scheme}://{parts.netloc}{path.rstrip('/')}", None
