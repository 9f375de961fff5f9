"""What goes to the backend together: each text once, and who gets its vector.

Identical texts are computed once, whoever sent them: within a batch, and where a batch with the text
is under way already (`Computing`).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import NamedTuple

from llmrs.embeddings import Prepared
from llmrs.fairqueue import Group, Span


class Share(NamedTuple):
    """Texts of a group whose vectors are rows of a batch: that of the span's first is `row`."""

    span: Span
    row: int


class Batch:
    """Texts that are computed together.

    Attributes:
        prepared: the texts, no two of them the same; row i of the batch's vectors is that of the i-th.
        shares: the groups' texts it was formed from, and the rows they get.
        joined: the same for texts that came while it was under way.
        started_at: on the collector's clock.
    """

    __slots__ = ("joined", "prepared", "shares", "started_at")

    def __init__(self, started_at: float) -> None:
        self.prepared: list[Prepared] = []
        self.shares: list[Share] = []
        self.joined: list[Share] = []
        self.started_at = started_at

    def __len__(self) -> int:
        return len(self.prepared)

    @property
    def n_tokens(self) -> int:
        """Tokens of its texts, padding not included."""
        return sum(text.n_tokens for text in self.prepared)

    @property
    def deadline(self) -> float:
        """When the last of the groups it was formed from gives up, on the collector's clock."""
        return max(share.span.group.deadline for share in self.shares)

    @property
    def call_headers(self) -> bytes:
        """What its backend is told of the caller; nothing if it was formed from several requests."""
        groups = {share.span.group for share in self.shares}
        return groups.pop().call_headers if len(groups) == 1 else b""

    def halves(self) -> tuple[list[Span], list[Span]]:
        """The texts of its shares by the half of its rows they are in, to find out which is at fault."""
        middle = len(self) // 2
        left: list[Span] = []
        right: list[Span] = []
        for (group, start, stop), row in self.shares:
            cut = min(max(start + middle - row, start), stop)
            if cut > start:
                left.append(Span(group, start, cut))
            if cut < stop:
                right.append(Span(group, cut, stop))
        return left, right


class Computing:
    """The texts that are being computed, and where.

    Attributes:
        shared: how many texts were not computed for themselves, ever.
    """

    def __init__(self) -> None:
        self.shared = 0
        self._places: dict[Hashable, tuple[Batch, int]] = {}

    def form(self, spans: Iterable[Span], now: float) -> Batch:
        """A batch of those texts of the spans that are not being computed yet; the others join them.

        It may have none left. Every group of the spans counts as started.
        """
        batch = Batch(now)
        for group, start, stop in spans:
            group.started_at = group.started_at or now
            for index in range(start, stop):
                text = group.prepared[index]
                where, row = self._places.setdefault(text.key, (batch, len(batch)))
                if where is batch and row == len(batch):
                    batch.prepared.append(text)
                else:
                    self.shared += 1
                _add(batch.shares if where is batch else where.joined, group, index, row)
        return batch

    def release(self, batch: Batch) -> None:
        """Nothing can join the batch any more."""
        for text in batch.prepared:
            del self._places[text.key]


def _add(shares: list[Share], group: Group, index: int, row: int) -> None:
    """Note that text `index` of a group gets `row`; a run of rows is one share."""
    if shares:
        (last, start, stop), first = shares[-1]
        if last is group and stop == index and first + stop - start == row:
            shares[-1] = Share(Span(group, start, index + 1), first)
            return
    shares.append(Share(Span(group, index, index + 1), row))
