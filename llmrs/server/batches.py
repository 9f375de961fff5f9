"""What the engine process serves on its private socket, for the gateways alone.

See `processes` for who calls, and `backends.frames` for what is said.
"""

from __future__ import annotations

import time

import falcon
import msgspec

from llmrs.backends.frames import Wanted, read_batch, write_vectors
from llmrs.errors import InvalidRequest
from llmrs.server.hosting import Hosting
from llmrs.server.resources import patience


class Batches:
    """`POST /batch`: texts that a gateway has admitted and tokenized."""

    def __init__(self, hosting: Hosting) -> None:
        self._hosting = hosting

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        try:
            digest, batch = read_batch(req.bounded_stream.read())
        except ValueError as error:
            raise InvalidRequest(str(error)) from None
        matrix = self._hosting.get(digest).compute(batch, time.monotonic() + patience(req))
        resp.data = write_vectors(digest, matrix)
        resp.content_type = "application/octet-stream"


class Standings:
    """`POST /model`: whether a model is computed here; it will be if it is not."""

    def __init__(self, hosting: Hosting) -> None:
        self._hosting = hosting

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        try:
            wanted = msgspec.json.decode(req.bounded_stream.read(), type=Wanted)
        except msgspec.DecodeError as error:
            raise InvalidRequest(str(error)) from None
        resp.data = msgspec.json.encode(self._hosting.ask(wanted.digest, wanted.settings))
