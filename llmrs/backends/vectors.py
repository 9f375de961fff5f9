"""A batch's vectors as its backend wrote them, JSON values still to be read, to one float32 matrix.

Two readers. `llmrs._fast` reads what servers usually write, arrays of numbers and base64, straight
into the matrix, and nothing else. What it hands back, msgspec and the standard library read the
plain way, number by number: base64 with JSON escapes in it, numbers beyond float32's range or too
close to the middle between two of them, and all that is wrong and has to be refused. So the plain way
is what an answer means, and the kernels only say it sooner; the tests compare the two.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from llmrs import _fast
from llmrs.embeddings import Matrix
from llmrs.errors import UpstreamError

Row: TypeAlias = list[float | None]
"""A vector as JSON; null is how some servers write NaN."""

NOT_THE_PROTOCOL = "the backend's answer is not what its protocol says"


def to_matrix(rows: Sequence[msgspec.Raw], count: int, *, strings: bool = False) -> Matrix:
    """The matrix of `count` JSON arrays of numbers, or where `strings`, base64 of float32 as well.

    A null is NaN, and a number beyond float32's range infinity: the server refuses both. Raises
    UpstreamError unless there are `count` vectors of one width.
    """
    if len(rows) != count:
        raise UpstreamError(f"the backend answered {len(rows)} vectors to {count} inputs")
    matrix = _fast.read_vectors(tuple(rows), strings=strings)
    return read_plainly(rows, strings=strings) if matrix is None else matrix


def read_plainly(rows: Sequence[msgspec.Raw], *, strings: bool) -> Matrix:
    """What `to_matrix` means, without the kernels."""
    try:
        values = [(_STRING_OR_ROW if strings else _ROW).decode(row) for row in rows]
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise UpstreamError(NOT_THE_PROTOCOL) from None
    vectors = [_floats(value) if isinstance(value, str) else value for value in values]
    width = len(vectors[0]) if vectors else 0
    if not width or any(len(vector) != width for vector in vectors):
        raise UpstreamError("the backend's vectors are empty or differ in width")
    with np.errstate(over="ignore"):
        return np.array(vectors, dtype=np.float32)


_ROW: msgspec.json.Decoder[str | Row] = msgspec.json.Decoder(Row)
_STRING_OR_ROW: msgspec.json.Decoder[str | Row] = msgspec.json.Decoder(str | Row)


def _floats(text: str) -> NDArray[np.float32]:
    """The little-endian float32 numbers of standard base64."""
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4")
    except ValueError:
        raise UpstreamError("the backend's vectors are not base64 of float32 numbers") from None
