"""Which replicas may be used: trials at first contact and at each recovery, and a look from time to time.

A trial embeds the fixed texts and compares them with the vectors of the peers. As long as no client got a
vector, the reference is the majority's or the first address's; from then on it stands, because another one
would silently change the model under an index. A replica that differs is refused and says with whom the
others agree.

Trials run beside the batches, with the lock held only for looking and noting.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from llmrs.backends import fingerprint
from llmrs.backends.http import HttpBackend, Unanswered
from llmrs.backends.replica import Replica
from llmrs.embeddings import Matrix, Prepared
from llmrs.errors import DeadlineExceeded, QueueFull, ServiceError

TRIAL_SECONDS = 10.0
"""Longest trial. A recovering model computes six texts slowly, but not for longer."""

CHECK_SECONDS = 3.0
"""Longest health check, which computes nothing."""

FRESH_SECONDS = 4.0
"""An answer this recent makes a check superfluous."""

PROVE_SECONDS = 60.0
"""How long a fingerprint is believed: a backend may restart with another model without being missed."""


class Trials:
    """Tries and watches `replicas`.

    Args:
        changed: the lock of their pool, and told of what changes.
        introduce: is handed the backend whose vectors are the reference.
    """

    def __init__(
        self,
        replicas: Sequence[Replica],
        changed: threading.Condition,
        clock: Callable[[], float],
        introduce: Callable[[HttpBackend], None],
    ) -> None:
        self._replicas = replicas
        self._changed = changed
        self._clock = clock
        self._introduce = introduce
        self._reference: Matrix | None = None
        self._settled = False

    def settle(self) -> None:
        """A client got vectors: the reference stands from now on."""
        self._settled = True

    def tend(self, replica: Replica) -> None:
        """What is due for a replica now: its trial, or a look at it."""
        with self._changed:
            on_trial = replica.breaker.begin_trial()
            now = self._clock()
            unproved = replica.doubted or now - replica.proved_at >= PROVE_SECONDS
            quiet = now - replica.alive_at >= FRESH_SECONDS
        if on_trial:
            self.try_out(replica)
        elif replica.in_service and unproved:
            self._examine(replica, TRIAL_SECONDS)
        elif replica.in_service and quiet:
            self._check(replica)

    def try_out(self, replica: Replica, timeout: float = TRIAL_SECONDS) -> None:
        """The trial of a replica, which its breaker has begun."""
        replica.backend.forget()
        self._examine(replica, timeout)

    def _examine(self, replica: Replica, timeout: float) -> None:
        """Take a replica in, take it out, or refuse it, as the fixed texts' vectors are."""
        try:
            found = self._ask(replica, timeout)
        except (DeadlineExceeded, Unanswered, QueueFull) as error:
            with self._changed:
                if not replica.in_service:
                    replica.take_out(error.message)
                elif not isinstance(error, QueueFull):  # it may be busy, which it did not say
                    replica.count_failure(error.message)
                self._changed.notify_all()
        except ServiceError as error:
            self._take_out(replica, error.message)
        except BaseException:
            self._take_out(replica, "its trial was broken off")
            raise
        else:
            with self._changed:
                replica.embedded(found)
                self._judge(replica)
                self._changed.notify_all()

    def _ask(self, replica: Replica, timeout: float) -> Matrix:
        until = self._clock() + timeout
        batch = replica.backend.prepare(fingerprint.TEXTS)
        matrix = self._embed(replica.backend, batch, until)
        # One that embeds and says that it is not well would be taken out again at once.
        replica.backend.check(timeout=max(until - self._clock(), 0.001))
        return fingerprint.fingerprint(matrix)

    def _embed(self, backend: HttpBackend, batch: Sequence[Prepared], until: float) -> Matrix:
        """Vectors of the fixed texts, in parts where the backend takes fewer at once."""
        try:
            return backend.embed(batch, timeout=max(until - self._clock(), 0.001)).matrix
        except ServiceError as error:
            if not error.poison or len(batch) == 1:
                raise
        middle = len(batch) // 2
        return np.concatenate(
            [self._embed(backend, part, until) for part in (batch[:middle], batch[middle:])]
        )

    def _check(self, replica: Replica) -> None:
        try:
            replica.backend.check(timeout=CHECK_SECONDS)
        except Unanswered as error:
            with self._changed:
                replica.count_failure(error.message)
        except ServiceError as error:
            self._take_out(replica, error.message)
        else:
            replica.alive_at = self._clock()

    def _take_out(self, replica: Replica, reason: str) -> None:
        with self._changed:
            replica.take_out(reason)
            self._changed.notify_all()

    def _judge(self, tried: Replica) -> None:
        """Compare a replica that was tried with the reference, which is found anew if it is not settled."""
        if not self._settled:
            prints = [replica.print for replica in self._replicas]
            founder = fingerprint.elect(prints)
            assert founder is not None  # one was tried just now
            self._reference = prints[founder]
            self._introduce(self._replicas[founder].backend)
            for replica in self._replicas:
                if replica is not tried and replica.print is not None:
                    self._compare(replica)
        self._compare(tried)

    def _compare(self, replica: Replica) -> None:
        assert self._reference is not None
        assert replica.print is not None
        differs = fingerprint.difference(replica.print, self._reference)
        if differs is None:
            replica.take_in()
            return
        peers = [
            peer.url
            for peer in self._replicas
            if peer.print is not None and fingerprint.difference(peer.print, self._reference) is None
        ]
        standard = f"those of {', '.join(peers)}" if peers else "those given out since the start"
        replica.refuse(f"its vectors are another model's than {standard} ({differs})")
