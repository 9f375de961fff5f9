"""The batch collector: one queue per model, shared by all requests of the process.

The rules of this file:

- It knows no backend, no HTTP and no event loop. It is a state machine whose methods are called
  from one thread: `admit`, `submit`, `cancel` by requests, `dispatch` by the loop when it is idle,
  `finish` and `fail` by whoever ran a batch. `start`, `wake` and `clock` are handed in.
- There is no timer and no wait window. When a slot is free and something waits, `wake` asks the
  loop to call `dispatch` once it has drained its readable sockets, so that everything that
  arrived in the same tick shares the batch.
- One text is the unit. A `Group` is one request's texts; a batch takes runs of texts (`Span`)
  from several groups. Who may wait is `admission`'s to say, who is next `fairqueue`'s, and `batch`
  finds the texts that are the same.
- Every admitted group gets exactly one answer on every path: `notify` is called once it is there, and
  before that when a group that had to wait at the door has been let in.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import numpy as np

from llmrs.admission import Admission
from llmrs.batch import Batch, Computing, Share
from llmrs.embeddings import Limits, Prepared, Vectors
from llmrs.errors import DeadlineExceeded, InternalError, ServiceError, UpstreamError
from llmrs.fairqueue import FairQueue, Group, Span, is_bulk

PROBE_AFTER = 0.005
"""Seconds a group must have waited before its client is probed: a probe is a system call."""

DROPS = ("deadline", "client_gone", "failed")
"""Why texts are dropped from the queue: their request is late, nobody reads its answer, or it has
been answered with an error already (another of its texts failed, or the process ends)."""


class ClientGone(ServiceError):
    """The client has closed its connection; nobody reads the answer."""

    status = 499
    code = "client_gone"


class Collector:
    """Forms batches from the texts of all waiting requests and hands the rows back.

    Args:
        start: begins to compute a batch and returns at once; later, on the collector's thread,
            `finish(batch, vectors)` or `fail(batch, error)` is called for it.
        wake: asks for one call of `dispatch` as soon as the loop is idle. Repeated asks are fine.
        limits: asked anew for every batch, because a backend may learn its limits late.
        queue_capacity: most requests that may be prepared and wait; one more waits at the door.
        queue_seconds: most seconds that a request may be predicted to wait.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        start: Callable[[Batch], None],
        wake: Callable[[], None],
        limits: Callable[[], Limits],
        queue_capacity: int,
        queue_seconds: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._start = start
        self._wake = wake
        self._limits = limits
        self._clock = clock
        self._admission = Admission(queue_capacity, queue_seconds, self._alive)
        self._queue = FairQueue(self._alive, self._admission.leave)
        self._retries: deque[list[Span]] = deque()
        self._running: set[Batch] = set()
        self._computing = Computing()
        self._closed: Callable[[], ServiceError] | None = None
        self._held = False
        self.dropped_texts: Counter[str] = Counter()
        """Texts so far that were queued and not computed, by the reasons in DROPS."""

    @property
    def waiting(self) -> int:
        """Requests that wait at the door, or inside: let in, not all of their texts in a batch."""
        return self._admission.requests + self._admission.at_door

    @property
    def at_door(self) -> int:
        """Requests that wait for a place of the queue."""
        return self._admission.at_door

    @property
    def running(self) -> int:
        """Batches being computed."""
        return len(self._running)

    @property
    def oldest_deadline(self) -> float | None:
        """The earliest deadline of a batch being computed."""
        return min((batch.deadline for batch in self._running), default=None)

    @property
    def waiting_texts(self) -> int:
        """Texts that wait for a batch."""
        return self._queue.texts

    @property
    def shared_texts(self) -> int:
        """Texts so far that got the vector of an identical one."""
        return self._computing.shared

    @property
    def waiting_tokens(self) -> int:
        """Tokens that wait for a batch; an estimate for requests whose texts are not tokenized yet."""
        return self._admission.tokens

    def admit(
        self,
        notify: Callable[[], None],
        deadline: float,
        abandoned: Callable[[], bool] | None = None,
        *,
        n_texts: int = 1,
        n_tokens: int = 1,
    ) -> Group:
        """Give a request a place in the queue, before any work is done for it, or let it wait for one.

        One that is `at_door` must not be submitted before it has been let in.

        Args:
            notify: called when the group is done, and when it is let in.
            deadline: on the collector's clock.
            abandoned: whether its client is gone.
            n_texts, n_tokens: its size; the tokens may be an estimate.

        Raises:
            QueueFull: too much waits, see `admission`.
        """
        limits = self._limits()
        group = Group(notify, deadline, abandoned, is_bulk(n_texts, n_tokens, limits))
        self._admission.enter(group, n_tokens, self._clock(), limits)
        return group

    def try_admit(
        self,
        notify: Callable[[], None],
        deadline: float,
        abandoned: Callable[[], bool] | None = None,
        *,
        n_texts: int = 1,
        n_tokens: int = 1,
    ) -> Group | None:
        """The same for a request that may try again: None where it would be refused."""
        limits = self._limits()
        group = Group(notify, deadline, abandoned, is_bulk(n_texts, n_tokens, limits))
        return group if self._admission.tries(group, n_tokens, self._clock(), limits) else None

    def close_door(self, crowded: Callable[[], bool]) -> None:
        """Turn those away who would have to wait for a place, whenever it is crowded."""
        self._admission.crowded = crowded

    def turn_away(self, group: Group) -> None:
        """Answer a group that has waited at the door for as long as it may."""
        self.cancel(group, self._admission.turn_away(group, self._clock(), self._limits()))

    def groups(self) -> Iterator[Group]:
        """All that wait, at the door and inside."""
        return chain(self._admission.door(), self._queue)

    def look_after(self, group: Group) -> None:
        """Give the place of a group back if its client is gone or its time is over."""
        self._alive(group)

    def submit(self, group: Group, prepared: Sequence[Prepared], batch_cap: int = 0) -> None:
        """Queue an admitted group's texts (at least one); at most `batch_cap` share a batch, if set."""
        if self._closed:
            self._settle(group, self._closed())
            return
        group.prepared = prepared
        group.n_tokens = [text.n_tokens for text in prepared]
        group.remaining = len(prepared)
        group.batch_cap = batch_cap
        group.queued_at = self._clock()
        n_tokens = sum(group.n_tokens)
        self._admission.recount(group, n_tokens, is_bulk(len(prepared), n_tokens, self._limits()))
        self._queue.add(group, group.queued_at)
        self._wake_if_useful()

    def cancel(self, group: Group, error: ServiceError | None = None) -> None:
        """Drop a group: its texts that are not computed yet never will be. Harmless when done."""
        if not group.done:
            self._settle(group, error or ClientGone("the request was given up"))

    def close(self, error: Callable[[], ServiceError]) -> None:
        """Answer all that waits or comes with an error of its own. Running batches may still finish."""
        self._closed = error
        self.refuse(error)

    def refuse(self, error: Callable[[], ServiceError]) -> None:
        """Answer all that waits with an error of its own."""
        self.refuse_at_door(error)
        for group in self._queue.clear():
            self._settle(group, error())
        while self._retries:
            for span in self._retries.popleft():
                self._settle(span.group, error())

    def refuse_at_door(self, error: Callable[[], ServiceError]) -> None:
        """Answer all that waits at the door with an error of its own."""
        for group in tuple(self._admission.door()):
            self._settle(group, error())

    def hold(self) -> None:
        """Begin no more batches until `go_on`; those being computed end as ever."""
        self._held = True

    def go_on(self) -> None:
        """Begin batches again."""
        self._held = False
        self._wake_if_useful()

    def abort(self, error: Callable[[], ServiceError]) -> None:
        """Answer all that waits, comes or is being computed with an error of its own."""
        for batch in tuple(self._running):
            self.fail(batch, error())
        self.close(error)

    def dispatch(self) -> None:
        """Start batches while a slot is free and something waits."""
        limits = self._limits()
        while self.running < limits.slots and not self._held:
            now = self._clock()
            spans = self._next_retry() or self._next_in_line(limits, now)
            if not spans:
                return
            batch = self._computing.form(spans, now)
            if len(batch):
                self._run(batch)

    def finish(self, batch: Batch, vectors: Vectors) -> None:
        """Hand the rows of a batch to their groups.

        With an efficient batch waiting, the next one starts first, so that the engine computes
        while the answers are written; with less, it is better to answer and see who comes back.
        """
        if len(vectors.matrix) != len(batch):
            self.fail(batch, UpstreamError("the backend gave another number of vectors than texts"))
            return
        if not self._release(batch):
            return
        self._admission.speed.measure(batch.n_tokens, len(batch), self._clock() - batch.started_at)
        try:
            if self._queue.efficient_batch_waits(self._limits(), self._clock()):
                self.dispatch()
        finally:
            for share in (*batch.shares, *batch.joined):
                self._deliver(share, vectors)
            self._wake_if_useful()

    def fail(self, batch: Batch, error: ServiceError) -> None:
        """Answer a failed batch: split it where one text may be at fault, else fail its groups."""
        if not self._release(batch):
            return
        if error.poison and len(batch) > 1:
            self._retries.extend(half for half in batch.halves() if half)
        else:
            for (group, start, _), _ in batch.shares:
                self._settle(group, error.about(group.input_of(start) if error.poison else None))
        # Whoever came later has a deadline of their own, and maybe a better neighbourhood.
        if batch.joined:
            self._retries.append([share.span for share in batch.joined])
        self._wake_if_useful()

    # -- starting a batch -------------------------------------------------------------------

    def _next_retry(self) -> list[Span]:
        """Texts of a failed batch, less those whose request has been answered since."""
        while self._retries:
            spans = [span for span in self._retries.popleft() if self._alive(span.group)]
            if spans:
                return spans
        return []

    def _next_in_line(self, limits: Limits, now: float) -> tuple[Span, ...]:
        """Texts that wait for their first batch."""
        speed = self._admission.speed.seconds_per_token
        spans = self._queue.take(limits, speed, now, limits.slots - self.running)
        for span in spans:
            self._admission.take(span.group, span.n_tokens)
        return spans

    def _alive(self, group: Group) -> bool:
        """Whether a group still wants its vectors; one that does not is answered and dropped."""
        if group.done:
            return False
        now = self._clock()
        if now >= group.deadline:
            self._settle(group, DeadlineExceeded("the request waited longer than it may take"))
        elif group.abandoned and now - group.queued_at >= PROBE_AFTER and group.abandoned():
            self._settle(group, ClientGone("the client closed the connection"))
        return not group.done

    def _run(self, batch: Batch) -> None:
        self._running.add(batch)
        try:
            self._start(batch)
        except ServiceError as error:
            self.fail(batch, error)
        except BaseException:
            self.fail(batch, InternalError("the batch could not be started"))
            raise

    # -- answering --------------------------------------------------------------------------

    def _deliver(self, share: Share, vectors: Vectors) -> None:
        (group, start, stop), row = share
        if group.done:
            return
        n = stop - start
        rows = vectors.matrix[row : row + n]
        if group.matrix is None:
            # A request whose texts are the whole batch takes the batch's matrix as it is.
            whole = len(rows) == len(vectors.matrix) == len(group.prepared)
            group.matrix = rows if whole else np.empty((len(group.prepared), rows.shape[1]), np.float32)
        if rows.shape[1] != group.matrix.shape[1]:
            self._settle(group, UpstreamError("the backend's vectors changed their width"))
            return
        if rows is not group.matrix:
            group.matrix[start:stop] = rows
        if vectors.n_tokens is not None:
            group.n_tokens[start:stop] = vectors.n_tokens[row : row + n]
        if vectors.cut is not None:
            group.cut += sum(vectors.cut[row : row + n])
        group.batch_texts = max(group.batch_texts, len(vectors.matrix))
        group.remaining -= n
        if group.remaining == 0:
            self._settle(group, None)

    def _settle(self, group: Group, error: ServiceError | None) -> None:
        """The one place where a group is answered, once."""
        if group.done:
            return
        group.done = True
        group.error = error
        group.finished_at = self._clock()
        if error is not None and (left := len(group.prepared) - group.next):
            self.dropped_texts[_drop_reason(group, error)] += left
        self._admission.leave(group)
        group.notify()

    def _release(self, batch: Batch) -> bool:
        """Free the batch's slot; False if that was done before, so no batch is answered twice."""
        if batch not in self._running:
            return False
        self._running.remove(batch)
        self._computing.release(batch)
        return True

    def _wake_if_useful(self) -> None:
        if self._held:
            return
        if (self._queue or self._retries) and self.running < self._limits().slots:
            self._wake()


def _drop_reason(group: Group, error: ServiceError) -> str:
    """One of DROPS. A request that gives up by itself at its deadline counts as late."""
    if group.finished_at >= group.deadline:
        return "deadline"
    return "client_gone" if isinstance(error, ClientGone) else "failed"
