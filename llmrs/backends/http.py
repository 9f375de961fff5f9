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

from llmrs.backends.answers import Unshortened, assemble, check_width
from llmrs.backends.asking import Asker
from llmrs.backends.azure import KEY_HEADER, Deployment, find_deployment
from llmrs.backends.base import Backend
from llmrs.backends.calls import Call
from llmrs.backends.connections import Broken
from llmrs.backends.discovery import PROBE, Found, discover
from llmrs.backends.preparing import prepare_one
from llmrs.backends.protocols import Protocol, Reply
from llmrs.backends.pulse import Pulse
from llmrs.backends.refusals import FailedOnInput, may_blame_input
from llmrs.backends.sizes import Size, Sizes
from llmrs.backends.transport import Transport, ignored_proxy
from llmrs.backends.vitals import health_path, is_well
from llmrs.config import Config
from llmrs.embeddings import CallOptions, Input, Limits, ModelInfo, Prepared, Truncate, Vectors
from llmrs.errors import (
    DeadlineExceeded,
    QueueFull,
    UpstreamError,
    UpstreamRejected,
    UpstreamTooLong,
)

log = logging.getLogger("llmrs.backend")

DEFAULT_SLOTS = 4
"""Batches in flight where `workers` is not set: enough to hide a network's round trips."""

TRIES = 3
"""Most times a batch is sent, to several backends."""

HELLO_SECONDS = 10.0
"""How long a backend that failed may take for one short text: it may have batches to compute first."""


class Unanswered(UpstreamError):
    """A health check got no answer in time; a backend may also be too busy for one."""


def open_address(config: Config, url: str, *, patient: bool = True) -> HttpBackend:
    """The backend at `url`. Does no I/O, and succeeds while the backend is absent.

    Raises ConfigError if the address is not valid.
    """
    # One connection more than slots, so that a health check never displaces a batch's.
    connections = (config.workers or DEFAULT_SLOTS) + 1
    azure = find_deployment(config, url)
    transport = Transport(
        azure.base if azure else url,
        connections=connections,
        api_key=config.backend_api_key,
        key_header=KEY_HEADER if azure else None,
        ca_file=config.backend_ca_file,
    )
    if proxy := ignored_proxy(url):
        message = (
            "backend %s is asked directly: backends are not reached through a proxy, and %s has no effect"
        )
        log.warning(message, url, proxy)
    return HttpBackend(config, transport, patient=patient, azure=azure)


