"""The memory that request bodies take, over all requests of the process.

`payload_limit` bounds one body; this bounds their sum, or a few hundred clients could fill any memory
with bodies that they send and requests that then wait. Bytes are counted as they come, not as they
are declared: who only announces a large body takes no room from others. A request holds what it has
taken until it is answered, because the texts made of its body live as long.

The first `FREE_BYTES` of a body are not counted. Most bodies are no longer: they cost nothing here,
and are served while large uploads are turned away. What that adds is bounded by the number of
connections.
"""

from __future__ import annotations

from llmrs.errors import PayloadMemoryFull

FREE_BYTES = 64 * 1024
"""Of each body. With the 2,000 connections of the default, 125 MiB at most."""

HELD = "llmrs.held_memory"
"""Key of the WSGI environ: what the request holds, to be released when it is answered."""

RETRY_SECONDS = 1.0
"""How soon there is room again is known to nobody: it depends on how fast clients send."""


class PayloadMemory:
    """How many bytes bodies may take, and how many they have taken."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0

    def share(self) -> Share:
        """The part of one request, empty so far."""
        return Share(self)


class Share:
    """What one request has taken. Whoever makes it sees to its release."""

    __slots__ = ("_memory", "taken")

    def __init__(self, memory: PayloadMemory) -> None:
        self._memory = memory
        self.taken = 0

    def take(self, size: int) -> None:
        """Take `size` more bytes.

        Raises:
            PayloadMemoryFull: there is no room for them. What has been taken stays taken.
        """
        memory = self._memory
        if memory.taken + size > memory.limit:
            raise PayloadMemoryFull(
                "large request bodies take all of the memory that payload_memory allows",
                retry_after=RETRY_SECONDS,
            )
        memory.taken += size
        self.taken += size

    def release(self) -> None:
        """Give all of it back. May be called again."""
        self._memory.taken -= self.taken
        self.taken = 0
