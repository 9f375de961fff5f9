"""Inputs that are too long for the model, as the mean of their chunks.

Whoever prepares inputs splits them (`Prepared.chunks`); here the chunks take their places among the texts
to compute, as inputs of their own, and their vectors become one. That vector is the mean of those which
the chunks would be answered with, each weighted by its tokens: of unit vectors where the answer has unit
vectors, so that no chunk counts more for having a longer vector. Chunks share their prompt and special
tokens, so these have no weight.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llmrs.embeddings import Matrix, Prepared


def spread(prepared: Sequence[Prepared]) -> Sequence[Prepared]:
    """The texts to compute: each input or, in its place, its chunks, which know the input's index."""
    if not any(text.chunks for text in prepared):
        return prepared
    return [
        part._replace(owner=index) for index, text in enumerate(prepared) for part in text.chunks or (text,)
    ]


def gather(matrix: Matrix, prepared: Sequence[Prepared], width: int | None, normalize: bool) -> Matrix:
    """The vectors of inputs from those of the texts that `spread` made of them.

    Answers have the first `width` numbers of a vector (None: all), scaled to length 1 if `normalize`. A
    vector that is not finite makes its input's so.
    """
    if not any(text.chunks for text in prepared):
        return matrix
    result = np.empty((len(prepared), matrix.shape[1]), np.float32)
    start = 0
    for index, text in enumerate(prepared):
        stop = start + (len(text.chunks) or 1)
        rows = matrix[start:stop]
        result[index] = _mean(rows, text.chunks, width, normalize) if text.chunks else rows[0]
        start = stop
    return result


def _mean(
    rows: Matrix, chunks: Sequence[Prepared], width: int | None, normalize: bool
) -> NDArray[np.float64]:
    """In float64: a book is hundreds of chunks, and squares of large float32 numbers overflow."""
    wide = rows.astype(np.float64)
    weights = np.array([chunk.weight for chunk in chunks], np.float64)
    weights /= weights.sum()
    with np.errstate(invalid="ignore"):  # numbers that are not finite are found when they are written
        if normalize:
            cut = wide[:, :width]
            lengths = np.sqrt(np.einsum("ij,ij->i", cut, cut))
            weights = np.divide(weights, lengths, out=np.zeros_like(weights), where=lengths != 0)
        mean: NDArray[np.float64] = np.einsum("i,ij->j", weights, wide)
    return mean
