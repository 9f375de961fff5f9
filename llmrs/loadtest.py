"""`llmrs bench`: how fast an OpenAI-compatible embedding endpoint answers.

Closed loop: each client sends its next request when it has its answer, so the load is what the
server can take. Every answer is checked for its number of vectors. Threads and the standard
library's HTTP client: that is good for some thousand requests per second, above any model.
"""

from __future__ import annotations

import http.client
import random
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from llmrs.errors import ConfigError

_WORDS = (
    "time year people way day thing world life hand part child eye woman place work week case point company "
    "number group problem fact water room mother area money story month lot right study book word business"
)
WORDS = _WORDS.split()
"""Common English words; most are one token for most models."""

PERCENTILES = (50, 90, 95, 99)
TIMEOUT = 120.0


class Load(NamedTuple):
    """What to send. `words` is the length of a text; texts differ from request to request."""

    url: str
    model: str | None
    clients: int
    seconds: float
    texts: int
    words: int
    encoding: str
    api_key: str | None


class _Row(msgspec.Struct):
    index: int


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0


class _Answer(msgspec.Struct):
    data: list[_Row]
    usage: _Usage | None = None


_decode = msgspec.json.Decoder(_Answer).decode


@dataclass
class Tally:
    """What came back: seconds of each good answer, tokens, and the faults by kind."""

    seconds: list[float] = field(default_factory=list)
    tokens: int = 0
    faults: Counter[str] = field(default_factory=Counter)


def run(load: Load, progress: Callable[[float, int], None] = lambda done, requests: None) -> dict[str, Any]:
    """Send the load and report: requests, texts and tokens per second, latencies in milliseconds.

    `progress` is called about ten times a second with the share of time that is over and the number
    of requests answered so far.

    Raises:
        ConfigError: the URL cannot be used.
    """
    connect, path = _target(load.url)
    tallies = [Tally() for _ in range(load.clients)]
    began = time.perf_counter()
    until = began + load.seconds
    threads = [
        threading.Thread(target=_client, args=(load, connect, path, tally, until, number), daemon=True)
        for number, tally in enumerate(tallies)
    ]
    for thread in threads:
        thread.start()
    while (now := time.perf_counter()) < until:
        progress((now - began) / load.seconds, sum(len(tally.seconds) for tally in tallies))
        time.sleep(min(0.1, until - now))
    for thread in threads:
        thread.join(TIMEOUT)
    return _report(load, tallies, time.perf_counter() - began)


def _target(url: str) -> tuple[Callable[[], http.client.HTTPConnection], str]:
    """How to connect, and the path of the embeddings below the base URL (with or without /v1)."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise ConfigError("the URL must be http:// or https:// with a host, and a port if there is one")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    base = parts.path.rstrip("/")
    path = base if base.endswith("/embeddings") else f"{base.removesuffix('/v1')}/v1/embeddings"
    return lambda: kind(host, port, timeout=TIMEOUT), path


def _client(
    load: Load, connect: Callable[[], http.client.HTTPConnection], path: str, tally: Tally, until: float,
    number: int,
) -> None:  # fmt: skip
    headers = {"Content-Type": "application/json"}
    if load.api_key:
        headers["Authorization"] = f"Bearer {load.api_key}"
    rng = random.Random(number)
    connection = connect()
    while time.perf_counter() < until:
        body = _body(load, rng)
        began = time.perf_counter()
        try:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            raw = response.read()
        except (OSError, http.client.HTTPException) as error:
            tally.faults[type(error).__name__] += 1
            connection.close()
            time.sleep(0.05)  # a server that is not there is not to be hammered
            continue
        if fault := _check(response.status, raw, load.texts, tally):
            tally.faults[fault] += 1
            time.sleep(0.01)
        else:
            tally.seconds.append(time.perf_counter() - began)
    connection.close()


def _body(load: Load, rng: random.Random) -> bytes:
    texts = [" ".join(rng.choices(WORDS, k=load.words)) for _ in range(load.texts)]
    fields: dict[str, Any] = {"input": texts, "encoding_format": load.encoding}
    if load.model is not None:
        fields["model"] = load.model
    return msgspec.json.encode(fields)


def _check(status: int, raw: bytes, texts: int, tally: Tally) -> str | None:
    """What is wrong with an answer, if anything."""
    if status != 200:
        return f"HTTP {status}"
    try:
        answer = _decode(raw)
    except msgspec.MsgspecError:
        return "not an embeddings answer"
    if [row.index for row in answer.data] != list(range(texts)):
        return "wrong number of vectors"
    tally.tokens += answer.usage.prompt_tokens if answer.usage else 0
    return None


def _report(load: Load, tallies: list[Tally], seconds: float) -> dict[str, Any]:
    times = sorted(time * 1e3 for tally in tallies for time in tally.seconds)
    faults: Counter[str] = Counter()
    for tally in tallies:
        faults += tally.faults
    latency: dict[str, float] = {}
    if len(times) > 1:
        cuts = statistics.quantiles(times, n=100, method="inclusive")
        latency = {"mean": statistics.fmean(times), "min": times[0], "max": times[-1]}
        latency |= {f"p{percent}": cuts[percent - 1] for percent in PERCENTILES}
    return {
        "url": load.url,
        "clients": load.clients,
        "texts_per_request": load.texts,
        "words_per_text": load.words,
        "encoding_format": load.encoding,
        "seconds": round(seconds, 3),
        "requests": len(times),
        "requests_per_second": len(times) / seconds,
        "texts_per_second": len(times) * load.texts / seconds,
        "tokens_per_second": sum(tally.tokens for tally in tallies) / seconds,
        "latency_ms": {name: round(value, 3) for name, value in latency.items()},
        "faults": dict(faults),
    }


def as_table(report: dict[str, Any]) -> str:
    """A report for people."""
    rows = [
        ("requests", f"{report['requests']:,} in {report['seconds']:.1f} s by {report['clients']} clients"),
        ("requests/s", f"{report['requests_per_second']:,.1f}"),
        ("texts/s", f"{report['texts_per_second']:,.1f}"),
        ("tokens/s", f"{report['tokens_per_second']:,.0f}"),
        *((f"{name} ms", f"{value:,.2f}") for name, value in report["latency_ms"].items()),
        *((f"fault: {name}", f"{count:,}") for name, count in report["faults"].items()),
    ]
    return "".join(f"{name:14} {value}\n" for name, value in rows)


def show_progress(done: float, requests: int) -> None:
    """A bar on standard error, if that is a terminal."""
    if sys.stderr.isatty():
        bar = "#" * int(done * 40)
        print(f"\r[{bar:40}] {done:4.0%} {requests:,} requests", end="", file=sys.stderr, flush=True)
