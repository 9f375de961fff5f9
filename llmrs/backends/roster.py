"""Who of several backends gets a batch, and how long it may take there.

The one with the most room among those in service that did not fail on the batch; among equals, the one whose
last turn is longest ago. With none in service, the batch itself holds a trial that is due.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from llmrs.backends.base import MIN_TRY
from llmrs.backends.http import TRIES
from llmrs.backends.refusals import FailedOnInput
from llmrs.backends.replica import Replica
from llmrs.backends.trials import TRIAL_SECONDS, Trials
from llmrs.errors import DeadlineExceeded, QueueFull, ServiceError, UpstreamError

WAIT = 0.1
"""Seconds after which a batch that waits for room looks again, because shares change by time alone."""


class Errand:
    """A batch on its way.

    Attributes:
        deadline: on the pool's clock.
        tries: how many have ended.
        failed: who is not asked again.
        blamed: those of them that had the batch in their hands.
        error: how the last try ended.
        verdict: that a backend which embeds other texts failed on its only one. The next try is its last.
    """

    __slots__ = ("blamed", "deadline", "error", "failed", "tries", "verdict")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.tries = 0
        self.failed: list[Replica] = []
        self.blamed: list[Replica] = []
        self.error: ServiceError | None = None
        self.verdict: FailedOnInput | None = None


class Roster:
    """The replicas of a pool, their lock, and whose turn it is.

    Args:
        changed: the lock, and told of what changes.
        wait: parks the caller, who holds the lock, for some seconds or until something changes.
    """

    def __init__(
        self,
        replicas: Sequence[Replica],
        trials: Trials,
        changed: threading.Condition,
        clock: Callable[[], float],
        wait: Callable[[float], object],
    ) -> None:
        self._replicas = replicas
        self._trials = trials
        self._changed = changed
        self._clock = clock
        self._wait = wait
        self._turn = 0

    def take(self, errand: Errand) -> tuple[Replica, float]:
        """A place for a batch, to be given back, and the seconds that it has there.

        Raises:
            UpstreamError: there is no backend to ask; the error of the last try if there was one.
            QueueFull: all want to be left alone for longer than the batch may wait.
            DeadlineExceeded: none had room in time.
        """
        while True:
            with self._changed:
                found = self._find(errand)
            if found is not None:
                return found
            if errand.error is not None:
                raise errand.error
            if not self._recover(errand.deadline):
                raise self.nobody()

    def give_back(self, replica: Replica, note: Callable[[], None] | None) -> None:
        """Free a place, and note how it went."""
        with self._changed:
            replica.running -= 1
            if note is not None:
                note()
            self._changed.notify_all()

    def candidates(self, errand: Errand) -> list[Replica]:
        """Who may still be asked, now or later."""
        return [replica for replica in self._replicas if replica.in_service and replica not in errand.failed]

    def nobody(self) -> UpstreamError:
        """That no backend is in service, and why; it names no address, because clients read it."""
        down = [replica for replica in self._replicas if not replica.in_service]
        reasons = [replica.reason or "they serve other models" for replica in down] or ["none was in time"]
        return UpstreamError(f"none of the {len(self._replicas)} backends can be used: {reasons[0]}")

    def _find(self, errand: Errand) -> tuple[Replica, float] | None:
        """Wait for a place; None where there is no candidate left."""
        while candidates := self.candidates(errand):
            left = errand.deadline - self._clock()
            if left <= 0:
                raise errand.error or DeadlineExceeded("no backend was free in time")
            if free := [replica for replica in candidates if replica.running < replica.share]:
                replica = self._seat(free)
                # A try has MIN_TRY at least, if that is left.
                tries = min(TRIES - errand.tries, len(candidates))
                return replica, max(left / tries, min(left, MIN_TRY))
            pause = min(replica.pause for replica in candidates)
            if pause >= left:
                raise QueueFull("the backends are busy", retry_after=pause)
            self._wait(min(WAIT, left))
        return None

    def _seat(self, free: Sequence[Replica]) -> Replica:
        """Give a batch to one of those that have room."""
        count = len(self._replicas)

        def load(replica: Replica) -> tuple[float, int]:
            waited = (self._replicas.index(replica) - self._turn) % count
            return replica.running / replica.share, waited

        replica = min(free, key=load)
        replica.running += 1
        replica.tries += 1
        self._turn = self._replicas.index(replica) + 1
        return replica

    def _recover(self, deadline: float) -> bool:
        """With none in service: hold a trial that is due, or wait for one; False if there is none."""
        with self._changed:
            left = deadline - self._clock()
            if left <= 0:
                return False
            due = next((replica for replica in self._replicas if replica.breaker.begin_trial()), None)
            if due is None:
                on_trial = any(replica.breaker.state == "half-open" for replica in self._replicas)
                if on_trial:
                    self._wait(min(WAIT, left))
                return on_trial or any(replica.in_service for replica in self._replicas)
        self._trials.try_out(due, min(left, TRIAL_SECONDS))
        return True