class HttpBackend(Backend):
    """One HTTP service that computes vectors.

    Attributes:
        kind: the protocol's name; `auto` until it is known.
        address: the backend's URL, for logs and `/health`.
        sizes: how much it takes in a call.
    """

    waits_on: ClassVar[Literal["cpu", "network"]] = "network"
    counts_tokens = False

    def __init__(
        self, config: Config, transport: Transport, *, patient: bool = True, azure: Deployment | None = None
    ) -> None:
        """`patient` is whether a batch waits for a backend that is busy; `azure` is what it is on Azure."""
        self.kind = config.backend_protocol
        self.address = transport.address
        self._config = config
        self._transport = transport
        self._azure = azure
        self._found: Found | None = None
        self._health_path: str | None = None
        self._searching = threading.Lock()
        self._pulse = Pulse()
        self.sizes = Sizes()
        self._trouble: str | None = None
        slots = config.workers or DEFAULT_SLOTS
        self._asker = Asker(transport, patience=config.queue_seconds if patient else 0, slots=slots)
        self._shortens = True

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
            slots=min(self._asker.room.calls, bounds.max_calls),
        )

    @property
    def protocol(self) -> Protocol | None:
        """What it speaks; None while that is not known."""
        return self._found.protocol if self._found else None

    @property
    def speaks(self) -> tuple[str, ...]:
        """The same for backends that can be told the same."""
        return (self.kind, *sorted(self.protocol.truncates if self.protocol else ()))

    @property
    def knows_prompts(self) -> bool:
        return False

    @property
    def forwards_ids(self) -> bool:
        return self.protocol is not None and self.protocol.forwards_ids

    @property
    def shortens(self) -> bool:
        if self._config.allow_any_dimensions or not self._shortens:
            return False
        return self._found is None or self._found.protocol.shortens

    @property
    def always_normalizes(self) -> bool:
        found = self._found
        return found is not None and found.info.normalized and not found.protocol.keeps_lengths

    def prepare(
        self, inputs: Sequence[Input], *, truncate: Truncate | None = None, prompt: str = ""
    ) -> list[Prepared]:
        """Make inputs ready: texts stay texts, token ids are passed on to backends that take them.

        `truncate` is what the backend is told of inputs that are too long; None tells it nothing.

        Raises:
            InvalidRequest, ContextLengthExceeded: see `preparing`.
        """
        return self.prepare_for(inputs, truncate=truncate, prompt=prompt, dimensions=None)

    def prepare_for(
        self,
        inputs: Sequence[Input],
        *,
        truncate: Truncate | None,
        prompt: str,
        dimensions: int | None,
        input_type: str | None = None,
        prompt_name: str | None = None,
    ) -> list[Prepared]:
        """See `prepare`. Vectors are shortened by the backend where it `shortens`, else by the caller.

        `input_type` and `prompt_name` are for the backend, which has prompts of its own.
        """
        if not self.shortens or dimensions == self.info.dimensions:
            dimensions = None
        options = CallOptions(truncate, dimensions, input_type, prompt_name)
        protocol, longest = self.protocol, self.info.max_input_tokens
        return [
            prepare_one(index, value, prompt, options, protocol, longest)
            for index, value in enumerate(inputs)
        ]

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
            found = self._reach(deadline)

            def ask(items: list[bytes], options: CallOptions | None) -> Reply:
                return self._ask_part(found, items, options, deadline)

            parts = Call(self._transport, found, batch, deadline, self._most(found.protocol), ask).parts()
        return assemble(batch, parts, found.info)

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
        self._shortens = True

    def close(self) -> None:
        self._transport.close()

    def _reach(self, deadline: float) -> Found:
        """What the backend is, found out by the first who asks while the others wait."""
        if self._found is None:
            if not self._searching.acquire(timeout=max(deadline - time.monotonic(), 0)):
                raise DeadlineExceeded("the backend did not answer in time")
            try:
                if self._found is None:
                    found = discover(self._transport, self._config, deadline, self._azure)
                    self.kind = found.protocol.name
                    self._health_path = health_path(
                        self._transport, found.protocol, found.info.name, deadline
                    )
                    self._found = found
            finally:
                self._searching.release()
        return self._found

    def _ask_part(
        self, found: Found, items: list[bytes], options: CallOptions | None, deadline: float
    ) -> Reply:
        """The vectors of some of a batch's inputs, as wide as they were asked for."""
        reply = self._embed(found, items, options, deadline)
        try:
            check_width(reply, found.info, options)
        except Unshortened:
            self._shortens = False
            raise
        return reply

    def _embed(self, found: Found, items: list[bytes], options: CallOptions | None, deadline: float) -> Reply:
        """One request's vectors. Its inputs are to blame for a failure only if the backend embeds others."""
        began = time.monotonic()
        protocol, info = found
        try:
            reply = self._asker.ask(protocol, items, deadline, options, info.max_input_tokens)
        except UpstreamRejected as error:
            certain = len(items) == 1 or isinstance(error, UpstreamTooLong)
            if not certain and not self._lives(protocol, began, deadline):
                raise UpstreamError("the backend refuses every input") from None
            # Where it was told to refuse a long text, that says nothing of the call's size.
            if not (isinstance(error, UpstreamTooLong) and options and options.truncate == "none"):
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
            self._asker.ask(protocol, [PROBE], deadline)
        except QueueFull:
            return True
        except (UpstreamError, UpstreamRejected, DeadlineExceeded):
            return False
        return True

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
