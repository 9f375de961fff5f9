"""text-embeddings-inference."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from llmrs.backends.protocols.base import Protocol, Reply, count_of, decode
from llmrs.backends.vectors import to_matrix


class TEI(Protocol):
    """`/embed` with `inputs`: text-embeddings-inference.

    `truncate` is sent as false: its default cuts long inputs without a word.
    """

    name = "tei"
    path = "/embed"
    max_bytes = 2_000_000 - 1024  # --payload-limit, less what surrounds the inputs

    def __init__(self, *, max_items: int = 32) -> None:
        self.max_items = max_items  # --max-client-batch-size
        super().__init__({"truncate": False, "normalize": False}, "inputs")

    def read(self, body: bytes, headers: Mapping[str, str], count: int) -> Reply:
        tokens = headers.get("x-compute-tokens", "")
        total = int(tokens) if tokens.isdecimal() and len(tokens) < 16 else None
        rows: list[msgspec.Raw] = decode(_ROWS, body)
        return Reply(to_matrix(rows, count), count_of(total))


_ROWS = msgspec.json.Decoder(list[msgspec.Raw])
