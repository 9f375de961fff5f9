"""One batch on its way to an HTTP backend: which of its inputs go together, and what becomes of long ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec

from llmrs.backends.discovery import Found
from llmrs.backends.long_inputs import Part, ask_twice
from llmrs.backends.parts import split
from llmrs.backends.preparing import NOTHING
from llmrs.backends.protocols import Reply
from llmrs.backends.sizes import Size
from llmrs.backends.telling import check_late
from llmrs.backends.transport import Transport
from llmrs.embeddings import CallOptions, Prepared
from llmrs.errors import UpstreamError, UpstreamRejected

Ask: TypeAlias = Callable[[list[bytes], CallOptions | None], Reply]
"""One call for the vectors of inputs that are JSON already."""

LONGEST_TOKENS = 256 << 20
"""Bytes of the answer that lists a batch's tokens."""


class Call:
    """A batch, and when it has to be done.

    Args:
        deadline: a `time.monotonic()` moment.
        most: the largest call.
        ask: gets some of its inputs' vectors by then.

    Raises:
        UpstreamRejected: an input or its options are none that the backend can be given.
    """

    def __init__(
        self,
        transport: Transport,
        found: Found,
        batch: Sequence[Prepared],
        deadline: float,
        most: Size,
        ask: Ask,
    ) -> None:
        self._transport = transport
        self._protocol, info = found
        self._longest = info.max_input_tokens
        self._batch = batch
        self._deadline = deadline
        self._most = most
        self._ask = ask
        self._items = [msgspec.json.encode(item.payload) for item in batch]
        self._kinds = [(isinstance(item.payload, str), item.options) for item in batch]
        for is_text, options in set(self._kinds):
            if not is_text and not self._protocol.takes_ids:
                raise UpstreamRejected("the backend takes texts, not token ids", param="input")
            check_late(self._protocol, options or NOTHING)

    def parts(self) -> list[Part]:
        """The answers to all inputs. One call carries one kind of them, and one kind of wishes."""
        most = self._most
        together = split(self._items, self._kinds, max_items=most.items, max_bytes=most.n_bytes)
        return [part for positions in together for part in self._embed(positions)]

    def _embed(self, positions: list[int]) -> list[Part]:
        options = self._batch[positions[0]].options
        if not self._protocol.refuses_on_request or (options and options.truncate == "none"):
            return [Part(positions, self._send(positions, options))]
        return ask_twice(positions, options, self._send, self._find_long, self._looks_long)

    def _send(self, positions: list[int], options: CallOptions | None) -> Reply:
        return self._ask([self._items[i] for i in positions], options)

    def _looks_long(self, position: int) -> bool:
        return self._longest is not None and self._batch[position].n_tokens > self._longest

    def _find_long(self, positions: list[int]) -> list[int] | None:
        """Which inputs are too long, as the backend counts; None where it does not tell."""
        lengths = None if self._longest is None else self._lengths(positions)
        if lengths is None:
            return None
        return [i for i, length in zip(positions, lengths, strict=True) if length > (self._longest or 0)]

    def _lengths(self, positions: list[int]) -> list[int] | None:
        payloads = [self._batch[i].payload for i in positions]
        if isinstance(payloads[0], list):
            return [len(ids) for ids in payloads]
        if self._protocol.tokenizer is None:
            return None
        body = b'{"inputs":[%b]}' % b",".join(self._items[i] for i in positions)
        path, deadline = self._protocol.tokenizer, self._deadline
        answer = self._transport.post(path, body, deadline=deadline, limit=LONGEST_TOKENS)
        try:
            lengths = self._protocol.read_lengths(answer.body) if answer.status == 200 else []
        except UpstreamError:
            return None
        return lengths if len(lengths) == len(positions) else None
