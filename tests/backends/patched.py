"""The HTTP backend as the server runs it: under gevent's patching, in greenlets.

A program, because patching is for a whole process: `patched.py SCENARIO URL`. It fails by
assertion; a ticker greenlet proves that the hub was never blocked meanwhile.
"""

# ruff: noqa: E402 - patching comes before whatever shall be patched
from gevent import monkey

monkey.patch_all()

import sys
import time

import gevent
import pytest

from llmrs.backends.http import HttpBackend
from llmrs.backends.pool import open_http
from llmrs.config import Config
from llmrs.errors import DeadlineExceeded, UpstreamError

DEADLINE = 0.4


def embed(backend: HttpBackend, text: str = "a", timeout: float = 5.0) -> list[float]:
    return backend.embed(backend.prepare([text]), timeout=timeout).matrix[0].tolist()


def deadline(backend: HttpBackend) -> None:
    """The server stops answering in some way once it is known."""
    start = time.monotonic()
    calls = [gevent.spawn(embed, backend, "a", DEADLINE) for _ in range(3)]
    gevent.joinall(calls, timeout=5)
    assert time.monotonic() - start < DEADLINE + 0.5
    assert [type(call.exception) for call in calls] == [DeadlineExceeded] * 3


def killed(backend: HttpBackend) -> None:
    """The server's own timeout fires in the middle of an answer; the next call is clean."""
    for _ in range(3):
        with pytest.raises(gevent.Timeout), gevent.Timeout(DEADLINE / 4):
            embed(backend, "hang")
    assert embed(backend, "a") != embed(backend, "b")


def stale(backend: HttpBackend) -> None:
    """The server closes each connection upon its second request."""
    for _ in range(4):
        embed(backend)


def together(backend: HttpBackend) -> None:
    """Eight greenlets find the backend and use it; it takes 0.2 s for each batch."""
    start = time.monotonic()
    calls = [gevent.spawn(embed, backend, f"{i}") for i in range(8)]
    gevent.joinall(calls, timeout=10)
    assert len({tuple(call.get()) for call in calls}) == 8
    assert time.monotonic() - start < 1.2, "one after the other takes 1.6 s"


def refused(backend: HttpBackend) -> None:
    """Nobody listens there."""
    with pytest.raises(UpstreamError, match="cannot be reached"):
        embed(backend)
    with pytest.raises(UpstreamError, match="cannot be reached"):
        backend.check(timeout=1)


def main(scenario: str, url: str) -> None:
    longest = 0.0

    def tick() -> None:
        nonlocal longest
        while True:
            start = time.monotonic()
            gevent.sleep(0.01)
            longest = max(longest, time.monotonic() - start)

    backend = open_http(Config(backend_url=(url,), backend_protocol="openai", workers=8))
    if scenario not in ("together", "refused"):
        backend.check(timeout=5)
    ticker = gevent.spawn(tick)
    globals()[scenario](backend)
    ticker.kill()
    assert longest < 0.3, f"the hub was blocked for {longest:.2f} s"


if __name__ == "__main__":
    main(*sys.argv[1:])
