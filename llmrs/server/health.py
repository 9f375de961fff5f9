"""Whether a model's backend can answer, known without asking it at request time.

An HTTP backend is watched twice: passively, by the outcome of real batches, and actively, by a
probe that never queues behind work. A backend that answers health checks and fails batches is down
all the same: after some failures in a row, only a vector counts as a sign of life. The probe runs
more often while the backend is down, so that recovery is noticed within about a second. A local
model is healthy once it is loaded.

A backend of several addresses looks after them itself (`Backend.tend`): here it is given the greenlets for
that, one for each, and it is healthy while one of them is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import gevent
from gevent.event import Event
from gevent.pool import Group

from llmrs.backends.base import Backend, ReplicaState
from llmrs.errors import EngineError, QueueFull, ServiceError

log = logging.getLogger("llmrs.server")

PROBE_SECONDS = 5.0
RECOVERY_PROBE_SECONDS = 1.0
PROBE_TIMEOUT = 3.0
FRESH_SECONDS = 4.0
"""A real answer this recent makes a probe superfluous."""

FAILURES = 3
"""So many batches failed in a row mean that the backend is down, whatever it says of itself."""

PROBE_TEXT = "hello"

TEND_SECONDS = 1.0
TEND_LIMIT = 20.0
"""How often an address is looked after (most often there is nothing to do), and how long at most: longer
than a trial."""


def health_of(backend: Backend) -> Health | HealthOfSeveral:
    """What knows how a backend is: of one address, or of several."""
    return HealthOfSeveral(backend) if backend.replicas else Health(backend)


class Health:
    """The last known state of one backend. `reason` is None while it is well."""

    replicas: Sequence[ReplicaState] = ()

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._answered_at = float("-inf")
        self._failures = 0
        self._doubted = Event()
        self._watching = Group()
        self.reason: str | None = None

    def watch(self) -> None:
        """Probe once now, and from then on in a greenlet of its own."""
        if self._backend.waits_on == "network":
            self.probe()
            self._watching.spawn(self._watch)

    def close(self) -> None:
        """Stop watching."""
        self._watching.kill(block=False)

    def note(self, error: ServiceError | None) -> None:
        """Take the outcome of a real batch into account.

        An input the backend refuses or fails on while it computes others, or a backend that is merely
        busy, is a healthy backend.
        """
        if error is None or error.poison or isinstance(error, (EngineError, QueueFull)):
            self._answered_at = time.monotonic()
            self._failures = 0
            self._set(None)
            return
        self._answered_at = float("-inf")
        self._failures += 1
        if self._backend.waits_on == "network":
            if self._failures >= FAILURES:
                self._set(str(error))
            self._doubted.set()

    def probe(self) -> None:
        """Ask the backend now, and remember what comes of it."""
        try:
            with gevent.Timeout(PROBE_TIMEOUT + 1, TimeoutError("the backend did not answer a probe")):
                self._ask()
        except (ServiceError, TimeoutError) as error:
            self._set(str(error))
        except Exception:
            log.exception("the probe of a backend failed unexpectedly")
            self._set("the probe failed")
        else:
            self._set(None)

    def _ask(self) -> None:
        self._backend.check(timeout=PROBE_TIMEOUT)
        if self._failures >= FAILURES:
            self._backend.embed(self._backend.prepare([PROBE_TEXT]), timeout=PROBE_TIMEOUT)
            self._failures = 0

    def _watch(self) -> None:
        while True:
            # A failed batch brings the next probe forward, but no flood of them a flood of probes.
            gevent.sleep(RECOVERY_PROBE_SECONDS)
            if self.reason is None:
                self._doubted.wait(PROBE_SECONDS - RECOVERY_PROBE_SECONDS)
            self._doubted.clear()
            if time.monotonic() - self._answered_at > FRESH_SECONDS:
                self.probe()

    def _set(self, reason: str | None) -> None:
        if reason is not None and self.reason is None:
            log.warning("backend down: %s", reason)
        elif reason is None and self.reason is not None:
            log.info("backend up again")
        self.reason = reason


class HealthOfSeveral:
    """How a backend of several addresses is, which it knows itself."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._watching = Group()

    @property
    def reason(self) -> str | None:
        states = self.replicas
        if any(replica.state == "up" for replica in states):
            return None
        known = next((replica.reason for replica in states if replica.reason), "none was asked yet")
        return f"none of the {len(states)} backends can be used: {known}"

    @property
    def replicas(self) -> Sequence[ReplicaState]:
        return self._backend.replicas

    def watch(self) -> None:
        """Look at every address, for a bounded time together, and keep looking after each."""
        positions = range(len(self.replicas))
        gevent.joinall([gevent.spawn(self._tend, position) for position in positions], timeout=PROBE_TIMEOUT)
        for position in positions:
            self._watching.spawn(self._keep_tending, position)

    def close(self) -> None:
        """Stop looking."""
        self._watching.kill(block=False)

    def note(self, error: ServiceError | None) -> None:
        """Nothing: the backend has seen each address' part in it."""

    def _keep_tending(self, position: int) -> None:
        while True:
            gevent.sleep(TEND_SECONDS)
            self._tend(position)

    def _tend(self, position: int) -> None:
        try:
            # Its own deadlines do not hold for the resolution of a host name.
            with gevent.Timeout(TEND_LIMIT, TimeoutError("a backend held its trial up")):
                self._backend.tend(position)
        except TimeoutError as error:
            log.warning("%s", error)
        except Exception:
            log.exception("looking after a backend failed unexpectedly")
