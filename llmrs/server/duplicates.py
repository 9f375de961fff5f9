"""Identical texts of one batch are computed once, whoever sent them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmrs.embeddings import Prepared, Vectors
from llmrs.errors import UpstreamError


def embed_distinct(embed: Callable[[Sequence[Prepared]], Vectors], texts: Sequence[Prepared]) -> Vectors:
    """What `embed(texts)` gives, asking it for each text once.

    Raises:
        UpstreamError: `embed` gave another number of vectors than it got texts.
    """
    distinct, positions = _distinct(texts)
    if positions is None:
        return embed(texts)
    vectors = embed(distinct)
    if len(vectors.matrix) != len(distinct):
        raise UpstreamError("the backend gave another number of vectors than texts")
    counts = vectors.n_tokens
    n_tokens = None if counts is None else [counts[position] for position in positions]
    return Vectors(vectors.matrix[positions], n_tokens)


def _distinct(texts: Sequence[Prepared]) -> tuple[list[Prepared], NDArray[np.intp] | None]:
    """Each text once, in order of first appearance, and for every text its place there.

    The places are None where all differ, as they usually do.
    """
    places: dict[Hashable, int] = {}
    positions = [places.setdefault(_key(text.payload), len(places)) for text in texts]
    if len(places) == len(texts):
        return list(texts), None
    first: list[Prepared | None] = [None] * len(places)
    for position, text in zip(positions, texts, strict=True):
        first[position] = first[position] or text
    return [text for text in first if text is not None], np.array(positions, np.intp)


def _key(payload: Any) -> Hashable:
    """What makes two payloads the same: a text itself, the bytes of token ids."""
    if isinstance(payload, str):
        return payload
    return payload.tobytes() if isinstance(payload, np.ndarray) else tuple(payload)
