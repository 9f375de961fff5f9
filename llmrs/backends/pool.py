"""Several backends of one model as one: batches are spread over them, and tried again elsewhere.

`roster` says who gets a batch, `trials` who is in service. Where a batch fails for a reason that another
backend may not share (unreachable, broken off, a 5xx, busy, no answer in its part of the time, nonsense), it
goes to another one: embedding changes nothing, so twice is as good as once. What the input is to blame for
(400, 413, 422) is final. Retries have a budget, so that a general outage is not made worse.

A batch that a backend fails on while it embeds other texts (`FailedOnInput`) counts against no backend. The
collector splits it until a text is alone; that text visits one other backend at most. Nor does a batch visit
a third one after two that failed with it in their hands: a text that ends processes shall not end them all.

Like `http`, no gevent in here: waiting parks the greenlet where the process is patched.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, Literal

from llmrs.backends.asking import BACKOFF
from llmrs.backends.base import MIN_TRY, Backend, ReplicaState, Retries
from llmrs.backends.budget import RetryBudget
from llmrs.backends.connections import Broken
from llmrs.backends.http import DEFAULT_SLOTS, TRIES, HttpBackend, open_address
from llmrs.backends.refusals import Failed, FailedOnInput
from llmrs.backends.replica import Replica
from llmrs.backends.roster import WAIT, Errand, Roster
from llmrs.backends.trials import Trials
from llmrs.config import Config
from llmrs.embeddings import Input, Limits, ModelInfo, Prepared, Truncate, Vectors
from llmrs.errors import (
    ConfigError,
    DeadlineExceeded,
    QueueFull,
    ServiceError,
    UpstreamError,
    UpstreamRejected,
)

FLIGHTS = 2
LEAST_BUDGET = 20
"""Most retries at once: FLIGHTS times what all backends may have in flight, because a backend that dies
breaks off all of its batches in one moment, and then fails some more until it is out of service."""


def open_http(config: Config) -> Backend:
    """The backend at `config.backend_url`, or all of them as one. Does no I/O.

    Raises ConfigError unless there is an address, and all are valid and different.
    """
    urls = config.backend_url
    if not urls or len(set(urls)) < len(urls):
        source = config.sources.get("backend_url", "default")
        raise ConfigError(f"backend_url ({source}): expected one address, or several different ones")
    if len(urls) == 1:
        return open_address(config, urls[0])
    # A busy backend is not asked again at once: its peers may have room.
    backends = [open_address(config, url, patient=False) for url in urls]
    for backend in backends:
        backend.sizes.peers = [peer.sizes for peer in backends if peer is not backend]
    return BackendPool(config, backends)


class BackendPool(Backend):
    """Backends of one model, in the order of their addresses.

    Args:
        clock, rand: monotonic seconds, and numbers in [0, 1).
        wait: parks the caller, who holds `changed`, for some seconds or until something changes.

    Attributes:
        kind: the protocol of the backend whose vectors are the reference.
    """

    waits_on: ClassVar[Literal["cpu", "network"]] = "network"
    counts_tokens = False

    def __init__(
        self,
        config: Config,
        backends: Sequence[HttpBackend],
        clock: Callable[[], float] = time.monotonic,
        rand: Callable[[], float] = random.random,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        slots = config.workers or DEFAULT_SLOTS
        self.kind = config.backend_protocol
        self._clock = clock
        self._changed = threading.Condition()
        self._replicas = [Replica(backend, slots, clock, rand) for backend in backends]
        self._trials = Trials(self._replicas, self._changed, clock, self._introduce)
        wait = wait or self._changed.wait
        self._roster = Roster(self._replicas, self._trials, self._changed, clock, wait)
        self._budget = RetryBudget(max(LEAST_BUDGET, FLIGHTS * slots * len(backends)), clock)
        self._info = ModelInfo(config.model_name)
        self._retries = Retries()
        self._limits: Limits | None = None
        self._limits_until = 0.0

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def limits(self) -> Limits:
        """The narrowest of all backends', and as many slots as those in service may fill now.

        `workers` is meant for each address. Asked several times for every request, so kept for a moment.
        """
        now = self._clock()
        if self._limits is None or now >= self._limits_until:
            bounds = [replica.backend.limits for replica in self._replicas]
            self._limits = Limits(
                batch_size=min(limits.batch_size for limits in bounds),
                batch_tokens=min(limits.batch_tokens for limits in bounds),
                # With none, a batch finds out why.
                slots=max(1, sum(replica.share for replica in self._replicas)),
            )
            self._limits_until = now + WAIT
        return self._limits

    @property
    def replicas(self) -> Sequence[ReplicaState]:
        return [replica.state for replica in self._replicas]

    @property
    def retries(self) -> Retries:
        return self._retries

    def tend(self, position: int) -> None:
        self._trials.tend(self._replicas[position])

    def prepare(
        self, inputs: Sequence[Input], *, truncate: Truncate | None = None, prompt: str = ""
    ) -> list[Prepared]:
        """Make inputs ready for any of the backends; see `HttpBackend.prepare`."""
        return self.prepare_for(inputs, truncate=truncate, prompt=prompt, dimensions=None)

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
        """The same for vectors of `dimensions` numbers, which only all backends together may shorten."""
        dimensions = dimensions if self.shortens else None
        backends = self._known or [self._replicas[0].backend]
        # They may speak different protocols, and a batch goes to any of them: each has a say.
        speakers = {backend.speaks: backend for backend in backends}
        prepared: list[Prepared] = []
        for backend in speakers.values():
            prepared = backend.prepare_for(
                inputs,
                truncate=truncate,
                prompt=prompt,
                dimensions=dimensions,
                input_type=input_type,
                prompt_name=prompt_name,
            )
        return prepared

    @property
    def _known(self) -> list[HttpBackend]:
        return [replica.backend for replica in self._replicas if replica.in_service]

    @property
    def knows_prompts(self) -> bool:
        return False

    @property
    def forwards_ids(self) -> bool:
        return bool(self._known) and all(backend.forwards_ids for backend in self._known)

    @property
    def shortens(self) -> bool:
        return all(backend.shortens for backend in self._known)

    @property
    def always_normalizes(self) -> bool:
        return any(backend.always_normalizes for backend in self._known)

    def embed(self, batch: Sequence[Prepared], *, timeout: float) -> Vectors:
        """Vectors of a batch by whichever backend gives them; see `HttpBackend.embed` for the errors."""
        errand = Errand(self._clock() + timeout)
        self._budget.pay_in()
        while True:
            replica, seconds = self._roster.take(errand)
            try:
                vectors = replica.backend.embed(batch, timeout=seconds)
            except UpstreamRejected:
                self._note(replica, replica.succeed)
                raise
            except FailedOnInput as error:
                self._note(replica, replica.succeed)
                if len(batch) > 1:
                    raise
                errand.failed.append(replica)
                errand.blamed.append(replica)
                self._decide_on_text(errand, error)
            except QueueFull as error:
                self._note(replica, partial(replica.wait, error.retry_after or BACKOFF))
                self._decide(errand, error)
            except (UpstreamError, DeadlineExceeded) as error:
                # Too late in so little time says nothing about the backend.
                counts = seconds >= MIN_TRY or not _was_late(error)
                self._note(replica, partial(replica.fail, error.message, counts=counts))
                errand.failed.append(replica)
                if _had_the_batch(error):
                    errand.blamed.append(replica)
                self._decide(errand, error)
            except BaseException:
                self._note(replica, None)
                raise
            else:
                self._note(replica, replica.succeed)
                self._trials.settle()
                return vectors

    def check(self, *, timeout: float) -> None:
        """Return if a backend can be used now, after a look at each; raises UpstreamError."""
        for replica in self._replicas:
            self._trials.tend(replica)
        if not any(replica.in_service for replica in self._replicas):
            raise self._roster.nobody()

    def close(self) -> None:
        for replica in self._replicas:
            replica.backend.close()

    def _introduce(self, backend: HttpBackend) -> None:
        """The pool's model is this backend's."""
        self._info, self.kind = backend.info, backend.kind

    def _note(self, replica: Replica, note: Callable[[], None] | None) -> None:
        """A try has ended; its share may be another one now."""
        self._roster.give_back(replica, note)
        self._limits = None

    def _decide(self, errand: Errand, error: UpstreamError | QueueFull | DeadlineExceeded) -> None:
        """Raise what a batch that failed is answered, unless it may be tried again."""
        errand.tries += 1
        if errand.verdict is not None:
            raise errand.verdict
        errand.error = error
        with self._changed:
            if len(errand.blamed) == 2:
                for replica in errand.blamed:  # the batch may be to blame, or they are
                    replica.breaker.halve_failure()
                raise error
            if errand.tries == TRIES:
                raise error
            self._try_again(errand, error)

    def _decide_on_text(self, errand: Errand, error: FailedOnInput) -> None:
        """Raise what a text that a backend failed on is answered, unless another one may be asked."""
        errand.tries += 1
        if len(errand.blamed) == 2:
            raise error
        errand.verdict = errand.error = error
        with self._changed:
            self._try_again(errand, error)

    def _try_again(self, errand: Errand, error: ServiceError) -> None:
        """Raise `error` unless somebody is left to ask, and time and the budget allow it."""
        if not self._roster.candidates(errand) or self._clock() >= errand.deadline:
            raise error
        sent, denied = self._retries
        if not self._budget.take():
            self._retries = Retries(sent, denied + 1)
            raise error
        self._retries = Retries(sent + 1, denied)


def _had_the_batch(error: ServiceError) -> bool:
    """Whether a backend failed with the batch in its hands. 503 and 504 say "not now", not "not this"."""
    return isinstance(error, Broken) or (isinstance(error, Failed) and error.answered not in (503, 504))


def _was_late(error: ServiceError) -> bool:
    """Whether the time of a try was over, here or, told of it, in the backend."""
    return isinstance(error, DeadlineExceeded) or (isinstance(error, Failed) and error.answered == 504)
