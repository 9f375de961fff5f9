"""Cutting a batch into the requests one backend call may carry, and sharing out what came back.

Pure functions on positions and numbers: no I/O, no protocol, no vectors.
"""

from __future__ import annotations

from collections.abc import Sequence


def split(
    items: Sequence[bytes], kinds: Sequence[object], *, max_items: int, max_bytes: int
) -> list[list[int]]:
    """Positions of `items`, grouped into parts of one kind each, ascending within a part.

    A part has at most `max_items` items and, separators included, `max_bytes` bytes. An item that
    is longer by itself forms a part of its own: the backend shall judge it, not its neighbours.
    """
    parts: list[list[int]] = []
    filling: dict[object, tuple[list[int], int]] = {}
    for position, (item, kind) in enumerate(zip(items, kinds, strict=True)):
        part, size = filling.get(kind, ([], 0))
        size += len(item) + 1
        if not part or len(part) >= max_items or size > max_bytes:
            part, size = [], len(item) + 1
            parts.append(part)
        part.append(position)
        filling[kind] = part, size
    return parts


def share_out(total: int, weights: Sequence[int]) -> list[int]:
    """`total` in whole shares, each at least 1, beyond that in proportion to `weights`.

    The shares sum exactly to `total`, which must not be less than their number. What rounding
    leaves over goes to the largest remainders (Hamilton's method), among equals to the first.
    """
    spare = total - len(weights)
    whole = sum(weights)
    if whole <= 0:
        weights, whole = [1] * len(weights), len(weights)
    shares = [1 + spare * weight // whole for weight in weights]
    remainders = [spare * weight % whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: -remainders[i])
    for position in by_remainder[: total - sum(shares)]:
        shares[position] += 1
    return shares
