"""Backends that are HTTP services: the `Backend` contract on top of a transport and a protocol.

The backend may be absent when llmrs starts and may come and go: nothing here connects before the
first use, what it speaks is found out when it is first reached (once, whoever asks), and every call
says for itself how it went. What was found out then stays: a backend whose vectors change their
width has got another model, and a mixture of two models' vectors is an error nobody notices.

No gevent in here. Sleeping, locking and waiting for sockets park the greenlet where the process is
patched and the thread where it is not; the server puts its own timeout around `embed` besides.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, Literal

import msgspec
import numpy as np

from llmrs.backends.base import CALL_HEADERS, Backend
from llmrs.backends.connections import Broken
from llmrs.backends.discovery import PROBE, Found, discover
from llmrs.backends.parts import share_out, split
from llmrs.backends.protocols import Protocol, Reply
from llmrs.backends.pulse import Pulse
from llmrs.backends.refusals import (
    Failed,
    FailedOnInput,
    Unreadable,
    described,
    encoding_of,
    may_blame_input,
    refusal,
)
from llmrs.backends.sizes import Size, Sizes
from llmrs.backends.transport import Transport, ignored_proxy
from llmrs.backends.vitals import health_path, is_well
from llmrs.config import Config
from llmrs.embeddings import Input, Limits, ModelInfo, Prepared, Truncate, Vectors
from llmrs.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    InvalidRequest,
    QueueFull,
    UpstreamError,
    UpstreamRejected,
    UpstreamTooLong,
)

log = logging.getLogger("llmrs.backend")

DEFAULT_SLOTS = 4
"""Batches in flight where `workers` is not set: enough to hide a network's round trips."""

TRIES = 3
"""Most times a batch is sent, to a backend that answers it with 429 or to several."""

BACKOFF = 0.25
"""Seconds before the second try, doubled for the third, where the backend names none (TEI does not)."""

LONGEST_VECTOR = 512 << 10
"""Bytes of one vector's JSON: 16,384 numbers of 32 characters, twice the widest model known."""

LONGEST_ANSWER = 256 << 20
"""Bytes of a whole answer, whatever the batch: what llmrs will hold in memory for one."""

HELLO_SECONDS = 10.0
"""How long a backend that failed may take for one short text: it may have batches to compute first."""


class Unanswered(UpstreamError):
    """A health check got no answer in time; a backend may also be too busy for one."""


def open_address(config: Config, url: str, *, tries: int = TRIES) -> HttpBackend:
    """The backend at `url`. Does no I/O, and succeeds while the backend is absent.

    Raises ConfigError if the address is not valid.
    """
    # One connection more than slots, so that a health check never displaces a batch's.
    connections = (config.workers or DEFAULT_SLOTS) + 1
    transport = Transport(
        url, connections=connections, api_key=config.backend_api_key, ca_file=config.backend_ca_file
    )
    if proxy := ignored_proxy(url):
        message = (
            "backend %s is asked directly: backends are not reached through a proxy, and %s has no effect"
        )
        log.warning(message, url, proxy)
    return HttpBackend(config, transport, tries=tries)


