"""The batch collector: one queue per model, shared by all requests of the process.

The rules of this file:

- It knows no backend, no HTTP and no event loop. It is a state machine whose methods are called
  from one thread: `admit`, `submit`, `cancel` by requests, `dispatch` by the loop when it is idle,
  `finish` and `fail` by whoever ran a batch. `start`, `wake` and `clock` are handed in.
- There is no timer and no wait window. When a slot is free and something waits, `wake` asks the
  loop to call `dispatch` once it has drained its readable sockets, so that everything that
  arrived in the same tick shares the batch.
- One text is the unit. A `Group` is one request's texts; a batch takes runs of texts (`Span`)
  from several groups, and every group waiting gets its fair share of each batch.
- Every admitted group gets exactly one answer on every path: `notify` is called once.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from llmrs.embeddings import Limits, Matrix, Prepared, Vectors
from llmrs.errors import DeadlineExceeded, InternalError, QueueFull, ServiceError, UpstreamError

PROBE_AFTER = 0.005
"""Seconds a group must have waited before its client is probed: a probe is a system call."""

SMOOTHING = 0.1
"""Weight of the newest batch in the running mean of seconds per text."""


class ClientGone(ServiceError):
    """The client has closed its connection; nobody reads the answer."""

    status = 499
    code = "client_gone"


class Group:
    """One request in the collector: its prepared texts and, row by row, their vectors.

    Attributes:
        matrix: float32 [n, dimensions], complete once `done` and `error` is None.
        n_tokens: tokens read per text.
        error: why there is no matrix.
        done: whether it was answered. A done group's remaining texts are skipped.
        queued_at, started_at, finished_at: clock readings, in seconds; 0 until they happen.
    """

    __slots__ = (
        "abandoned", "batch_cap", "deadline", "done", "error", "finished_at", "matrix", "n_tokens",
        "next", "notify", "prepared", "queued_at", "remaining", "started_at", "waiting",
    )  # fmt: skip

    def __init__(
        self, notify: Callable[[], None], deadline: float, abandoned: Callable[[], bool] | None
    ) -> None:
        self.notify = notify
        self.deadline = deadline
        self.abandoned = abandoned
        self.batch_cap = 0
        self.prepared: Sequence[Prepared] = ()
        self.n_tokens: list[int] = []
        self.matrix: Matrix | None = None
        self.error: ServiceError | None = None
        self.done = False
        self.waiting = True  # it occupies a place of the queue
        self.next = 0  # the first text that is in no batch yet
        self.remaining = 0  # texts without a vector
        self.queued_at = self.started_at = self.finished_at = 0.0


class Span(NamedTuple):
    """Texts `start` to `stop` of a group, as part of a batch."""

    group: Group
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


class Batch:
    """Texts of one or more groups that go to the backend together."""

    __slots__ = ("spans", "started_at")

    def __init__(self, spans: tuple[Span, ...], started_at: float) -> None:
        self.spans = spans
        self.started_at = started_at

    def __len__(self) -> int:
        return sum(map(len, self.spans))

    @property
    def prepared(self) -> list[Prepared]:
        """The texts in batch order: row i of the batch's vectors is the vector of `prepared[i]`."""
        return [text for group, start, stop in self.spans for text in group.prepared[start:stop]]

    @property
    def deadline(self) -> float:
        """When the last of its requests gives up, on the collector's clock."""
        return max(span.group.deadline for span in self.spans)

    def halves(self) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
        """Its texts in two batches of almost equal size, to find out which one is at fault."""
        left: list[Span] = []
        right: list[Span] = []
        room = len(self) // 2
        for group, start, stop in self.spans:
            cut = min(stop, start + room)
            if cut > start:
                left.append(Span(group, start, cut))
            if cut < stop:
                right.append(Span(group, cut, stop))
            room -= cut - start
        return tuple(left), tuple(right)


