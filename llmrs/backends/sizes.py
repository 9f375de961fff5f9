"""How much one address takes in a call, learnt from what it refused and what it took.

A call that was refused although each of its texts passed in a smaller one was too large. What passed is the
limit from then on: a number of texts, or, where as many texts have passed before, a number of bytes. (Tokens
cannot be told from bytes here.) From time to time a little more is tried: the refusal may have had another
reason, and limits are changed.

Knows calls by the JSON of their texts, and no network.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

RAISE_SECONDS = 600.0
"""Until more than what passed is tried. Refused, that costs the calls of one batch that is split."""

REMEMBERED = 16
"""Refused calls whose texts are followed: those in flight, and their parts."""

FOLLOWED_SECONDS = 60.0
"""How long: the parts of a call are asked for at once, and the same texts again at any time."""

STRIKES = 3
"""Failures that a smaller call mends, in a row, until they are put down to size: one may have been chance.
A refusal (400, 413, 422) is none, and counts at once."""


class Size(NamedTuple):
    """Of a call: its texts, and the bytes of their JSON, separators included."""

    items: int
    n_bytes: int


def size_of(items: Sequence[bytes]) -> Size:
    """The size of a call with these texts."""
    return Size(len(items), sum(map(len, items)) + len(items))


class _Refused:
    """A refused call, those of its texts that have not passed since, and the largest call that passed."""

    def __init__(self, items: Sequence[bytes], certain: bool, now: float) -> None:
        self.until = now + FOLLOWED_SECONDS
        self.size = size_of(items)
        self.certain = certain
        self.missing = set(map(hash, items))
        self.passed = Size(0, 0)

    def note(self, passed: set[int], size: Size) -> bool:
        """Texts have passed together; returns whether all of the call's have by now."""
        if not self.missing.isdisjoint(passed):
            self.missing -= passed
            self.passed = Size(max(self.passed.items, size.items), max(self.passed.n_bytes, size.n_bytes))
        return not self.missing


class _Limit:
    """The most that passed of one quantity, the least that did not, and when to try something between."""

    def __init__(self, passed: int, refused: int, now: float) -> None:
        self.passed = passed
        self._refused = refused
        self._raised_at = now + RAISE_SECONDS

    def at(self, now: float) -> int:
        if now < self._raised_at:
            return self.passed
        if self._refused - self.passed > 1:
            return (self.passed + self._refused) // 2
        return 2 * self.passed

    def take(self, passed: int, now: float) -> None:
        """So much passed."""
        if passed > self.passed:
            self.passed = passed
            self._refused = max(self._refused, passed + 1)
            self._raised_at = now + RAISE_SECONDS

    def refuse(self, refused: int, now: float) -> None:
        """So much was refused. What passed before passes still, as far as this tells."""
        if refused > self.passed:
            self._refused = min(self._refused, refused)
            self._raised_at = now + RAISE_SECONDS


class Sizes:
    """What is known about one address. Safe to share between threads and between greenlets.

    Attributes:
        peers: those of the other addresses. The parts of a refused call may pass, or a bad text be found,
            at any of them.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.peers: Sequence[Sizes] = ()
        self._clock = clock
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """The address may be another backend's by now."""
        self._most = Size(0, 0)
        self._refused: deque[_Refused] = deque(maxlen=REMEMBERED)
        self._strikes: list[Size] = []
        self._items: _Limit | None = None
        self._bytes: _Limit | None = None

    def most(self, ceiling: Size) -> Size:
        """The largest call to be made, within `ceiling`."""
        now = self._clock()
        return Size(
            min(ceiling.items, self._items.at(now) if self._items else ceiling.items),
            min(ceiling.n_bytes, self._bytes.at(now) if self._bytes else ceiling.n_bytes),
        )

    def passed(self, items: Sequence[bytes]) -> None:
        """A call brought its vectors."""
        size = size_of(items)
        for each in (self, *self.peers):
            each._follow(items, size)
        with self._lock:
            now = self._clock()
            if self._strikes and size.items >= self._strikes[-1].items:
                self._strikes.clear()  # as much passes
            self._most = Size(max(self._most.items, size.items), max(self._most.n_bytes, size.n_bytes))
            if self._items:
                self._items.take(size.items, now)
            if self._bytes:
                self._bytes.take(size.n_bytes, now)

    def refused(self, items: Sequence[bytes], *, certain: bool) -> None:
        """A call was refused (`certain`) or failed, while the backend embeds other texts."""
        if len(items) == 1:  # this text is to blame for every call that it was in
            for each in (self, *self.peers):
                each._acquit(hash(items[0]))
            return
        with self._lock:
            now = self._clock()
            call = _Refused(items, certain, now)
            self._refused.append(call)
            if self._items:
                self._items.refuse(call.size.items, now)
            if self._bytes and call.size.items <= self._most.items:
                self._bytes.refuse(call.size.n_bytes, now)

    def _acquit(self, text: int) -> None:
        """Calls with this text say nothing about sizes."""
        with self._lock:
            self._keep(lambda call: text not in call.missing)

    def _keep(self, wanted: Callable[[_Refused], bool]) -> None:
        self._refused = deque(filter(wanted, self._refused), maxlen=REMEMBERED)

    def _follow(self, items: Sequence[bytes], size: Size) -> None:
        """Texts have passed together: what that tells of the calls that were refused with them."""
        if not self._refused:
            return
        passed = set(map(hash, items))
        with self._lock:
            now = self._clock()
            self._keep(lambda call: now < call.until)
            for call in [call for call in self._refused if call.note(passed, size)]:
                self._refused.remove(call)
                self._strikes.append(call.size)
                if call.certain or len(self._strikes) >= STRIKES:
                    self._strikes.clear()
                    self._learn(call, now)

    def _learn(self, call: _Refused, now: float) -> None:
        """A call was too large: of too many bytes if as many texts have passed, else of too many texts."""
        if call.size.items <= self._most.items and call.size.n_bytes > self._most.n_bytes:
            self._bytes = _lower(self._bytes, call.passed.n_bytes, call.size.n_bytes, now)
        else:
            self._items = _lower(self._items, call.passed.items, call.size.items, now)
            self._most = Size(call.passed.items, self._most.n_bytes)


def _lower(limit: _Limit | None, passed: int, refused: int, now: float) -> _Limit:
    """The limit, where what passed under it is less than what was refused; else a lower one."""
    if limit is not None and limit.passed < refused:
        return limit
    return _Limit(passed, refused, now)
