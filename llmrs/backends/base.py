"""The contract between the service and whatever computes its vectors.

A backend turns a batch of prepared inputs into vectors and knows nothing of requests, queues
or HTTP clients. Batches arrive already bounded by its `limits`; what it returns has exactly one
row per input, in order, so no caller ever sees a short, misshapen or foreign matrix.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextvars import ContextVar
from typing import ClassVar, Literal, NamedTuple

from llmrs.embeddings import Input, Limits, ModelInfo, Prepared, Truncate, Vectors

MIN_TRY = 1.0
"""Seconds: a backend that had less and gave no answer has said nothing about itself."""

CALL_HEADERS: ContextVar[bytes] = ContextVar("CALL_HEADERS", default=b"")
"""Header lines, each ended by CRLF, which HTTP backends add to the requests of `embed` calls in this context.

For what belongs to one call, as a trace's id. They are sent as they are, so no client's text goes in
unchecked."""


class ReplicaState(NamedTuple):
    """How one of a backend's addresses is now.

    Attributes:
        state: `up`; `down`; `refused`, because it serves another model than its peers; `unknown`, because it
            was not asked yet.
        reason: why it is not up.
        circuit: `closed`, `open` or `half-open`: whether batches go to it, none do, or it is being tried.
        running: its batches in flight; `share`: how many it may have now.
        tries, failures: batches sent to it so far, and those of them that failed.
    """

    url: str
    state: Literal["up", "down", "refused", "unknown"]
    reason: str | None
    circuit: Literal["closed", "open", "half-open"]
    running: int
    share: int
    tries: int
    failures: int


class Retries(NamedTuple):
    """Batches that failed on one address: `sent` to another, or `denied` because too many had been."""

    sent: int = 0
    denied: int = 0


class Backend(ABC):
    """Computes vectors for batches of inputs.

    Attributes:
        kind: its name in `/v1/models` and in the log: `local`, `openai`, `tei`, ...
        waits_on: what `embed` spends its time on. `cpu` is computing in native code without the
            GIL, which the server gives a native thread unless the batch is a short one (see
            `Limits.inline_tokens`); `network` is waiting for a socket,
            which the server does in a greenlet.
        counts_tokens: whether `prepare` tokenizes, and so knows how many tokens an input has.
        relays: whether another process of this service computes the batches, and counts them.
        description: how it computes, for the log; empty where that is not known.
    """

    kind: str
    description: str = ""
    counts_tokens: ClassVar[bool] = True
    relays: ClassVar[bool] = False
    waits_on: ClassVar[Literal["cpu", "network"]]

    @property
    @abstractmethod
    def info(self) -> ModelInfo:
        """What is known about the model now; an HTTP backend learns more when first reached."""

    @property
    @abstractmethod
    def limits(self) -> Limits:
        """What one `embed` call may carry."""

    @abstractmethod
    def prepare(
        self, inputs: Sequence[Input], *, truncate: Truncate | None = "none", prompt: str = ""
    ) -> list[Prepared]:
        """Make inputs ready for `embed`, in order. Thread-safe.

        `prompt` is put in front of every text (token ids are taken as they are). `truncate` None leaves long
        inputs to what the backend does by itself; only backends that do not count tokens get it.

        Raises:
            ContextLengthExceeded: an input is too long and `truncate` is `none`.
            InvalidRequest: token ids out of range, or not accepted by this backend.
        """

    def prepare_for(
        self,
        inputs: Sequence[Input],
        *,
        truncate: Truncate | None,
        prompt: str,
        dimensions: int | None,
        input_type: str | None = None,
        prompt_name: str | None = None,
    ) -> list[Prepared]:
        """As `prepare`, for a request that wants vectors of `dimensions` numbers.

        By default those are made by whoever called, of the whole vectors. A backend that `shortens` makes
        them itself: all numbers of its vectors beyond `dimensions` are zero.

        `input_type` and `prompt_name` are for one that does not say in `ModelInfo` which prompts it has; of
        others they have been made a `prompt`.
        """
        return self.prepare(inputs, truncate=truncate, prompt=prompt)

    @property
    def knows_prompts(self) -> bool:
        """Whether all prompts of its model are known here. By default they are."""
        return True

    @property
    def forwards_ids(self) -> bool:
        """Whether token ids may go there although nobody knows their vocabulary. By default they may not."""
        return False

    @property
    def shortens(self) -> bool:
        """Whether it makes shorter vectors where they are asked for. By default it does not."""
        return False

    @property
    def always_normalizes(self) -> bool:
        """Whether its vectors have length 1 because it cannot be told otherwise. By default it can."""
        return False

    @abstractmethod
    def embed(self, batch: Sequence[Prepared], *, timeout: float) -> Vectors:
        """Vectors of a batch, float32 [len(batch), dimensions], in order.

        At most `limits.slots` calls run at once. `timeout` is in seconds, for the whole call.

        Raises:
            UpstreamError, UpstreamRejected, DeadlineExceeded, EngineError
            QueueFull: the backend itself is too busy to take the batch.
        """

    @abstractmethod
    def check(self, *, timeout: float) -> None:
        """Return if the backend can embed now, else raise a ServiceError with the reason.

        Costs little and never queues behind work.
        """

    @property
    def is_loaded(self) -> bool:
        """Whether `embed` can be called. By default always; else `load` comes first."""
        return True

    @property
    def memory_elsewhere(self) -> Literal["unloaded", "loading", "loaded"] | None:
        """Whether another process that computes for it has it in memory, as far as was heard.

        None where this process computes, which is the default.
        """
        return None

    @property
    def on_demand(self) -> bool:
        """Whether it is loaded when it is used, and may be unloaded. By default it is always there."""
        return False

    @property
    def weight_bytes(self) -> int:
        """About what it takes of this process's memory while it is loaded; 0 where that is not known."""
        return 0

    def load(self) -> None:
        """Make it ready to embed; takes seconds, on a thread beside the hub. By default it is.

        Raises:
            StartupError: it cannot be loaded.
        """
        return

    def unload(self) -> None:
        """Give its memory back until `load`; nothing is being embedded. By default nothing."""
        return

    def computing_since(self) -> float | None:
        """When the oldest step of computing under way began, a reading of time.monotonic().

        None while there is none, or where it is not known (the default). Called from any thread. For
        backends that wait on `cpu`: the server ends a process whose step does not come back.
        """
        return None

    @property
    def is_broken(self) -> bool:
        """Whether it has failed such that nothing it gives can be trusted until another process loads it.

        The server ends its own for that. By default never.
        """
        return False

    @property
    def is_outdated(self) -> bool:
        """Whether its files have been replaced since it has read them. Asked only of one that is down.

        Then whoever computes for it cannot load them again, and it must be opened anew. By default never.
        """
        return False

    @property
    def replicas(self) -> Sequence[ReplicaState]:
        """The addresses that batches are spread over; by default there is no choice, and none."""
        return ()

    @property
    def retries(self) -> Retries:
        """Batches so far that failed on one of `replicas`."""
        return Retries()

    def tend(self, position: int) -> None:
        """Do what is due for the replica at `position`: try it, look after it. Raises nothing, takes seconds.

        To be called about once a second for each of `replicas`.
        """
        return

    def close(self) -> None:
        """Release what the backend holds. By default nothing."""
        return
