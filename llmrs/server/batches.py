"""What the engine process serves on its private socket: batches of token ids, for the gateways alone.

See `processes` for who calls, and `backends.frames` for what is said.
"""

from __future__ import annotations

import time

import falcon

from llmrs.backends.frames import read_batch
from llmrs.errors import InvalidRequest
from llmrs.server.resources import patience
from llmrs.server.serving import ServedModel


class Batches:
    """`POST /batch`: texts that a gateway has admitted and tokenized."""

    def __init__(self, model: ServedModel) -> None:
        self._model = model

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        try:
            batch = read_batch(req.bounded_stream.read())
        except ValueError as error:
            raise InvalidRequest(str(error)) from None
        resp.data = self._model.compute(batch, time.monotonic() + patience(req)).tobytes()
        resp.content_type = "application/octet-stream"
