"""Native threads beside the hub: where CPU work runs without stopping the greenlets.

gevent replaces the standard threads by greenlets, and its own thread pool is shared with name
resolution, so inference gets raw threads of its own. Results come back through one async watcher,
the documented thread-safe way to wake a hub. The watcher stays referenced for as long as the
threads live: a hub whose only hope is an unreferenced watcher raises LoopExit.

Must be created on the hub's thread, after monkey-patching, in the process that uses it
(OpenVINO's own threads do not survive a fork).
"""

from __future__ import annotations

import logging
import sys
from _queue import SimpleQueue  # the C class itself: gevent patches the name in `queue`
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import gevent
from gevent import monkey
from gevent.event import AsyncResult

T = TypeVar("T")
Done = Callable[[Any, BaseException | None], None]

log = logging.getLogger("llmrs.server")
_start_new_thread = monkey.get_original("_thread", "start_new_thread")

SWITCH_INTERVAL = 1e-4
"""Seconds a thread may hold the GIL while another wants it. With Python's 5 ms a native thread
that returned from computing waited 10.6 ms for a busy hub; with 0.1 ms it waited 0.7 ms."""

LONGEST_WAIT = 0.01
"""Seconds a call may wait for the hub to be idle. A busy tick takes about a millisecond; without a
bound, 64 clients polling /livez kept a text waiting for as long as they polled."""


class NativeThreads:
    """A few raw threads that run functions and report back on the hub."""

    def __init__(self, count: int) -> None:
        sys.setswitchinterval(SWITCH_INTERVAL)
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Done] | None] = SimpleQueue()
        self._results: deque[tuple[Done, Any, BaseException | None]] = deque()
        self._count = count
        self._watcher = gevent.get_hub().loop.async_()
        self._watcher.start(self._report)
        for _ in range(count):
            _start_new_thread(self._work, ())

    def submit(self, function: Callable[[], T], done: Done) -> None:
        """Run `function` on a thread, then `done(result, error)` on the hub; one of them is None."""
        self._jobs.put((function, done))

    def run(self, function: Callable[[], T]) -> T:
        """Run `function` on a thread while the calling greenlet waits; raises what it raised."""
        answer: AsyncResult[T] = AsyncResult()

        def done(result: T, error: BaseException | None) -> None:
            if error is None:
                answer.set(result)
            else:
                answer.set_exception(error)

        self.submit(function, done)
        result: T = answer.get()
        return result

    def close(self) -> None:
        """Let the threads end once their jobs are done; what is still under way is reported."""
        for _ in range(self._count):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            function, done = job
            result, error = None, None
            try:
                result = function()
            except BaseException as failure:
                error = failure
            self._results.append((done, result, error))
            self._watcher.send()
            del job, function, done, result, error  # keep no batch alive while waiting for the next
        self._results.append((self._thread_ended, None, None))
        self._watcher.send()

    def _thread_ended(self, result: None, error: BaseException | None) -> None:
        self._count -= 1
        if not self._count:
            self._watcher.stop()
            self._watcher.close()

    def _report(self) -> None:
        while self._results:
            done, result, error = self._results.popleft()
            try:
                done(result, error)
            except Exception:
                log.exception("a completion callback failed")


class IdleCall:
    """Calls a function once the hub has nothing else to do: no readable socket, no ready greenlet.

    A hub that never gets there, flooded with health checks or with requests that are refused at
    once, makes the call after `LONGEST_WAIT` seconds all the same.
    """

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function
        loop = gevent.get_hub().loop
        self._idle = loop.idle()
        self._late = loop.timer(LONGEST_WAIT)
        self._asked = False

    def ask(self) -> None:
        """Call the function at the next idle moment; asking again before then changes nothing."""
        if not self._asked:
            self._asked = True
            self._idle.start(self._fire)
            self._late.start(self._fire)

    def _fire(self) -> None:
        self._asked = False
        self._idle.stop()
        self._late.stop()
        self._function()