class HttpBackend(Backend):
    """One HTTP service that computes vectors.

    Attributes:
        kind: the protocol's name; `auto` until it is known.
        address: the backend's URL, for logs and `/health`.
        sizes: how much it takes in a call.
    """

    waits_on: ClassVar[Literal["cpu", "network"]] = "network"
    counts_tokens = False

    def __init__(self, config: Config, transport: Transport, *, tries: int = TRIES) -> None:
        """`tries` is how often a batch is sent to a backend that is busy."""
        self.kind = config.backend_protocol
        self.address = transport.address
        self._config = config
        self._transport = transport
        self._tries = tries
        self._found: Found | None = None
        self._health_path: str | None = None
        self._searching = threading.Lock()
        self._pulse = Pulse()
        self.sizes = Sizes()
        self._trouble: str | None = None

    @property
    def info(self) -> ModelInfo:
        return self._found.info if self._found else ModelInfo(self._config.model_name)

    @property
    def limits(self) -> Limits:
        """The configured limits, narrowed to the protocol's and the backend's own once they are known."""
        config = self._config
        bounds = self._found.protocol if self._found else Protocol
        return Limits(
            batch_size=min(config.batch_size, self._most(bounds).items),
            batch_tokens=min(config.max_batch_tokens, bounds.max_tokens),
            slots=config.workers or DEFAULT_SLOTS,
        )

    @property
    def takes_ids(self) -> bool:
        """Whether an input may be a list of token ids, as far as is known."""
        return self._found is None or self._found.protocol.takes_ids

    def prepare(
        self, inputs: Sequence[Input], *, truncate: Truncate | None = "none", prompt: str = ""
    ) -> list[Prepared]:
        """Make inputs ready: texts stay texts, token ids are passed on to backends that take them.

        A text's `n_tokens` is an estimate, a quarter of its UTF-8 bytes plus two special tokens; it
        balances batches, and divides the total that the backend reports.

        `truncate` has no effect: only the backend can count tokens, and those that can be told are
        told not to cut, so an over-long input is refused and never cut without a word.
        """
        return [self._prepare_one(index, value, prompt) for index, value in enumerate(inputs)]

    def _prepare_one(self, index: int, value: Input, prompt: str) -> Prepared:
        if isinstance(value, str):
            text = prompt + value
            try:
                return Prepared(text, len(text.encode()) // 4 + 2)
            except UnicodeEncodeError:
                raise InvalidRequest(f"input[{index}] is not valid Unicode", param="input") from None
        if not self.takes_ids:
            raise InvalidRequest(f"input[{index}]: the backend takes texts, not token ids", param="input")
        longest = self.info.max_input_tokens
        if longest is not None and len(value) > longest:
            raise ContextLengthExceeded(longest, index=index, found=len(value))
        return Prepared(value, len(value))

    def embed(self, batch: Sequence[Prepared], *, timeout: float) -> Vectors:
        """Vectors of a batch, in as many requests as the backend's limits and kinds of input ask for.

        Raises:
            UpstreamRejected: the backend refused an input; UpstreamTooLong: because of its length.
            FailedOnInput: it failed on this batch, and embeds other texts.
            UpstreamError: unreachable, failed, or its answer is not the batch's vectors.
            QueueFull: it is busy (429) for longer than may be waited.
            DeadlineExceeded: not done within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        with self._reporting():
            protocol, info = self._reach(deadline)
            items = [msgspec.json.encode(item.payload) for item in batch]
            texts = [isinstance(item.payload, str) for item in batch]
            if not protocol.takes_ids and not all(texts):
                raise UpstreamRejected("the backend takes texts, not token ids", param="input")
            most = self._most(protocol)
            parts = split(items, texts, max_items=most.items, max_bytes=most.n_bytes)
            replies = [self._embed(protocol, [items[i] for i in part], deadline) for part in parts]
            for reply in replies:
                _check_width(reply, info)
        return _assemble(batch, parts, replies)

    def check(self, *, timeout: float) -> None:
        """Return if the backend answers: the search for its protocol while unknown, then what `vitals` asks.

        Raises UpstreamError.
        """
        deadline = time.monotonic() + timeout
        try:
            if self._found is None:
                self._reach(deadline)
                return
            if self._health_path is not None:
                is_well(self._transport, self._health_path, deadline)
        except DeadlineExceeded:
            raise Unanswered("the backend did not answer a health check in time") from None

    def forget(self) -> None:
        """Find out anew, at the next use, what the backend is: it may have been replaced."""
        self._found = None
        self.sizes.forget()

    def close(self) -> None:
        self._transport.close()

    def _reach(self, deadline: float) -> Found:
        """What the backend is, found out by the first who asks while the others wait."""
        if self._found is None:
            if not self._searching.acquire(timeout=max(deadline - time.monotonic(), 0)):
                raise DeadlineExceeded("the backend did not answer in time")
            try:
                if self._found is None:
                    found = discover(self._transport, self._config, deadline)
                    self.kind = found.protocol.name
                    self._health_path = health_path(
                        self._transport, found.protocol, found.info.name, deadline
                    )
                    self._found = found
            finally:
                self._searching.release()
        return self._found

    def _embed(self, protocol: Protocol, items: list[bytes], deadline: float) -> Reply:
        """One request's vectors. Its inputs are to blame for a failure only if the backend embeds others."""
        began = time.monotonic()
        try:
            reply = self._ask(protocol, items, deadline)
        except UpstreamRejected as error:
            certain = len(items) == 1 or isinstance(error, UpstreamTooLong)
            if not certain and not self._lives(protocol, began, deadline):
                raise UpstreamError("the backend refuses every input") from None
            self.sizes.refused(items, certain=True)
            raise
        except UpstreamError as error:
            # What ended a connection may have ended a process: each time it counts whether there is another.
            anew = isinstance(error, Broken)
            if may_blame_input(error) and self._lives(protocol, began, deadline, anew=anew):
                self.sizes.refused(items, certain=False)
                raise FailedOnInput(error) from None
            raise
        self._pulse.beat()
        self.sizes.passed(items)
        return reply

    def _most(self, bounds: Protocol | type[Protocol]) -> Size:
        """The largest call: the protocol's own bounds, and what the address has turned out to take."""
        return self.sizes.most(Size(bounds.max_items, bounds.max_bytes))

    def _lives(self, protocol: Protocol, began: float, deadline: float, *, anew: bool = False) -> bool:
        until = min(deadline, time.monotonic() + HELLO_SECONDS)
        return self._pulse.lives(began, lambda: self._embeds(protocol, until), anew=anew)

    def _embeds(self, protocol: Protocol, deadline: float) -> bool:
        """Whether the backend embeds a short text; one that is too busy to do so may."""
        try:
            self._ask(protocol, [PROBE], deadline)
        except QueueFull:
            return True
        except (UpstreamError, UpstreamRejected, DeadlineExceeded):
            return False
        return True

    def _ask(self, protocol: Protocol, items: list[bytes], deadline: float) -> Reply:
        """One request's vectors; waits out a 429 as long as the deadline allows."""
        body = protocol.body(items)
        limit = min(LONGEST_VECTOR * (len(items) + 1), LONGEST_ANSWER)
        for attempt in range(self._tries):
            # A backend that knows the header, as llmrs does, drops what nobody waits for any more.
            left = max(deadline - time.monotonic(), 0.001)  # 0 would be no time but an error
            lines = b"x-request-timeout: %.3f\r\n%b" % (left, CALL_HEADERS.get())
            answer = self._transport.post(protocol.path, body, deadline=deadline, limit=limit, lines=lines)
            if answer.status == 200:
                if encoding_of(answer):
                    raise Failed(answer.status, described(answer))
                try:
                    return protocol.read(answer.body, answer.headers, len(items))
                except UpstreamError as error:
                    raise Unreadable(error.message) from None
            if answer.status != 429:
                raise refusal(answer, self.info.max_input_tokens)
            wait = answer.retry_after
            pause = BACKOFF * 2**attempt if wait is None else wait
            if attempt + 1 == self._tries or time.monotonic() + pause >= deadline:
                break
            time.sleep(pause)
        raise QueueFull("the backend is busy", retry_after=pause)

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Tell how a batch went. What the caller or a busy backend caused is no news."""
        try:
            yield
        except FailedOnInput:
            self._report(None)
            raise
        except (UpstreamError, DeadlineExceeded) as error:
            self._report(error.message)
            raise
        else:
            self._report(None)

    def _report(self, trouble: str | None) -> None:
        """Log when batches begin to fail, fail differently or succeed again, but not each of them."""
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble is None:
            log.info("backend %s embeds again", self.address)
        else:
            log.warning("backend %s: %s", self.address, trouble)


def _check_width(reply: Reply, info: ModelInfo) -> None:
    width = reply.matrix.shape[1]
    if width != info.dimensions:
        raise UpstreamError(f"the backend's vectors had {info.dimensions} dimensions and now have {width}")


def _assemble(batch: Sequence[Prepared], parts: list[list[int]], replies: list[Reply]) -> Vectors:
    """One matrix of the parts' replies, and the tokens of each input where the backend counted them."""
    counts = [item.n_tokens for item in batch]
    counted = False
    for part, reply in zip(parts, replies, strict=True):
        if reply.n_tokens is None or reply.n_tokens < len(part):  # no input has less than one token
            continue
        counted = True
        for i, share in zip(part, share_out(reply.n_tokens, [counts[i] for i in part]), strict=True):
            counts[i] = share
    if len(parts) == 1:
        matrix = replies[0].matrix
    else:
        matrix = np.empty((len(batch), replies[0].matrix.shape[1]), dtype=np.float32)
        for part, reply in zip(parts, replies, strict=True):
            matrix[part] = reply.matrix
    return Vectors(matrix, counts if counted else None)
