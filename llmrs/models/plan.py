"""Which texts go through the model together, and in which shape. Pure arithmetic.

A batch of texts of mixed lengths is cut into runs of similar lengths: padding costs as much as
text, and a run of a few hundred tokens is as fast per token as a larger one. With all-MiniLM-L6-v2
on two cores that makes 1.4 to 2 times the tokens/s of one padded run (32 texts of 8 to 64, of 4
to 128, or 16 of 16 to 256 tokens), and the same where all texts are equally long.

Both sides of a shape come from short lists, because every new shape costs the engine 2 to 10 ms the
first time, and memory for good: 512 shapes of up to 4,096 tokens took 900 MB, the 72 shapes that a
256-token model has below take 15 MB.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MAX_CELLS = 1024
"""Rows times columns of one run. Larger runs are no faster, and need more memory for the layers
between; measured with 8 to 128 tokens a text, 512 to 4,096 cells give the same tokens/s."""

ROWS = (32, 16, 8, 4, 2, 1)
"""How many texts a run may have."""

RUN_COST = 32
"""What starting a run costs, in cells: reading the weights once and 200 calls of kernels. Measured
10 to 20 with avx512_bf16; faster arithmetic makes it more, and 16 to 64 plan equally well."""


class Run(NamedTuple):
    """One run of the model: `texts` are indices into the batch, `rows` x `columns` its shape.

    `rows` may exceed the number of texts by the rows that hold none.
    """

    texts: list[int]
    rows: int
    columns: int


def columns_for(length: int, longest: int) -> int:
    """The padded length of a text: `length` or up to a quarter more, at most `longest`.

    Multiples of 8 up to 64, of 16 up to 128, of 32 up to 256: four sizes per doubling.
    """
    step = max(8, (1 << (length - 1).bit_length()) >> 3)
    return min(-(-length // step) * step, longest)


def plan(lengths: Sequence[int], longest: int) -> list[Run]:
    """Runs that cover texts of these lengths (in tokens, at least 1) with the least work.

    Exact: over the texts sorted by length, `cost[n]` is the least work for the `n` shortest, and
    the last of them share a run whose length is that of the longest among them.

    Args:
        lengths: tokens of each text.
        longest: the model's longest input; no run has more columns.
    """
    order = np.argsort(lengths, kind="stable").tolist()
    cost = [0] * (len(order) + 1)
    rows_of = [0] * (len(order) + 1)
    for end in range(1, len(order) + 1):
        columns = columns_for(lengths[order[end - 1]], longest)
        cost[end], rows_of[end] = min(
            (cost[max(0, end - rows)] + RUN_COST + rows * columns, rows)
            for rows in ROWS
            if rows == 1 or rows * columns <= MAX_CELLS
        )
    runs = []
    end = len(order)
    while end:
        start = max(0, end - rows_of[end])
        runs.append(Run(order[start:end], rows_of[end], columns_for(lengths[order[end - 1]], longest)))
        end = start
    return runs
