"""text-embeddings-inference."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from llmrs.backends.protocols.base import Protocol, Reply, count_of, decode
from llmrs.backends.vectors import to_matrix


class TEI(Protocol):
    """`/embed` with `inputs`: text-embeddings-inference.

    By itself it cuts the end of long inputs without a word, unless it was started with --auto-truncate
    false. It cuts vectors before it would normalize them, so they are scaled here.
    """

    name = "tei"
    path = "/embed"
    max_bytes = 2_000_000 - 1024  # --payload-limit, less what surrounds the inputs
    truncates = MappingProxyType(
        {
            "none": {"truncate": False},
            "end": {"truncate": True, "truncation_direction": "Right"},
            "start": {"truncate": True, "truncation_direction": "Left"},
        }
    )
    shortens = True
    keeps_lengths = True
    takes_ids = True
    tokenizer = "/tokenize"

    def __init__(
        self, *, max_items: int = 32, max_calls: int | None = None, takes_empty: bool = False
    ) -> None:
        self.takes_empty = takes_empty
        self.max_items = max_items  # --max-client-batch-size
        self.max_calls = max_calls or Protocol.max_calls  # --max-concurrent-requests
        super().__init__({"normalize": False}, "inputs")

    def read(self, body: bytes, headers: Mapping[str, str], count: int) -> Reply:
        tokens = headers.get("x-compute-tokens", "")
        total = int(tokens) if tokens.isdecimal() and len(tokens) < 16 else None
        rows: list[msgspec.Raw] = decode(_ROWS, body)
        return Reply(to_matrix(rows, count), count_of(total))

    def read_lengths(self, body: bytes) -> list[int]:
        return [len(tokens) for tokens in decode(_TOKENS, body)]


_TOKENS = msgspec.json.Decoder(list[list[msgspec.Raw]])
_ROWS = msgspec.json.Decoder(list[msgspec.Raw])
