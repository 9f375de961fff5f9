"""Which models are in memory: those of the start always, others when they are used and while there is room.

A model that is loaded on request is served like any other, but its collector holds its batches back while it
is not in memory: texts wait in the queue, under their deadlines, and nothing that measures batches sees the
loading. One model is loaded at a time, on a thread beside the hub. Where it does not fit into `model_memory`,
the least recently used model that nobody is waiting for goes. Where all are in use, one of them has to go
between two of its batches once it has had a while: its requests wait for it to be loaded again, and none
waits for ever for the others to be idle.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Literal, Protocol, TypeAlias

import gevent
from gevent.lock import BoundedSemaphore

from llmrs.backends.base import Backend
from llmrs.collector import Collector
from llmrs.config import Config
from llmrs.errors import ModelError, NotReady, StartupError
from llmrs.server.metrics import ModelMetrics
from llmrs.server.native import NativeThreads

log = logging.getLogger("llmrs.server")

State: TypeAlias = Literal["unloaded", "loading", "loaded"]

STAY_SECONDS = 5.0
"""A model in use goes no sooner after it was loaded; several times what loading a small one takes, or two
that are used in turn would do little else."""

FAILED_SECONDS = 30.0
"""For so long a model that could not be loaded is not tried again."""

LOOK_SECONDS = 0.05
"""How often it is looked whether a model has become idle, while another one waits for its place."""

SWEEP_SECONDS = 1.0

UNLOADABLE = "the model cannot be loaded at the moment"


class Model(Protocol):
    """What is asked of a served model."""

    backend: Backend
    config: Config
    collector: Collector
    requests: int

    @property
    def name(self) -> str: ...
    @property
    def metrics(self) -> ModelMetrics: ...


class Residence:
    """One model's being in memory, or not.

    Attributes:
        state: `unloaded`, `loading` or `loaded`, for whoever asks.
        size: bytes that count for it while it is loaded.
        used_at: when it was last wanted, on the clock of `residents`.
        loaded_at: when it was last loaded.
        closed: whether it is served no more.
    """

    def __init__(self, model: Model, residents: Residents) -> None:
        self.model = model
        self.size = model.backend.weight_bytes
        self.state: State = "loaded" if model.backend.is_loaded else "unloaded"
        self.used_at = self.loaded_at = residents.clock()
        self.closed = False
        self._on_demand = model.backend.on_demand
        self._residents = residents
        self._again = -inf

    @property
    def may_go(self) -> bool:
        """Whether it could be unloaded now or later."""
        return self._on_demand and self.state == "loaded"

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for it, and nothing is computed that nobody waits for any more."""
        return not self.model.requests and not self.model.collector.running

    @property
    def reason(self) -> str | None:
        """Why it cannot be used now; None where it can, or is loaded for it."""
        return UNLOADABLE if self._residents.clock() < self._again else None

    def want(self) -> None:
        """The model is about to be used: load it unless it is there.

        Raises:
            NotReady: that has failed a moment ago.
        """
        if not self._on_demand:
            return
        now = self.used_at = self._residents.clock()
        if self.state == "unloaded":
            if now < self._again:
                raise NotReady(UNLOADABLE, retry_after=self._again - now)
            self.state = "loading"
            gevent.spawn(self._residents.load, self)

    def leave(self) -> None:
        """Hold its batches back: its memory is about to go."""
        self.state = "unloaded"
        self.model.collector.hold()

    def enter(self) -> None:
        """Let its batches go: it is there."""
        self.state = "loaded"
        self.loaded_at = self.used_at = self._residents.clock()
        self.model.collector.go_on()

    def fail(self) -> None:
        """It could not be loaded: answer all who wait, and those who come until it is tried again."""
        self.state = "unloaded"
        self._again = self._residents.clock() + FAILED_SECONDS
        self.model.collector.refuse(lambda: NotReady(UNLOADABLE, retry_after=FAILED_SECONDS))


