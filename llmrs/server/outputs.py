"""Whether the numbers that a request asks for can be made of a model's vectors."""

from __future__ import annotations

from llmrs.errors import InvalidRequest
from llmrs.wire import EmbeddingRequest, packs_bits


def check_output(request: EmbeddingRequest, width: int | None, unit_vectors: bool) -> None:
    """Raise InvalidRequest unless the request's `output_dtype` fits the vectors it would get.

    `width` is the model's, None while it is not known; `unit_vectors` tells whether no number of them
    is beyond 1 in absolute value. Of others, bytes would be clipped, and a clipped vector is a wrong one
    without a sign of it.
    """
    dtype = request.output_dtype
    if dtype in ("int8", "uint8") and not unit_vectors:
        raise InvalidRequest(
            f"{dtype} is made of vectors of length 1, which are not made here: normalize, or ask for float16",
            param="output_dtype",
        )
    width = request.dimensions or width
    if packs_bits(dtype) and width is not None and width % 8:
        raise InvalidRequest(
            f"dimensions must be a multiple of 8 for {dtype}, not {width}: a byte has eight bits",
            param="dimensions",
        )
