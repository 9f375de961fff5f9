"""A local model that another process of this service computes, see `server.processes`.

Texts are tokenized here and batches formed here; the engine, which has a collector of its own, puts
those of all its callers together.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar, Literal

from llmrs.backends.frames import BATCH, read_vectors, write_batch
from llmrs.backends.model import ModelBackend
from llmrs.backends.transport import Answer, Transport
from llmrs.config import Config
from llmrs.embeddings import Limits, Prepared, Vectors
from llmrs.errors import DeadlineExceeded, EngineError, NotReady, ServiceError, UpstreamError

SLOTS = 4
"""Batches under way from one gateway: one computed, the next ready, for the two streams that an engine
of a small model has."""

NOT_READY = "the process that computes is not ready"


class EngineClient(ModelBackend):
    """The engine process at an address."""

    waits_on: ClassVar[Literal["cpu", "network"]] = "network"

    def __init__(self, config: Config, address: str) -> None:
        """Load the tokenizer; nothing is asked of the engine yet. Raises ModelError."""
        super().__init__(
            config.model_path, engine=config.engine, model_file=config.model_file, offline=config.offline
        )
        self._transport = Transport(address, connections=SLOTS + 1, resend=False)
        self._limits = Limits(
            config.batch_size,
            batch_tokens=max(config.max_batch_tokens, self.folder.max_tokens),
            slots=SLOTS,
        )

    @property
    def limits(self) -> Limits:
        return self._limits

    def embed(self, batch: Sequence[Prepared], *, timeout: float) -> Vectors:
        deadline = time.monotonic() + timeout
        size = 4 * len(batch) * self.folder.dimensions
        lines = b"X-Request-Timeout: %.3f\r\n" % max(timeout, 0.001)
        try:
            answer = self._transport.post(
                BATCH, write_batch(batch), deadline=deadline, limit=size, lines=lines
            )
        except UpstreamError as error:
            # Not sent again: these texts may be what ended the engine.
            raise NotReady(f"{NOT_READY}: {error}", retry_after=1) from None
        if answer.status != 200:
            raise _failure(answer)
        return Vectors(read_vectors(answer.body, len(batch), self.folder.dimensions))

    def check(self, *, timeout: float) -> None:
        try:
            answer = self._transport.get("/readyz", deadline=time.monotonic() + timeout, limit=1 << 16)
        except DeadlineExceeded:
            raise UpstreamError(NOT_READY) from None  # it is loading its model
        if answer.status != 200:
            raise UpstreamError(NOT_READY)

    def close(self) -> None:
        self._transport.close()


def _failure(answer: Answer) -> ServiceError:
    """What the engine's own error was."""
    if answer.status == 504:
        return DeadlineExceeded("the model did not finish in time")
    if answer.status == 500:
        return EngineError("the model could not compute a vector")
    return NotReady(NOT_READY, retry_after=1)
