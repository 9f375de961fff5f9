"""Which end a too long input loses, or whether it is refused.

What counts is, in this order: what the request says; the configured `truncate`; the side that the model's
tokenizer is made for. A backend behind HTTP that is told nothing does as it does by itself.
"""

from __future__ import annotations

from llmrs.embeddings import AskedTruncate, ModelInfo, Side, Truncate


def choose_truncation(
    asked: AskedTruncate | None,
    side: Side | None,
    configured: Truncate | None,
    info: ModelInfo,
    *,
    counts_tokens: bool = True,
) -> Truncate | None:
    """What `Backend.prepare` is told for a request that asks for `asked`, at the end `side`.

    `side` alone says where to cut, should it come to that: it changes neither a refusal nor chunks. None
    is the answer where nobody says anything and the backend counts its tokens itself.
    """
    if asked == "cut":
        end = side or (configured if configured in ("start", "end") else None)
        return end or info.truncation_side
    if asked is not None:
        return asked
    if configured in ("none", "chunk_mean"):
        return configured
    if side is not None or configured is not None:
        return side or configured
    return info.truncation_side if counts_tokens else None
