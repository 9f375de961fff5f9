"""The check of a model that has been loaded: a text has one vector, whatever it is computed with.

A few fixed texts are embedded each alone and then all together, which packs them side by side. Kernels
that round too much, a mask that leaks, or an engine that mixes rows up show here, before the first
request does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from llmrs.embeddings import Matrix
from llmrs.errors import NO_VECTOR, EngineError, ModelError
from llmrs.models.packing import Ints

LENGTHS = (3, 7, 13)
"""Tokens of the texts. They fill one row of 24, a shape that the warm-up has run."""

TOLERANCES = {"f32": 0.002, "f16": 0.01, "bf16": 0.05}
"""The longest difference of a text's two vectors, measured in their own length. Float32 rounds by 6e-8 of a
number, float16 by 5e-4, bfloat16 by 4e-3, and a model adds some of these up. Measured over all families:
1.4e-6 at most in float32, nothing in bfloat16, which rounds the differences away; where neighbours were seen,
0.1 to 1.6."""


def check(
    embed: Callable[[Sequence[Ints]], Matrix], *, vocabulary: int, longest: int, precision: str, place: str
) -> None:
    """Embed the texts alone and together, and compare.

    A vector that is not finite agrees with another such: there are models that give NaN for a rare token.

    Args:
        embed: texts as token ids to their vectors.
        vocabulary, longest: of the model: ids are below one, texts not longer than the other.
        precision: what it computes in.
        place: of the model, for the message.

    Raises:
        ModelError: they disagree, or none has a finite vector.
    """
    texts = _texts(vocabulary, longest)
    try:
        alone = np.concatenate([embed([text]) for text in texts])
        together = embed(texts)
    except EngineError as error:
        raise ModelError(f"{place}: {NO_VECTOR} when it was tried") from error
    finite = np.isfinite(alone).all(axis=1)
    if not finite.any():
        raise ModelError(f"{place}: the model gives NaN or infinity for every text; its weights are damaged")
    lengths = np.linalg.norm(alone[finite], axis=1)
    differences = np.linalg.norm(together[finite] - alone[finite], axis=1)
    # Not `differences > ...`: the difference to NaN is NaN.
    if not (differences <= TOLERANCES[precision] * lengths).all():
        raise ModelError(
            f"{place}: texts have other vectors in a batch than alone, computed in {precision}; "
            "set DTYPE=f32, or serve this model elsewhere and set BACKEND_URL"
        )


def _texts(vocabulary: int, longest: int) -> list[Ints]:
    """Ids from all over the vocabulary, always the same."""
    random = np.random.default_rng(0)
    return [random.integers(0, vocabulary, min(length, longest)).astype(np.int32) for length in LENGTHS]
