"""One batch's vectors from the answers to the calls that its inputs were asked in.

Pure functions on matrices and counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmrs.backends.long_inputs import Part
from llmrs.backends.parts import share_out
from llmrs.backends.protocols import Reply
from llmrs.backends.telling import UNSHORTENED
from llmrs.embeddings import CallOptions, Matrix, ModelInfo, Prepared, Vectors
from llmrs.errors import UpstreamError, UpstreamRejected


class Unshortened(UpstreamRejected):
    """The backend was told `dimensions`, and answered the whole vectors."""

    def __init__(self) -> None:
        super().__init__(UNSHORTENED, param="dimensions")


def check_width(reply: Reply, info: ModelInfo, options: CallOptions | None) -> None:
    """Raise unless the vectors are as wide as the model's, or as those that were asked for."""
    width, asked = reply.matrix.shape[1], options.dimensions if options else None
    if width == (asked or info.dimensions):
        return
    if width == info.dimensions:
        raise Unshortened
    if asked is not None:
        raise UpstreamError(f"the backend's vectors have {width} dimensions where {asked} were asked for")
    raise UpstreamError(f"the backend's vectors had {info.dimensions} dimensions and now have {width}")


def assemble(batch: Sequence[Prepared], parts: Sequence[Part], info: ModelInfo) -> Vectors:
    """One matrix of the parts' replies, and of each input its tokens and whether it was cut, where known.

    Rows that are shorter than the model's end in zeros, so that all of a batch are of one width.
    """
    counts = [item.n_tokens for item in batch]
    counted = False
    for part in parts:
        total = part.reply.n_tokens
        if total is None or total < len(part.positions):  # no input has less than one token
            continue
        counted = True
        shares = share_out(total, [counts[i] for i in part.positions])
        for i, share in zip(part.positions, shares, strict=True):
            counts[i] = share
    cut = frozenset[int]().union(*(part.cut for part in parts))
    return Vectors(
        _matrix(len(batch), parts, info),
        counts if counted else None,
        cut=[i in cut for i in range(len(batch))] if cut else None,
    )


def _matrix(count: int, parts: Sequence[Part], info: ModelInfo) -> Matrix:
    first = parts[0].reply.matrix
    if len(parts) == 1 and first.shape[1] == info.dimensions:
        return first
    matrix = np.zeros((count, info.dimensions or 0), dtype=np.float32)
    for part in parts:
        rows = part.reply.matrix
        matrix[part.positions, : rows.shape[1]] = rows
    return matrix
