"""Knowing which inputs a backend cuts: it is asked to refuse them first, and to cut what it has refused.

Where nothing is too long, which is nearly always, that costs nothing. What was refused is counted by the
backend's tokenizer where it has one, in one more call; else the batch is asked in parts until each input
that is too long has been refused alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from llmrs.backends.protocols import Reply
from llmrs.embeddings import CallOptions
from llmrs.errors import UpstreamTooLong

Send: TypeAlias = Callable[[list[int], CallOptions | None], Reply]
"""Asks for the vectors of the inputs at some positions."""


class Part(NamedTuple):
    """The answer to some inputs of a batch, by their positions; `cut` are those of them that were cut."""

    positions: list[int]
    reply: Reply
    cut: frozenset[int] = frozenset()


def ask_twice(
    positions: list[int],
    options: CallOptions | None,
    send: Send,
    find_long: Callable[[list[int]], list[int] | None],
    looks_long: Callable[[int], bool],
) -> list[Part]:
    """The vectors of inputs that may be cut, and which of them were.

    Args:
        options: what the backend is told of inputs that it has refused as too long.
        find_long: which inputs are too long, as the backend counts; None where it does not.
        looks_long: whether an input probably is too long.

    Raises:
        UpstreamRejected: some input was refused for another reason, or for its length even so.
    """
    strictly = (options or CallOptions())._replace(truncate="none")
    answered: list[Part] = []
    waiting = [positions]
    while waiting:
        part = waiting.pop()
        try:
            answered.append(Part(part, send(part, strictly)))
            continue
        except UpstreamTooLong:
            pass
        long = part if len(part) == 1 else find_long(part)
        if long:
            answered.append(Part(part, send(part, options), frozenset(long)))
        else:  # not known, or counted otherwise than it was refused
            waiting += in_parts(part, looks_long)
    return answered


def in_parts(positions: Sequence[int], looks_long: Callable[[int], bool]) -> list[list[int]]:
    """At least two positions in parts: what looks too long alone, where something does, else halves."""
    long = [[i] for i in positions if looks_long(i)]
    rest = [i for i in positions if not looks_long(i)]
    if long:
        return [rest, *long] if rest else long
    middle = len(rest) // 2
    return [rest[:middle], rest[middle:]]
