"""Who is next: the requests that wait for the engine, and how they share it.

Knows texts, tokens and time, and nothing of engines, loops or HTTP. Two lines wait:

- *Interactive* requests fit into one batch. They share it fairly, first come first.
- *Bulk* requests need several. While an interactive request waits or came within the last second,
  bulk work goes in small helpings (`HELPING_SECONDS` at the measured speed) between the batches of
  the others, so that nobody waits long for a batch that has begun. Alone, it goes in full batches.

Neither line can starve the other: while both wait, they take turns.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from llmrs.embeddings import Limits, Matrix, Prepared
from llmrs.errors import ServiceError

HELPING_SECONDS = 0.010
"""How long a batch of bulk work may take while interactive requests come. A text of twenty tokens
takes 2 to 4 ms alone, and waits half of this on average."""

CONTENTION_SECONDS = 1.0
"""How long after an interactive request bulk work stays in small helpings: the next may follow."""


class Group:
    """One request in the collector: its prepared texts and, row by row, their vectors.

    Attributes:
        bulk: whether it needs several batches; an estimate before its texts are prepared.
        at_door: whether it waits for a place of the queue.
        waiting: whether it holds one: let in, not all of its texts in a batch.
        backlog: its tokens that are in no batch yet.
        batch_texts: texts of the largest batch so far that some of its vectors came from.
        call_headers: header lines for a backend that computes for this request alone.
        matrix: float32 [n, dimensions], complete once `done` and `error` is None.
        n_tokens: tokens read per text.
        cut: how many of its texts the backend has cut.
        error: why there is no matrix.
        done: whether it was answered. A done group's remaining texts are skipped.
        queued_at, started_at, finished_at: clock readings, in seconds; 0 until they happen.
    """

    __slots__ = (
        "abandoned", "at_door", "backlog", "batch_cap", "batch_texts", "bulk", "call_headers", "cut",
        "deadline", "done", "error", "finished_at", "matrix", "n_tokens", "next", "notify", "prepared",
        "queued_at", "remaining", "started_at", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        notify: Callable[[], None],
        deadline: float,
        abandoned: Callable[[], bool] | None,
        bulk: bool = False,
    ) -> None:
        self.notify = notify
        self.deadline = deadline
        self.abandoned = abandoned
        self.bulk = bulk
        self.batch_cap = 0
        self.batch_texts = 0
        self.call_headers = b""
        self.prepared: Sequence[Prepared] = ()
        self.n_tokens: list[int] = []
        self.cut = 0
        self.matrix: Matrix | None = None
        self.error: ServiceError | None = None
        self.done = False
        self.waiting = False
        self.at_door = False
        self.backlog = 0
        self.next = 0  # the first text that is in no batch yet
        self.remaining = 0  # texts without a vector
        self.queued_at = self.started_at = self.finished_at = 0.0

    def input_of(self, text: int) -> int:
        """The index of the request's input that a text is, or is a chunk of."""
        owner = self.prepared[text].owner
        return text if owner is None else owner

    def rows(self) -> Matrix:
        """Its vectors, once it is done. Raises a ServiceError: why there are none."""
        if self.error is not None:
            raise self.error
        assert self.matrix is not None
        return self.matrix


def is_bulk(n_texts: int, n_tokens: int, limits: Limits) -> bool:
    """Whether a request of so much does not fit into one batch."""
    return n_texts > limits.batch_size or n_tokens > limits.batch_tokens


class Span(NamedTuple):
    """Texts `start` to `stop` of a group, as part of a batch."""

    group: Group
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def n_tokens(self) -> int:
        """Tokens of its texts."""
        return sum(self.group.n_tokens[self.start : self.stop])


