"""The door of the queue: how much waits, how fast it goes, and who is turned away, and until when.

Knows requests, texts and tokens, and nothing of engines, loops or HTTP. A request is asked for before any
work is done for it, so its tokens are an estimate then (`recount` corrects it). It is turned away when

- as many requests wait as the queue has places; a quarter of them is not for bulk requests, so that a few
  of those cannot close the door to all others;
- the tokens in front of it will take longer, at the measured speed, than a request may wait, or than it
  can wait itself: it would be answered 504 after all that time.

What is in front counts, never the request itself: on an idle server the largest one is served.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from llmrs.errors import QueueFull, WaitTooLong
from llmrs.fairqueue import Group

FORGETTING = 0.9
"""Weight of what was measured before each batch: the speed is that of the last ten or so."""

LEAST_TURN = 0.1
"""Seconds: whoever comes back sooner may be turned away ten times before there is a place."""

LONGEST_TURN = 30.0
"""Seconds within which turned-away requests get turns of their own. In a long flood there are more than
that, and many of them never come back."""

UNKNOWN_TURN = 1.0
"""Seconds, while no speed is known."""

JITTER = 0.25
"""Turns are given up to this share later, so that clients of several replicas fall out of step."""


class Speed:
    """Measured seconds per token of a batch.

    Sums are compared, not ratios: a text alone costs several times more per token than a full batch, and
    a flood comes after many of those.
    """

    def __init__(self) -> None:
        self._seconds = self._tokens = 0.0

    @property
    def seconds_per_token(self) -> float:
        """0 until something was measured."""
        return self._seconds / self._tokens if self._tokens else 0.0

    def measure(self, n_tokens: int, seconds: float) -> None:
        """A batch of so many tokens took so long. One of texts without any counts as of one token.

        Else a flood of them would say that a token takes for ever, and nothing that has tokens be let in to
        say otherwise.
        """
        self._seconds = FORGETTING * self._seconds + seconds
        self._tokens = FORGETTING * self._tokens + max(1, n_tokens)


class Admission:
    """Counts what waits, and decides who may.

    Args:
        capacity: places for waiting requests.
        seconds: the longest wait that a request may be predicted.
        chance: a random number from 0 to 1.
    """

    def __init__(self, capacity: int, seconds: float, chance: Callable[[], float] = random.random) -> None:
        self._capacity = capacity
        self._bulk_capacity = capacity - capacity // 4
        self._seconds = seconds
        self._chance = chance
        self._requests = [0, 0]  # interactive, bulk: as `Group.bulk` counts
        self._tokens = [0, 0]
        self._next_turn = 0.0
        self.speed = Speed()

    @property
    def requests(self) -> int:
        """Requests that wait, those included whose texts are being tokenized."""
        return sum(self._requests)

    @property
    def tokens(self) -> int:
        """Tokens that wait."""
        return sum(self._tokens)

    def wait(self, bulk: bool, slots: int) -> float:
        """Seconds that a request of the kind would wait for its first batch; 0 while nothing is known.

        An interactive request passes the bulk ones.
        """
        tokens = self.tokens if bulk else self._tokens[False]
        return tokens * self.speed.seconds_per_token / max(1, slots)

    def enter(self, group: Group, n_tokens: int, now: float, slots: int) -> None:
        """Give a request of about so many tokens a place.

        Raises:
            QueueFull, WaitTooLong: with a Retry-After that is this request's own turn, as if those who
                are turned away had queued up behind those who wait.
        """
        wait = self.wait(group.bulk, slots)
        if not self.requests:
            self._next_turn = now  # those whose turn has been are not coming: an end of the flood
        refusal = QueueFull
        if self.requests >= self._capacity:
            reason = f"{self.requests} requests are waiting already"
        elif group.bulk and self._requests[True] >= self._bulk_capacity:
            reason = f"{self._requests[True]} requests of many texts are waiting already"
        elif wait > max(0.0, min(self._seconds, group.deadline - now)):
            reason = f"what is waiting already will take {wait:.0f} seconds"
            refusal = WaitTooLong
        else:
            self._requests[group.bulk] += 1
            self._tokens[group.bulk] += n_tokens
            group.waiting = True
            group.backlog = n_tokens
            return
        own = n_tokens * self.speed.seconds_per_token / max(1, slots)
        raise refusal(f"{reason}; try again later", retry_after=self._turn(now, wait, own))

    def recount(self, group: Group, n_tokens: int, bulk: bool) -> None:
        """The tokens of a waiting request are known now, and so is its kind."""
        self._requests[group.bulk] -= 1
        self._tokens[group.bulk] -= group.backlog
        group.bulk, group.backlog = bulk, n_tokens
        self._requests[bulk] += 1
        self._tokens[bulk] += n_tokens

    def take(self, group: Group, n_tokens: int) -> None:
        """So many tokens of a request wait no more; its place it keeps until `leave`."""
        n_tokens = min(n_tokens, group.backlog)
        group.backlog -= n_tokens
        self._tokens[group.bulk] -= n_tokens

    def leave(self, group: Group) -> None:
        """Nothing of a request waits any more. Harmless when that was said before."""
        if group.waiting:
            group.waiting = False
            self._requests[group.bulk] -= 1
            self.take(group, group.backlog)

    def _turn(self, now: float, wait: float, own: float) -> float:
        """Seconds until the turn of a request that is turned away."""
        self._next_turn = min(max(self._next_turn, now + wait) + own, now + LONGEST_TURN)
        seconds = max(self._next_turn - now, LEAST_TURN) if own else UNKNOWN_TURN
        return seconds * (1 + JITTER * self._chance())
