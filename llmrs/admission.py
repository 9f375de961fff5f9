"""The door of the queue: how much waits, how fast it goes, who waits where, and who is turned away.

Knows requests, texts and tokens, and nothing of engines, loops or HTTP. A request is asked for before any
work is done for it, so its tokens are an estimate then (`recount` corrects it).

- The queue has a number of places; a quarter of them is not for bulk requests, so that a few of those
  cannot close it to all others. Who gets one is tokenized and waits for a batch.
- Where all places are taken, a request waits at the door: it is let in when one is free, first come first,
  interactive ones before bulk. (While the queue holds no bulk request, the next bulk one goes first, so that
  neither can starve the other: inside they take turns.)
- It is turned away when what is in front of it, inside and at the door, will take longer, at the measured
  speed, than a request may wait, or than it can wait itself: it would be answered 504 after all that time.
  And when the door is crowded, which is for others to say.

What is in front counts, never the request itself: on an idle server the largest one is served.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import chain

from llmrs.embeddings import Limits
from llmrs.errors import QueueFull, WaitTooLong
from llmrs.fairqueue import Group
from llmrs.speed import Speed

LEAST_TURN = 0.1
"""Seconds: whoever comes back sooner may be turned away ten times before there is a place."""

LONGEST_TURN = 30.0
"""Seconds within which turned-away requests get turns of their own. In a long flood there are more than
that, and many of them never come back."""

UNKNOWN_TURN = 1.0
"""Seconds, while no speed is known."""

JITTER = 0.25
"""Turns are given up to this share later, so that clients of several replicas fall out of step."""


class Admission:
    """Counts what waits, and decides who may, and where.

    Args:
        capacity: places of the queue.
        seconds: the longest wait that a request may be predicted.
        alive: whether a group at the door still wants to be let in; one that does not is answered by this.
        chance: a random number from 0 to 1.

    Attributes:
        crowded: tells whether nobody more may wait at the door.
    """

    def __init__(
        self,
        capacity: int,
        seconds: float,
        alive: Callable[[Group], bool] = lambda group: True,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._capacity = capacity
        self._bulk_capacity = capacity - capacity // 4
        self._seconds = seconds
        self._alive = alive
        self._chance = chance
        self._requests = [0, 0]  # interactive, bulk: as `Group.bulk` counts; those inside
        self._tokens = [0, 0]  # inside and at the door
        self._door: tuple[OrderedDict[Group, None], ...] = (OrderedDict(), OrderedDict())
        self._next_turn = 0.0
        self.crowded: Callable[[], bool] = lambda: False
        self.speed = Speed()

    @property
    def requests(self) -> int:
        """Requests that hold a place, those included whose texts are being tokenized."""
        return sum(self._requests)

    @property
    def at_door(self) -> int:
        """Requests that wait for a place."""
        return sum(map(len, self._door))

    @property
    def tokens(self) -> int:
        """Tokens that wait, at the door, too."""
        return sum(self._tokens)

    def door(self) -> Iterator[Group]:
        """The requests that wait for a place."""
        return chain(*self._door)

    def wait(self, bulk: bool, limits: Limits) -> float:
        """Seconds that a request of the kind would wait for its first batch; 0 while nothing is known.

        An interactive request passes the bulk ones.
        """
        tokens = self.tokens if bulk else self._tokens[False]
        return tokens * self._pace(limits)

    def enter(self, group: Group, n_tokens: int, now: float, limits: Limits) -> None:
        """Give a request of about so many tokens a place, or let it wait for one at the door.

        Raises:
            QueueFull, WaitTooLong: with a Retry-After that is this request's own turn, as if those who
                are turned away had queued up behind those who wait.
        """
        if not self.tries(group, n_tokens, now, limits):
            raise self._refusal(group, n_tokens, now, limits)

    def tries(self, group: Group, n_tokens: int, now: float, limits: Limits) -> bool:
        """The same for one that may try again: whether it has got in."""
        if not self.requests:
            self._next_turn = now  # those whose turn has been are not coming: an end of the flood
        if self.wait(group.bulk, limits) > self._patience(group, now):
            return False
        if self._has_place(group.bulk) and not self._door[group.bulk]:
            self._seat(group)
        elif self.crowded():
            return False
        else:
            group.at_door = True
            self._door[group.bulk][group] = None
        self._tokens[group.bulk] += n_tokens
        group.backlog = n_tokens
        return True

    def turn_away(self, group: Group, now: float, limits: Limits) -> WaitTooLong:
        """What to answer a request that has waited at the door for as long as it may."""
        own = group.backlog * self._pace(limits)
        turn = self._turn(now, max(0.0, self.wait(group.bulk, limits) - own), own)
        return WaitTooLong(
            f"no place of the queue was free for {self._seconds:g} seconds; try again later", retry_after=turn
        )

    def recount(self, group: Group, n_tokens: int, bulk: bool) -> None:
        """The tokens of a request inside are known now, and so is its kind."""
        self._requests[group.bulk] -= 1
        self._tokens[group.bulk] -= group.backlog
        group.bulk, group.backlog = bulk, n_tokens
        self._requests[bulk] += 1
        self._tokens[bulk] += n_tokens
        self._let_in()

    def take(self, group: Group, n_tokens: int) -> None:
        """So many tokens of a request wait no more; its place it keeps until `leave`."""
        n_tokens = min(n_tokens, group.backlog)
        group.backlog -= n_tokens
        self._tokens[group.bulk] -= n_tokens

    def leave(self, group: Group) -> None:
        """Nothing of a request waits any more. Harmless when that was said before."""
        self.take(group, group.backlog)
        if group.at_door:
            group.at_door = False
            del self._door[group.bulk][group]
        elif group.waiting:
            group.waiting = False
            self._requests[group.bulk] -= 1
            self._let_in()

    # -- places -------------------------------------------------------------------------------

    def _has_place(self, bulk: bool) -> bool:
        if bulk and self._requests[True] >= self._bulk_capacity:
            return False
        return self.requests < self._capacity

    def _seat(self, group: Group) -> None:
        self._requests[group.bulk] += 1
        group.waiting = True

    def _let_in(self) -> None:
        """Give free places to those at the door."""
        while (line := self._next_line()) is not None:
            group = next(iter(line))
            if not self._alive(group):  # which has left
                continue
            line.popitem(last=False)
            group.at_door = False
            self._seat(group)
            group.notify()

    def _next_line(self) -> OrderedDict[Group, None] | None:
        """The line whose first request is the next to get a place; None while there is none to get."""
        bulk = bool(self._door[True]) and (not self._door[False] or not self._requests[True])
        if bulk and not self._has_place(True):
            bulk = False
        return self._door[bulk] if self._door[bulk] and self._has_place(bulk) else None

    # -- time ---------------------------------------------------------------------------------

    def _patience(self, group: Group, now: float) -> float:
        """Seconds that a request may be predicted to wait."""
        return max(0.0, min(self._seconds, group.deadline - now))

    def _refusal(self, group: Group, n_tokens: int, now: float, limits: Limits) -> QueueFull:
        wait = self.wait(group.bulk, limits)
        refusal, reason = QueueFull, f"{self.requests + self.at_door} requests are waiting already"
        if wait > self._patience(group, now):
            refusal, reason = WaitTooLong, f"what is waiting already will take {wait:.0f} seconds"
        turn = self._turn(now, wait, n_tokens * self._pace(limits))
        return refusal(f"{reason}; try again later", retry_after=turn)

    def _pace(self, limits: Limits) -> float:
        """Seconds per token at which what waits will go, in batches that are as full as may be."""
        texts = min(limits.batch_size, self._capacity)
        tokens = limits.efficient_tokens or limits.batch_tokens
        return self.speed.at_best(texts, tokens) / max(1, limits.slots)

    def _turn(self, now: float, wait: float, own: float) -> float:
        """Seconds until the turn of a request that is turned away."""
        self._next_turn = min(max(self._next_turn, now + wait) + own, now + LONGEST_TURN)
        seconds = max(self._next_turn - now, LEAST_TURN) if own else UNKNOWN_TURN
        return seconds * (1 + JITTER * self._chance())