class FairQueue:
    """The waiting groups.

    Args:
        alive: whether a group still wants its vectors; one that does not is answered by this call.
        leave: called once for a group whose last text has been taken.
    """

    def __init__(self, alive: Callable[[Group], bool], leave: Callable[[Group], None]) -> None:
        self._alive = alive
        self._leave = leave
        self._interactive: deque[Group] = deque()
        self._bulk: deque[Group] = deque()
        self._bulk_had_the_last_turn = False
        self._contended_until = float("-inf")

    def __bool__(self) -> bool:
        return bool(self._interactive or self._bulk)

    def __iter__(self) -> Iterator[Group]:
        return chain(self._interactive, self._bulk)

    @property
    def texts(self) -> int:
        """Texts that wait."""
        return sum(len(group.prepared) - group.next for group in self)

    def add(self, group: Group, now: float) -> None:
        """Let a group wait in its line."""
        if group.bulk:
            self._bulk.append(group)
        else:
            self._interactive.append(group)
            self._contended_until = now + CONTENTION_SECONDS

    def clear(self) -> Iterator[Group]:
        """Give up all groups, one by one."""
        for line in (self._interactive, self._bulk):
            while line:
                yield line.popleft()

    def take(
        self, limits: Limits, seconds_per_token: float, now: float, free_slots: int = 1
    ) -> tuple[Span, ...]:
        """The next batch; empty if nothing waits any more.

        `seconds_per_token` is the measured speed, 0 while unknown; `free_slots` includes the one that
        this batch is for.
        """
        texts = limits.batch_size
        if limits.spread and free_slots > 1:
            texts = min(texts, -(-self.texts // free_slots))
        bulk_turn = bool(self._bulk) and not (self._interactive and self._bulk_had_the_last_turn)
        for bulk in (bulk_turn, not bulk_turn):
            tokens = limits.batch_tokens
            if bulk and seconds_per_token and now < self._contended_until:
                tokens = min(tokens, int(HELPING_SECONDS / seconds_per_token))
            spans = self._share(self._bulk if bulk else self._interactive, _Budget(texts, tokens))
            if spans:
                self._bulk_had_the_last_turn = bulk
                return spans
        return ()

    def efficient_batch_waits(self, limits: Limits, now: float) -> bool:
        """Whether a batch is worth starting before looking who else has come.

        Not while both kinds of requests come: an interactive one may be about to be read.
        """
        if self._bulk and now < self._contended_until:
            return False
        texts, tokens = limits.batch_size, limits.efficient_tokens or sys.maxsize
        for group in self:
            texts -= len(group.prepared) - group.next
            tokens -= sum(group.n_tokens[group.next :])
            if texts <= 0 or tokens <= 0:
                return True
        return False

    def _share(self, line: deque[Group], budget: _Budget) -> tuple[Span, ...]:
        """A batch from one line: each pass gives every group an equal number of the places left."""
        taken: dict[Group, Span] = {}
        share = max(1, budget.texts_left // max(1, len(line)))
        capped: list[Group] = []
        while line and budget.open:
            group = line.popleft()
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
            elif budget.open or group in taken:
                line.append(group)
            else:
                line.appendleft(group)  # who got nothing from this batch is first in the next
        line.extend(capped)
        return tuple(taken.values())


class _Budget:
    """How much still fits into a batch: a number of texts, and tokens after padding."""

    def __init__(self, texts: int, tokens: int) -> None:
        self.texts_left = texts
        self._max_tokens = tokens
        self._texts = 0
        self._longest = 0
        self.open = True

    def take(self, prepared: Sequence[Prepared], start: int, room: int) -> int:
        """How many of `prepared[start:]`, `room` at most, still fit.

        The first text of a batch always fits: it may be longer than the whole budget.
        """
        count = 0
        for text in prepared[start : start + min(room, self.texts_left)]:
            longest = max(self._longest, text.n_tokens)
            if self._texts and longest * (self._texts + 1) > self._max_tokens:
                self.open = False
                break
            self._longest = longest
            self._texts += 1
            count += 1
        self.texts_left -= count
        self.open = self.open and self.texts_left > 0
        return count
