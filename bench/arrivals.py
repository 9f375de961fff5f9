"""Requests that arrive whether the last ones were answered or not, as those of many strangers do.

A closed loop, in which clients wait for their answers, slows down with the server and hides an overload.
Here requests are due at random moments of a given rate (a Poisson process); each goes over an idle
kept-alive connection, or over a new one. Runs in a process of its own, under gevent.
"""

from __future__ import annotations

import base64
import json
import random
import re
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import gevent
from gevent import socket

LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
TOTAL = re.compile(rb"\r\nserver-timing: [^\r]*total;dur=([\d.]+)", re.IGNORECASE)
RETRY = re.compile(rb"\r\nretry-after-ms: (\d+)\r\n", re.IGNORECASE)


REFUSED = -1
"""In place of a status: nobody listened."""


class Outcome(NamedTuple):
    """One request: when it was due (seconds from the start), its status, REFUSED, or 0 where the answer broke
    off, and its latency in seconds.

    `retry_after` is what a refusal said, in seconds, or 0, and `server` what the server says that it took
    (`Server-Timing`), which leaves out how late this process was itself. `text` is the index of its text,
    and `vector` the base64 of a good answer.
    """

    due: float
    status: int
    seconds: float
    retry_after: float
    text: int
    vector: str
    server: float


class Arrivals:
    """A load of one-text requests.

    Args:
        url: of the service, without a path.
        texts: taken one after the other.
        keep: whether vectors are kept in the outcomes.
    """

    def __init__(self, url: str, texts: Sequence[str], *, keep: bool = False) -> None:
        address = urlsplit(url)
        self._address = (address.hostname, address.port)
        self._requests = [_request(text) for text in texts]
        self._idle: list[socket.socket] = []
        self._keep = keep

    def run(self, rate: float, seconds: float, *, patience: float = 30.0) -> list[Outcome]:
        """Outcomes of all requests that were due in `seconds`, `rate` of them a second."""
        outcomes: list[Outcome] = []
        dice = random.Random(1)
        began = time.monotonic()
        due, number, running = 0.0, 0, []
        while due < seconds:
            gevent.sleep(max(0.0, began + due - time.monotonic()))
            ask = gevent.spawn(self.ask, number % len(self._requests), began, due, patience)
            ask.link_value(lambda asked: outcomes.append(asked.value))
            running.append(ask)
            due += dice.expovariate(rate)
            number += 1
        gevent.joinall(running, timeout=patience)
        return outcomes

    def ask(self, text: int, began: float, due: float = 0.0, patience: float = 30.0) -> Outcome:
        """Send the request of a text, due at `began + due` by time.monotonic(), and wait for its answer."""
        status, retry_after, vector, server = 0, 0.0, "", 0.0
        connection = None
        try:
            with gevent.Timeout(patience):
                connection = self._kept() or socket.create_connection(self._address)
                connection.sendall(self._requests[text])
                head, body = _read(connection)
            status = int(head[9:12])
            if status == 200 and self._keep:
                vector = json.loads(body)["data"][0]["embedding"]
            if found := TOTAL.search(head):
                server = float(found[1]) / 1000
            if found := RETRY.search(head):
                retry_after = int(found[1]) / 1000
            if b"\r\nconnection: close\r\n" not in head.lower():
                self._idle.append(connection)
                connection = None
        except ConnectionRefusedError:
            status = REFUSED
        except (OSError, gevent.Timeout, ValueError):
            pass  # status 0
        finally:
            if connection is not None:
                connection.close()
        return Outcome(due, status, time.monotonic() - began - due, retry_after, text, vector, server)

    def _kept(self) -> socket.socket | None:
        """An idle connection that the server has not closed meanwhile; every client looks before it sends."""
        while self._idle:
            connection = self._idle.pop()
            try:
                connection._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return connection
            except OSError:
                pass
            connection.close()
        return None


def count(outcomes: Sequence[Outcome]) -> dict[int, int]:
    """How many of each status."""
    return dict(sorted(Counter(outcome.status for outcome in outcomes).items()))


def good(outcomes: Sequence[Outcome]) -> list[float]:
    """Latencies of the requests that got vectors, in seconds, in ascending order."""
    return sorted(outcome.seconds for outcome in outcomes if outcome.status == 200)


def floats(vector: str) -> bytes:
    """A vector's little-endian float32 bytes."""
    return base64.b64decode(vector, validate=True)


def _request(text: str) -> bytes:
    body = json.dumps({"input": text, "encoding_format": "base64"}).encode()
    head = (
        "POST /v1/embeddings HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _read(connection: socket.socket) -> tuple[bytes, bytes]:
    """Head and body of an answer; raises ValueError where it breaks off."""
    data = bytearray()
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += _some(connection)
    head = bytes(data[: end + 4])
    found = LENGTH.search(head)
    length = int(found[1]) if found else 0
    while len(data) < end + 4 + length:
        data += _some(connection)
    return head, bytes(data[end + 4 :])


def _some(connection: socket.socket) -> bytes:
    if not (data := connection.recv(65536)):
        raise ValueError("the answer broke off")
    return data