class Residents:
    """The models of a process, and the memory that they share.

    Args:
        memory: bytes that their weights may have together; 0: no limit.
        clock: seconds, monotonic.
    """

    def __init__(self, memory: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._memory = memory
        self.clock = clock
        self._all: list[Residence] = []
        self._one_at_a_time = BoundedSemaphore()
        self._sweeping: gevent.Greenlet[[], None] | None = None

    def add(self, model: Model) -> Residence:
        """A place for a model that is served from now on."""
        new = Residence(model, self)
        if new.state == "unloaded":
            model.collector.hold()
        self._all.append(new)
        return new

    def check(self, backend: Backend, config: Config) -> None:
        """Look whether a model could be served, too.

        Raises:
            ModelError: the memory could not hold it, or the others no more, whatever is unloaded.
        """
        if not self._memory:
            return
        backends = {backend, *(one.model.backend for one in self._all)}
        always = sum(each.weight_bytes for each in backends if not each.on_demand)
        largest = max((each.weight_bytes for each in backends if each.on_demand), default=0)
        if always + largest > self._memory:
            name = config.model_name or backend.info.name
            raise ModelError(
                f"model {name}: model_memory = {self._memory} is too little for {always} bytes of weights "
                f"that are loaded at the start, with {largest} of the largest other model"
            )

    def remove(self, one: Residence) -> None:
        """A model is served no more; what is under way for it ends by itself."""
        one.closed = True
        if one in self._all:
            self._all.remove(one)

    def watch(self) -> None:
        """Unload what has not been used for long, from now on, in a greenlet of its own."""
        self._sweeping = gevent.spawn(self._sweep_for_ever)

    def close(self) -> None:
        """Look no more."""
        if self._sweeping is not None:
            self._sweeping.kill(block=False)

    def load(self, one: Residence) -> None:
        """Load a model that is wanted, in a greenlet; its waiters are told by its collector."""
        with self._one_at_a_time, _a_thread() as thread:
            if one.closed:
                return
            try:
                self._load(one, thread)
            except Exception as error:  # whatever it is: who waits is told, and the others go on
                known = isinstance(error, StartupError)
                log.error("model %s cannot be loaded: %s", one.model.name, error, exc_info=not known)
                one.model.metrics.counts["failed_loads"] += 1
                one.fail()

    def sweep(self) -> None:
        """Unload what has not been used for its `unload_after`."""
        for one in tuple(self._all):
            if not one.is_idle:
                one.used_at = self.clock()
            elif self._is_forgotten(one):
                with self._one_at_a_time, _a_thread() as thread:
                    if self._is_forgotten(one):  # still
                        self._unload(one, thread)

    def _load(self, one: Residence, thread: NativeThreads) -> None:
        self._make_room(one, thread)
        began = self.clock()
        thread.run(one.model.backend.load)
        if one.closed:
            one.model.backend.close()
            return
        one.enter()
        one.model.metrics.counts["loads"] += 1
        log.info("model %s loaded in %.1f s", one.model.name, self.clock() - began)

    def _unload(self, one: Residence, thread: NativeThreads) -> None:
        one.leave()
        while one.model.collector.running:
            gevent.sleep(LOOK_SECONDS)
        thread.run(one.model.backend.unload)  # a tenth of a second, which the hub would notice
        one.model.metrics.counts["unloads"] += 1
        log.info("model %s unloaded", one.model.name)
        if one.model.requests and one.state == "unloaded":
            one.want()

    def _is_forgotten(self, one: Residence) -> bool:
        after = one.model.config.unload_after
        return bool(after) and one.may_go and one.is_idle and self.clock() - one.used_at >= after

    def _make_room(self, one: Residence, thread: NativeThreads) -> None:
        """Unload others until a model fits. Raises ModelError if it never will."""
        while self._memory and self._taken() + one.size > self._memory:
            self.check(one.model.backend, one.model.config)
            victim = self._next_to_go()
            if victim is None:
                gevent.sleep(LOOK_SECONDS)
            else:
                self._unload(victim, thread)
            if one.closed:
                return

    def _next_to_go(self) -> Residence | None:
        """The model that others have to wait for least; None while each is in use and has just come."""
        can = [one for one in self._all if one.may_go]
        idle = [one for one in can if one.is_idle]
        if idle:
            return min(idle, key=lambda one: one.used_at)
        stayed = [one for one in can if self.clock() - one.loaded_at >= STAY_SECONDS]
        return min(stayed, key=lambda one: one.loaded_at, default=None)

    def _taken(self) -> int:
        return sum(one.size for one in self._all if one.state == "loaded")

    def _sweep_for_ever(self) -> None:
        while True:
            gevent.sleep(SWEEP_SECONDS)
            try:
                self.sweep()
            except Exception:
                log.exception("unused models could not be unloaded")


@contextmanager
def _a_thread() -> Iterator[NativeThreads]:
    """A native thread for a while."""
    thread = NativeThreads(1)
    try:
        yield thread
    finally:
        thread.close()
