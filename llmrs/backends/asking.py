"""One request to an HTTP backend and its answer; a backend that is busy is waited for."""

from __future__ import annotations

import time

from llmrs.backends.base import CALL_HEADERS
from llmrs.backends.protocols import Protocol, Reply
from llmrs.backends.refusals import Failed, Unreadable, described, encoding_of, refusal
from llmrs.backends.room import Room
from llmrs.backends.transport import Answer, Transport
from llmrs.embeddings import CallOptions
from llmrs.errors import QueueFull, UpstreamError

BACKOFF = 0.25
"""Seconds before the second try of a busy backend, where it names none (TEI does not)."""

LONGEST_BACKOFF = 2.0
"""Seconds up to which that is doubled from try to try."""

LONGEST_VECTOR = 512 << 10
"""Bytes of one vector's JSON: 16,384 numbers of 32 characters, twice the widest model known."""

LONGEST_ANSWER = 256 << 20
"""Bytes of a whole answer, whatever the batch: what llmrs will hold in memory for one."""


class Asker:
    """Asks one address. Safe to share between threads and between greenlets.

    Args:
        patience: most seconds that a busy backend is waited for.
        slots: most requests at a time, of which `room` says how many the backend takes now.
    """

    def __init__(self, transport: Transport, *, patience: float, slots: int) -> None:
        self.room = Room(slots)
        self._transport = transport
        self._patience = patience

    def ask(
        self,
        protocol: Protocol,
        items: list[bytes],
        deadline: float,
        options: CallOptions | None = None,
        longest: int | None = None,
    ) -> Reply:
        """The vectors of inputs that are JSON already.

        Args:
            deadline: a `time.monotonic()` moment.
            longest: most tokens of an input, for messages.

        Raises:
            UpstreamRejected, UpstreamError, DeadlineExceeded: as `HttpBackend.embed`.
            QueueFull: it is busy (429) for longer than may be waited.
        """
        body = protocol.body(items, options)
        limit = min(LONGEST_VECTOR * (len(items) + 1), LONGEST_ANSWER)
        answer = self._post(protocol.path, body, deadline, limit)
        if answer.status != 200:
            raise refusal(answer, longest)
        if encoding_of(answer):
            raise Failed(answer.status, described(answer))
        self.room.took()
        try:
            return protocol.read(answer.body, answer.headers, len(items))
        except UpstreamError as error:
            raise Unreadable(error.message) from None

    def _post(self, path: str, body: bytes, deadline: float, limit: int) -> Answer:
        """The answer that is no 429."""
        until = min(deadline, time.monotonic() + self._patience)
        attempt = 0
        while True:
            # A backend that knows the header, as llmrs does, drops what nobody waits for any more.
            left = max(deadline - time.monotonic(), 0.001)  # 0 would be no time but an error
            lines = b"x-request-timeout: %.3f\r\n%b" % (left, CALL_HEADERS.get())
            answer = self._transport.post(path, body, deadline=deadline, limit=limit, lines=lines)
            if answer.status != 429:
                return answer
            self.room.full()
            pause = _pause(answer.retry_after, attempt)
            if time.monotonic() + pause >= until:
                raise QueueFull("the backend is busy", retry_after=pause)
            time.sleep(pause)
            attempt += 1


def _pause(asked: float | None, attempt: int) -> float:
    """Seconds until a busy backend is asked again: as it says, but each further time later."""
    if asked is not None and attempt == 0:
        return asked
    return max(asked or 0.0, min(BACKOFF * 2.0**attempt, LONGEST_BACKOFF))
