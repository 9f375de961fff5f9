"""What metrics are made of: values counted by size, and series under one name. Nothing is wrapped here."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Literal, NamedTuple, Protocol

from llmrs.embeddings import Matrix


class Answered(Protocol):
    """What is counted of a request that got its vectors; times in seconds."""

    @property
    def matrix(self) -> Matrix: ...
    @property
    def n_tokens(self) -> int: ...
    @property
    def truncated(self) -> int: ...
    @property
    def chunked(self) -> int: ...
    @property
    def tokenize_seconds(self) -> float: ...
    @property
    def queue_seconds(self) -> float: ...
    @property
    def inference_seconds(self) -> float: ...


class Histogram:
    """Values counted by the first bound that they do not exceed.

    Attributes:
        total: of all values.
    """

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self._counts[bisect_left(self._bounds, value)] += times
        self.total += value * times

    def parts(self) -> tuple[list[float], list[int], float]:
        """Bounds, the number of values at each, the last beyond all of them, and their total."""
        return list(self._bounds), self._counts, self.total

    def add(self, counts: Sequence[int], total: float) -> None:
        """Add the values of another one with the same bounds."""
        self._counts = [mine + other for mine, other in zip(self._counts, counts, strict=True)]
        self.total += total

    def buckets(self) -> list[tuple[str, float]]:
        """Each bound with the number of values that do not exceed it; the last is +Inf."""
        names = [*map(str, self._bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self._counts)), strict=True))


class Family(NamedTuple):
    """All series of one name.

    Attributes:
        name: without the suffixes of its kind (`_total`; `_bucket`, `_sum`, `_count`).
        members: the values of the labels, and the value.
    """

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    text: str
    labels: tuple[str, ...]
    members: Iterable[tuple[tuple[str, ...], float | Histogram]]
