"""The arrays of one run of the model: texts side by side in rows, and where each of them lies.

Everything is done for all tokens at once; a batch's texts are touched one by one only to be joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from llmrs.models.exported import Graphed
from llmrs.models.plan import Run

Ints: TypeAlias = NDArray[np.int32]

PADDING = -1
"""The number of no text, in `segments`."""


class Inputs(NamedTuple):
    """What the graph takes, all int32, for R rows of C places holding T texts.

    Attributes:
        ids: [R, C], token ids.
        positions: [R, C], rows of the position table.
        segments: [R, C], which of the run's texts a place belongs to, or PADDING.
        starts: [T], the place of each text's first token, counted through all rows.
        lengths: [T], tokens of each text.
    """

    ids: Ints
    positions: Ints
    segments: Ints
    starts: Ints
    lengths: Ints


def pack(run: Run, texts: Sequence[Ints], encoder: Graphed) -> Inputs:
    """Put the run's texts into their rows; they are numbered row by row, as in `run.texts`."""
    chosen = [texts[index] for row in run.texts for index in row]
    lengths = np.array([len(text) for text in chosen], np.int32)
    starts = np.array(_starts(run, texts), np.int32)
    ids = np.concatenate(chosen)
    before = np.cumsum(lengths, dtype=np.int32) - lengths  # tokens before each text
    token = np.arange(len(ids), dtype=np.int32)
    place = token + np.repeat(starts - before, lengths)
    if encoder.positions_skip_padding:
        positions = _counted_positions(ids, before, lengths, encoder.padding_id)
    else:
        positions = token - np.repeat(before, lengths)

    def spread(values: Ints, elsewhere: int) -> Ints:
        rows = np.full(run.rows * run.columns, elsewhere, np.int32)
        rows[place] = values
        return rows.reshape(run.rows, run.columns)

    number = np.repeat(np.arange(len(chosen), dtype=np.int32), lengths)
    return Inputs(
        spread(ids, encoder.padding_id), spread(positions, 0), spread(number, PADDING), starts, lengths
    )


def _starts(run: Run, texts: Sequence[Ints]) -> list[int]:
    starts = []
    for row, members in enumerate(run.texts):
        place = row * run.columns
        for index in members:
            starts.append(place)
            place += len(texts[index])
    return starts


def _counted_positions(ids: Ints, before: Ints, lengths: Ints, padding_id: int) -> Ints:
    """RoBERTa's positions: a text's n-th id that is not the padding token has padding_id + n.

    A text may contain the padding token itself, which then has position `padding_id` and is not
    counted.
    """
    real = ids != padding_id
    counts = np.cumsum(real, dtype=np.int32)
    counts -= np.repeat(counts[before] - real[before], lengths)
    return np.where(real, counts + padding_id, padding_id).astype(np.int32)