class Collector:
    """Forms batches from the texts of all waiting requests and hands the rows back.

    Args:
        start: begins to compute a batch and returns at once; later, on the collector's thread,
            `finish(batch, vectors)` or `fail(batch, error)` is called for it.
        wake: asks for one call of `dispatch` as soon as the loop is idle. Repeated asks are fine.
        limits: asked anew for every batch, because a backend may learn its limits late.
        queue_capacity: most requests that may wait; one more is refused.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        start: Callable[[Batch], None],
        wake: Callable[[], None],
        limits: Callable[[], Limits],
        queue_capacity: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._start = start
        self._wake = wake
        self._limits = limits
        self._capacity = queue_capacity
        self._clock = clock
        self._queue: deque[Group] = deque()
        self._retries: deque[tuple[Span, ...]] = deque()
        self._running: set[Batch] = set()
        self._closed: Callable[[], ServiceError] | None = None
        self._seconds_per_text = 0.0
        self.waiting = 0
        """Requests that hold a place of the queue: admitted, not all of their texts in a batch."""

    @property
    def running(self) -> int:
        """Batches being computed."""
        return len(self._running)

    def admit(
        self,
        notify: Callable[[], None],
        deadline: float,
        abandoned: Callable[[], bool] | None = None,
    ) -> Group:
        """Give a request a place in the queue, before any work is done for it.

        Raises:
            QueueFull: `queue_capacity` requests wait. Retry-After is the time the present backlog
                needs at the present speed.
        """
        if self.waiting >= self._capacity:
            raise QueueFull(
                f"{self.waiting} requests are waiting already; try again later",
                retry_after=max(self.backlog_seconds(), 1.0),
            )
        self.waiting += 1
        return Group(notify, deadline, abandoned)

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
        self._queue.append(group)
        self._wake_if_useful()

    def cancel(self, group: Group, error: ServiceError | None = None) -> None:
        """Drop a group: its texts that are not computed yet never will be. Harmless when done."""
        if not group.done:
            self._settle(group, error or ClientGone("the request was given up"))

    def close(self, error: Callable[[], ServiceError]) -> None:
        """Answer all that waits or comes with an error of its own. Running batches may still finish."""
        self._closed = error
        while self._queue:
            self._settle(self._queue.popleft(), error())
        while self._retries:
            for span in self._retries.popleft():
                self._settle(span.group, error())

    def backlog_seconds(self) -> float:
        """How long the texts waiting now will take, from the measured speed."""
        texts = sum(len(group.prepared) - group.next for group in self._queue)
        return texts * self._seconds_per_text / max(1, self._limits().slots)

    def dispatch(self) -> None:
        """Start batches while a slot is free and something waits."""
        limits = self._limits()
        while self.running < limits.slots:
            spans = self._next_retry() or self._take(limits)
            if not spans:
                return
            self._run(Batch(spans, self._clock()))

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
        if self._efficient_batch_waits():
            self.dispatch()
        row = 0
        for span in batch.spans:
            self._deliver(span, vectors, row)
            row += len(span)
        self._wake_if_useful()

    def fail(self, batch: Batch, error: ServiceError) -> None:
        """Answer a failed batch: split it where one text may be at fault, else fail its groups."""
        if not self._release(batch):
            return
        if error.poison and len(batch) > 1:
            self._retries.extend(half for half in batch.halves() if half)
        else:
            for group, start, _ in batch.spans:
                self._settle(group, error.about(start) if error.poison else error.about(None))
        self._wake_if_useful()

    # -- forming a batch --------------------------------------------------------------------

    def _take(self, limits: Limits) -> tuple[Span, ...]:
        """The next batch: a fair share from every waiting group in turn, within the budget.

        Each pass gives each group an equal number of the places left, at least one, so a request
        of one text is never behind more than a batch or two of a request of thousands.
        """
        taken: dict[Group, Span] = {}
        budget = _Budget(limits)
        share = max(1, limits.batch_size // max(1, len(self._queue)))
        capped: list[Group] = []
        while self._queue and budget.open:
            group = self._queue.popleft()
            if not self._alive(group):
                continue
            start = taken[group].start if group in taken else group.next
            room = share if not group.batch_cap else min(share, start + group.batch_cap - group.next)
            group.next += budget.take(group.prepared, group.next, room)
            if group.next > start:
                taken[group] = Span(group, start, group.next)
            if group.next == len(group.prepared):
                self._leave(group)
            elif group.batch_cap and group.next - start >= group.batch_cap:
                capped.append(group)
            elif budget.open:
                self._queue.append(group)
            else:
                self._put_back(group, taken)
        self._queue.extend(capped)
        return tuple(taken.values())

    def _put_back(self, group: Group, taken: dict[Group, Span]) -> None:
        """Who got nothing from this batch is first in the next; who got something queues again."""
        if group in taken:
            self._queue.append(group)
        else:
            self._queue.appendleft(group)

    def _next_retry(self) -> tuple[Span, ...]:
        """Half of a failed batch, less the texts whose request has been answered since."""
        while self._retries:
            spans = tuple(span for span in self._retries.popleft() if not span.group.done)
            if spans:
                return spans
        return ()

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
        for span in batch.spans:
            span.group.started_at = span.group.started_at or batch.started_at
        try:
            self._start(batch)
        except ServiceError as error:
            self.fail(batch, error)
        except BaseException:
            self.fail(batch, InternalError("the batch could not be started"))
            raise

    # -- answering --------------------------------------------------------------------------

    def _deliver(self, span: Span, vectors: Vectors, row: int) -> None:
        group, start, stop = span
        if group.done:
            return
        rows = vectors.matrix[row : row + len(span)]
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
            group.n_tokens[start:stop] = vectors.n_tokens[row : row + len(span)]
        group.remaining -= len(span)
        if group.remaining == 0:
            self._settle(group, None)

    def _settle(self, group: Group, error: ServiceError | None) -> None:
        """The one place where a group is answered, once."""
        if group.done:
            return
        group.done = True
        group.error = error
        group.finished_at = self._clock()
        self._leave(group)
        group.notify()

    def _leave(self, group: Group) -> None:
        """Give the place in the queue back, once."""
        if group.waiting:
            group.waiting = False
            self.waiting -= 1

    def _release(self, batch: Batch) -> bool:
        """Free the batch's slot; False if that was done before, so no batch is answered twice."""
        if batch not in self._running:
            return False
        self._running.remove(batch)
        per_text = (self._clock() - batch.started_at) / len(batch)
        known = self._seconds_per_text
        self._seconds_per_text = known + SMOOTHING * (per_text - known) if known else per_text
        return True

    def _wake_if_useful(self) -> None:
        if (self._queue or self._retries) and self.running < self._limits().slots:
            self._wake()

    def _efficient_batch_waits(self) -> bool:
        limits = self._limits()
        texts, tokens = limits.batch_size, limits.efficient_tokens or sys.maxsize
        for group in self._queue:
            texts -= len(group.prepared) - group.next
            tokens -= sum(group.n_tokens[group.next :])
            if texts <= 0 or tokens <= 0:
                return True
        return False


class _Budget:
    """How much still fits into a batch: a number of texts, and tokens after padding."""

    def __init__(self, limits: Limits) -> None:
        self._texts_left = limits.batch_size
        self._max_tokens = limits.batch_tokens
        self._texts = 0
        self._longest = 0
        self.open = True

    def take(self, prepared: Sequence[Prepared], start: int, room: int) -> int:
        """How many of `prepared[start:]`, `room` at most, still fit.

        The first text of a batch always fits: it may be longer than the whole budget.
        """
        count = 0
        for text in prepared[start : start + min(room, self._texts_left)]:
            longest = max(self._longest, text.n_tokens)
            if self._texts and longest * (self._texts + 1) > self._max_tokens:
                self.open = False
                break
            self._longest = longest
            self._texts += 1
            count += 1
        self._texts_left -= count
        self.open = self.open and self._texts_left > 0
        return count
