"""Which texts go through the model together, and in which shape. Pure arithmetic.

Padding costs as much as text. So texts are packed side by side into rows, where a mask keeps each
from seeing the others, and rows of similar length go through the model in one run. Any batch becomes
a few nearly full shapes: of the places that all-MiniLM-L6-v2 computes, 96 to 98 % hold a token with
32 texts of 4 to 128, of 8 to 64, or 16 of 16 to 256 tokens. The alternative, a graph on
[tokens, hidden] that gathers into a padded layout for attention alone, was 5 % faster on short texts,
10 % slower on long ones, and 20 % slower on a single text.

Both sides of a shape come from short lists, because every new shape costs the engine 2 to 4 ms the
first time, and 0.3 MB for good.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

MAX_CELLS = 1024
"""Rows times columns of one run. Larger runs are no faster, and need more memory for the layers
between; measured with 4 to 128 tokens a text, 512 to 2,048 cells give the same tokens/s."""

ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""How many rows a run may have."""

RUN_COST = 32
"""What starting a run costs, in cells: reading the weights once and 200 calls of kernels. Measured
10 to 20 with avx512_bf16; faster arithmetic makes it more, and 16 to 64 plan equally well."""

ATTENTION_COST = 0.0005
"""What a cell costs more for each column of its row, because every token of a row is compared with
every other. Measured: 13,600 tokens/s in rows of 64, 13,300 of 128, 12,300 of 256."""

CAPACITIES = (64, 96, 128)
"""Lengths of a row that are worth trying, beside the longest text's own and twice that."""

PADDED_WASTE = 0.2
"""The share of a padded row that may hold no token."""

WELL_FILLED = 0.96
"""A packing is not worth improving whose rows are as full as this."""


Layout: TypeAlias = Literal["packed", "rows", "single"]
"""Which texts may be computed together: `packed` side by side in rows, `rows` one in each. `single` is for
models in which padding and other texts change a text's vector: each alone, in a row as long as it is."""


class Run(NamedTuple):
    """One run of the model.

    Attributes:
        texts: for each row the texts in it, side by side, as indices into the batch.
        rows, columns: its shape; there may be more rows than hold texts.
    """

    texts: list[list[int]]
    rows: int
    columns: int


class Row(NamedTuple):
    """Texts side by side, and how many tokens they have together."""

    tokens: int
    texts: list[int]


def columns_for(length: int, longest: int) -> int:
    """The padded length of a row: `length` or up to 7 or a quarter more, at most `longest`.

    Multiples of 8 up to 64, of 16 up to 256, of 32 up to 512: rarely used shapes are few, and long
    rows, of which few make a run, fit well (200 tokens in 208 places and not 224: 8 % more tokens/s).
    """
    step = max(8, (1 << (length - 1).bit_length()) >> (3 if length <= 128 else 4))
    return min(-(-length // step) * step, longest)


def plan(lengths: Sequence[int], longest: int, layout: Layout = "packed") -> list[Run]:
    """Runs that cover texts of these lengths (in tokens, at least 1) with little work.

    Args:
        lengths: tokens of each text.
        longest: the model's longest input; no run has more columns.
        layout: which texts may be computed together.
    """
    if not lengths:
        return []
    if layout == "packed":
        return cut_into_runs(_pack_well(lengths, longest), longest)
    rows = [Row(length, [index]) for index, length in enumerate(lengths)]
    if layout == "rows":
        return cut_into_runs(rows, longest)
    return [Run([row.texts], 1, row.tokens) for row in rows]


def plan_padded(lengths: Sequence[int], cells: int, *, equal: bool = False) -> list[list[int]]:
    """Texts that are padded to the length of the first of their run, as indices; the longest run first.

    For engines to which a shape is as good as any other. A run ends where a shorter text would waste more
    than PADDED_WASTE, unless it has hardly begun: starting one costs, too.

    Args:
        lengths: tokens of each text.
        cells: most rows times columns of a run, which holds one text at least.
        equal: whether all texts of a run must have the same length.
    """
    runs: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        taken = len(runs[-1]) * longest if runs else 0
        short = lengths[index] < longest * (1 if equal else 1 - PADDED_WASTE)
        if not runs or taken + longest > cells or (short and (equal or taken >= cells // 4)):
            runs.append([])
            longest = lengths[index]
        runs[-1].append(index)
    return runs


def _pack_well(lengths: Sequence[int], longest: int) -> list[Row]:
    """The best of the packings into rows of a few capacities."""
    needed, total = max(lengths), sum(lengths)
    best: list[Row] = []
    lowest = float("inf")
    for wanted in sorted({needed, 2 * needed, *(size for size in CAPACITIES if size > needed)}):
        if best and wanted > min(total, longest):
            break
        capacity = columns_for(wanted, longest)
        rows = pack_into_rows(lengths, capacity)
        cells = sum(columns_for(row.tokens, longest) for row in rows)
        work = cells * (1 + ATTENTION_COST * capacity) + cells / MAX_CELLS * RUN_COST
        if work < lowest:
            best, lowest = rows, work
        if total >= WELL_FILLED * cells:
            break
    return best


def pack_into_rows(lengths: Sequence[int], capacity: int) -> list[Row]:
    """Texts side by side in rows of at most `capacity` tokens; no text is longer than that.

    Best fit decreasing: the longest text first, each into the fullest row that still has room.
    It needs at most 11/9 of the fewest rows possible, plus one (Johnson, 1974).
    """
    texts: list[list[int]] = []
    room: list[tuple[int, int]] = []  # of each row with its number, the fullest first
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        place = bisect_left(room, (lengths[index], 0))
        if place < len(room):
            left, row = room.pop(place)
            texts[row].append(index)
        else:
            left, row = capacity, len(texts)
            texts.append([index])
        insort(room, (left - lengths[index], row))
    return [Row(capacity - left, texts[row]) for left, row in room]


def cut_into_runs(rows: Sequence[Row], longest: int) -> list[Run]:
    """Runs that cover the rows with the least work.

    Exact: over the rows sorted by length, `cost[n]` is the least work for the `n` shortest, and the
    last of them share a run whose length is that of the longest among them.
    """
    rows = sorted(rows)
    columns = [columns_for(row.tokens, longest) for row in rows]
    cost = [0.0] * (len(rows) + 1)
    size_of = [0] * (len(rows) + 1)
    for end in range(1, len(rows) + 1):
        width = columns[end - 1]
        cell = 1 + ATTENTION_COST * width
        cost[end], size_of[end] = min(
            (cost[max(0, end - size)] + RUN_COST + size * width * cell, size)
            for size in ROWS
            if size == 1 or size * width <= MAX_CELLS
        )
    runs = []
    end = len(rows)
    while end:
        start = max(0, end - size_of[end])
        runs.append(Run([row.texts for row in rows[start:end]], size_of[end], columns[end - 1]))
        end = start
    return runs
