"""Whether two backends compute the same model's vectors: the same few texts, compared.

Pure functions on matrices. Two models' vectors in one index are an error that nobody notices, and names tell
nothing: what is served as `default` may be anything.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmrs.embeddings import Matrix
from llmrs.errors import UpstreamError

TEXTS = (
    "hello",
    "The quick brown fox jumps over the lazy dog.",
    "Wie spät ist es in Zürich? À bientôt, señor.",
    "今天天气很好，我们去公园散步吧。",
    "def area(r: float) -> float: return 3.14159 * r ** 2  # 42",
    (
        "A vector index holds one point for each passage of a text. To answer a question, the question is "
        "embedded by the same model, and the passages whose points lie nearest are read. If the points came "
        "from two models, the distances between them would mean nothing."
    ),
)
"""Short and long, several scripts, code: about 60 tokens at most, which every model takes."""

SAME = 0.999
"""Least cosine of one text's vectors by one model. Arithmetic in bfloat16 instead of float32 changes the
default model's to 0.9998 at worst; rounding its weights to 8 bits changes them to 0.983, and that costs
quality. Other models' are far below."""


def fingerprint(matrix: Matrix) -> Matrix:
    """The vectors of TEXTS scaled to length 1; raises UpstreamError where they have no direction."""
    rows = matrix.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not lengths.all():
        raise UpstreamError("the backend's vectors of the fixed texts are zero or not finite")
    scaled: Matrix = (rows / lengths).astype(np.float32)
    return scaled


def difference(one: Matrix, other: Matrix) -> str | None:
    """What is different in two fingerprints; None if they are the same model's."""
    if one.shape != other.shape:
        return f"{one.shape[1]} dimensions instead of {other.shape[1]}"
    cosine = float((one * other).sum(axis=1).min())
    return None if cosine >= SAME else f"cosine {cosine:.4f}, at least {SAME} expected"


def elect(prints: Sequence[Matrix | None]) -> int | None:
    """Whose vectors are to be the pool's: a position in `prints`, which are None where unknown.

    The first that a majority of all positions agrees with, where there are three or more; else the first
    that is known.
    """
    known = [i for i, found in enumerate(prints) if found is not None]
    for i in known if len(prints) >= 3 else ():
        if 2 * len(agreeing(prints, i)) > len(prints):
            return i
    return known[0] if known else None


def agreeing(prints: Sequence[Matrix | None], position: int) -> list[int]:
    """All positions whose fingerprints are the same model's as the one at `position`, itself included."""
    mine = prints[position]
    assert mine is not None
    return [i for i, found in enumerate(prints) if found is not None and difference(found, mine) is None]
