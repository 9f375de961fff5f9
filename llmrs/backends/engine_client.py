"""A local model that another process of this service computes, see `server.processes`.

Texts are tokenized here and batches formed here; the engine, which has a collector of its own, puts
those of all its callers together. It is told by every batch which model is meant, and by every check
which one it is to have.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar, Literal

import msgspec

from llmrs.backends.frames import BATCH, MODEL, Standing, Wanted, read_vectors, write_batch
from llmrs.backends.identity import DIGEST_BYTES, digest_of, files_of, settings_of
from llmrs.backends.model import ModelBackend
from llmrs.backends.transport import Answer, Transport
from llmrs.config import Config
from llmrs.embeddings import Limits, Prepared, Vectors
from llmrs.errors import DeadlineExceeded, EngineError, ModelError, NotReady, ServiceError, UpstreamError

SLOTS = 4
"""Batches under way from one gateway: one computed, the next ready, for the two streams that an engine
of a small model has."""

NOT_READY = "the process that computes is not ready"
LOADING = "the process that computes is loading the model"


class EngineClient(ModelBackend):
    """One model of the engine process at an address."""

    waits_on: ClassVar[Literal["cpu", "network"]] = "network"
    relays: ClassVar[bool] = True

    def __init__(self, config: Config, address: str) -> None:
        """Load the tokenizer; nothing is asked of the engine yet. Raises ModelError."""
        super().__init__(
            config.model_path, engine=config.engine, model_file=config.model_file, offline=config.offline
        )
        self._digest = digest_of(config, self.files)
        self._wanted = msgspec.json.encode(Wanted(self._digest, settings_of(config)))
        self._memory: Literal["unloaded", "loading", "loaded"] = "unloaded"
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
        size = DIGEST_BYTES + 4 * len(batch) * self.folder.dimensions
        lines = b"X-Request-Timeout: %.3f\r\n" % max(timeout, 0.001)
        try:
            answer = self._transport.post(
                BATCH, write_batch(self._digest, batch), deadline=deadline, limit=size, lines=lines
            )
        except UpstreamError as error:
            # Not sent again: these texts may be what ended the engine.
            raise NotReady(f"{NOT_READY}: {error}", retry_after=1) from None
        if answer.status != 200:
            raise _failure(answer)
        self._memory = "loaded"
        return Vectors(read_vectors(answer.body, self._digest, len(batch), self.folder.dimensions))

    def check(self, *, timeout: float) -> None:
        """Return if the engine computes the model; let it load it if it does not.

        Raises:
            NotReady: it is not there, or still loading.
            UpstreamError: it cannot load the model.
        """
        deadline = time.monotonic() + timeout
        try:
            answer = self._transport.post(MODEL, self._wanted, deadline=deadline, limit=1 << 16)
        except (DeadlineExceeded, UpstreamError):
            raise NotReady(NOT_READY) from None
        if answer.status != 200:
            raise NotReady(NOT_READY)
        standing = msgspec.json.decode(answer.body, type=Standing)
        self._memory = standing.memory
        if standing.state == "loading":
            raise NotReady(LOADING)
        if standing.state == "failed":
            raise UpstreamError(standing.reason)

    @property
    def memory_elsewhere(self) -> Literal["unloaded", "loading", "loaded"]:
        return self._memory

    @property
    def is_outdated(self) -> bool:
        try:
            return files_of(self.folder.path) != self.files
        except ModelError:
            return True

    def close(self) -> None:
        self._transport.close()


def _failure(answer: Answer) -> ServiceError:
    """What the engine's own error was."""
    if answer.status == 504:
        return DeadlineExceeded("the model did not finish in time")
    if answer.status == 500:
        return EngineError()
    return NotReady(NOT_READY, retry_after=1)
