"""Where a backend says for nothing that it is there: what a health check asks.

`/health` is not always it. LiteLLM's sends a paid completion to every deployment behind it, SGLang's
generates a token. So of servers that speak OpenAI's protocol only those known to answer `/health` from what
they know are asked for it; any other one for LiteLLM's `/health/liveliness` if it has that, else for its list
of models.
"""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from llmrs.backends.protocols import Protocol
from llmrs.backends.transport import Answer, Transport
from llmrs.errors import DeadlineExceeded, UpstreamError

PATHS = {"embed": "/health", "tei": "/health", "ollama": "/api/version", "azure": "/health"}
"""By protocol."""

FREE = frozenset(("vllm", "llamacpp", "infinity", "llmrs"))
"""Who serves `/health` for nothing, as `owned_by` in their lists of models calls them."""

LIVELINESS = "/health/liveliness"
"""LiteLLM's, which asks nobody else."""

LONG = 1 << 16
"""Bytes of a list of models that is too long to be fetched every few seconds: a marketplace's."""

LONGEST = 16 << 20
"""Bytes of a list that are read once."""


class _Owned(msgspec.Struct):
    owned_by: str | None = None


class _Models(msgspec.Struct):
    data: list[_Owned]


def health_path(transport: Transport, protocol: Protocol, model: str | None, deadline: float) -> str | None:
    """The path to ask whether a backend is well, which embeds at this moment; None where none says so."""
    if protocol.name in PATHS:
        return PATHS[protocol.name]
    try:
        return _of_openai(transport, f"{protocol.path.removesuffix('/embeddings')}/models", model, deadline)
    except (UpstreamError, DeadlineExceeded):
        return None


def _of_openai(transport: Transport, listing: str, model: str | None, deadline: float) -> str | None:
    answer = transport.get(listing, deadline=deadline, limit=LONGEST)
    if _owner(answer) in FREE:
        return "/health"
    if transport.get(LIVELINESS, deadline=deadline, limit=LONGEST).status == 200:
        return LIVELINESS
    if answer.status >= 500:
        return None
    return listing if len(answer.body) <= LONG else f"{listing}/{quote(model or '', safe='')}"


def is_well(transport: Transport, path: str, deadline: float) -> None:
    """Return if a backend answers at `path` with less than 500: not every one has each path.

    Raises:
        UpstreamError: it says that it is not well, or cannot be reached.
        DeadlineExceeded: it did not answer in time.
    """
    status = transport.get(path, deadline=deadline, limit=LONGEST).status
    if status >= 500:
        raise UpstreamError(f"the backend says that it is not healthy (HTTP {status})")


def _owner(answer: Answer) -> str | None:
    try:
        models = msgspec.json.decode(answer.body, type=_Models).data
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return models[0].owned_by if models else None
