"""An OpenAI-shaped backend that costs almost nothing: the same vector, as often as it is asked.

python bench/null_backend.py 8000
"""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import sys

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


class Connection(asyncio.Protocol):
    """Enough of HTTP for well-behaved clients: one request after the other, with a Content-Length."""

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
            self._transport.write(self._answer(rest[:size]) if head.startswith(b"POST") else OTHER)

    def _answer(self, body: bytes) -> bytes:
        asked = json.loads(body)
        inputs = asked["input"]
        return vectors(
            len(inputs) if isinstance(inputs, list) else 1, asked.get("encoding_format") == "base64"
        )


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
