"""An OpenAI-shaped backend that costs almost nothing: the same vector, as often as it is asked.

python bench/null_backend.py 8000

With a second argument, it answers so many texts a second and no more, one call after the other.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import sys
from collections.abc import Callable

import numpy as np

DIMENSIONS = 384
VECTOR = np.random.default_rng(0).standard_normal(DIMENSIONS).astype("<f4")
VECTOR /= np.linalg.norm(VECTOR)  # as backends give them: a gateway that normalizes changes nothing
END = b"\r\n\r\n"


def answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


OTHER = answer(b'{"object":"list","data":[{"id":"null","object":"model"}]}')


@functools.cache
def vectors(count: int, as_base64: bool) -> bytes:
    one = base64.b64encode(VECTOR.tobytes()).decode() if as_base64 else VECTOR.tolist()
    data = [{"object": "embedding", "index": index, "embedding": one} for index in range(count)]
    usage = {"prompt_tokens": 5 * count, "total_tokens": 5 * count}
    return answer(json.dumps({"object": "list", "data": data, "model": "null", "usage": usage}).encode())


class Pace:
    """When answers leave: at once, or as fast as texts are computed."""

    def __init__(self, texts_per_second: float) -> None:
        self._seconds = 1 / texts_per_second
        self._free_at = 0.0

    def call(self, texts: int, write: Callable[[bytes], None], answer: bytes) -> None:
        if not self._seconds:
            write(answer)
            return
        loop = asyncio.get_running_loop()
        self._free_at = max(self._free_at, loop.time()) + texts * self._seconds
        loop.call_at(self._free_at, write, answer)


class Connection(asyncio.Protocol):
    """Enough of HTTP for well-behaved clients: one request after the other, with a Content-Length."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        while END in self._received:
            head, _, rest = self._received.partition(END)
            _, _, length = head.lower().partition(b"content-length:")
            size = int(length.split(b"\r\n", 1)[0]) if length else 0
            if len(rest) < size:
                return
            self._received = rest[size:]
            if head.startswith(b"POST"):
                self._answer(rest[:size])
            else:
                self._transport.write(OTHER)

    def _answer(self, body: bytes) -> None:
        asked = json.loads(body)
        inputs = asked["input"]
        count = len(inputs) if isinstance(inputs, list) else 1
        self._pace.call(
            count, self._transport.write, vectors(count, asked.get("encoding_format") == "base64")
        )


async def main(port: int, texts_per_second: float = float("inf")) -> None:
    pace = Pace(texts_per_second)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(pace), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), *map(float, sys.argv[2:])))
