"""The batch collector for programs whose callers are threads.

The collector is a state machine for one thread; here a lock stands for that thread. Batches run on a
few threads of our own, one for each slot of the backend: whoever is free forms the next batch of all
that waits, whichever callers it is from. Nothing here knows models, HTTP or an event loop.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from llmrs.batch import Batch
from llmrs.collector import Collector
from llmrs.embeddings import Limits, Matrix, Prepared, Vectors
from llmrs.errors import EngineError, ServiceError
from llmrs.fairqueue import Group

FOREVER = float("inf")


class ThreadedCollector:
    """Computes what many threads ask for, in batches that they share.

    Args:
        embed: vectors of a batch within a number of seconds, see `Backend.embed`.
        limits: what a batch may carry, and how many run at once.
    """

    def __init__(self, embed: Callable[..., Vectors], limits: Limits) -> None:
        self._embed = embed
        self._inline_tokens = limits.inline_tokens
        self._batches: deque[Batch] = deque()
        self._wanted = False  # the collector has asked for `dispatch`
        self._closed = False
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._collector = Collector(self._start, self._wake, lambda: limits, sys.maxsize)
        for number in range(limits.slots):
            # Daemons: a program that forgets `close` still ends.
            threading.Thread(target=self._work, name=f"llmrs-embedder-{number}", daemon=True).start()

    def submit(self, prepared: Sequence[Prepared], notify: Callable[[], None]) -> Group:
        """Queue texts, at least one. `notify` is called once, on any thread, and must not block.

        Raises:
            RuntimeError: in a forked process, which has none of the threads.
        """
        if os.getpid() != self._process:
            raise RuntimeError("an Embedder does not work in a forked process: make one in each process")
        with self._changed:
            group = self._collector.admit(notify, FOREVER)
            self._collector.submit(group, prepared)
        return group

    def compute(self, prepared: Sequence[Prepared]) -> Matrix:
        """Vectors of texts, at least one, in order. Raises what `submit` and `Group.rows` raise."""
        if self.is_short(prepared):
            return self._compute_here(prepared)
        done = threading.Event()
        group = self.submit(prepared, done.set)
        try:
            done.wait()
        finally:
            self.cancel(group)
        return group.rows()

    def is_short(self, prepared: Sequence[Prepared]) -> bool:
        """Whether `compute` takes so little time that it asks no thread, see `Limits.inline_tokens`."""
        most = self._inline_tokens
        return most > 0 and sum(text.n_tokens for text in prepared) <= most

    def cancel(self, group: Group) -> None:
        """What of a group is not computed yet never will be. Harmless when it is done."""
        if not group.done:
            with self._changed:
                self._collector.cancel(group)

    def close(self) -> None:
        """Answer what waits and whatever comes with EngineError, and let the threads end."""
        with self._changed:
            self._closed = True
            self._collector.close(lambda: EngineError("the model has been unloaded"))
            self._changed.notify_all()

    def _compute_here(self, prepared: Sequence[Prepared]) -> Matrix:
        try:
            return self._embed(prepared, timeout=FOREVER).matrix
        except ServiceError:
            raise
        except Exception as error:
            raise EngineError() from error

    # -- called by the collector, which has the lock ------------------------------------------------

    def _start(self, batch: Batch) -> None:
        self._batches.append(batch)
        self._changed.notify()

    def _wake(self) -> None:
        self._wanted = True
        self._changed.notify()

    # -- the threads --------------------------------------------------------------------------------

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            vectors, error = None, None
            try:
                vectors = self._embed(batch.prepared, timeout=FOREVER)
            except Exception as failure:
                error = failure
            self._done(batch, vectors, error)
            del batch, vectors, error  # keep none alive while waiting for the next

    def _next_batch(self) -> Batch | None:
        """Waits for a batch; None when there will be no more."""
        with self._changed:
            while not self._batches:
                if self._wanted:
                    self._wanted = False
                    self._let_others_come()
                    self._collector.dispatch()
                elif self._closed:
                    return None
                else:
                    self._changed.wait()
            return self._batches.popleft()

    def _let_others_come(self) -> None:
        """Give way to the other threads for as long as more texts come of it.

        What a finished batch has woken are the callers of the next one, each with a turn of some 50 us
        before it waits again. Without this the first of them would get a batch of its own.
        """
        waiting = 0
        while self._collector.waiting_texts > waiting:
            waiting = self._collector.waiting_texts
            self._changed.release()
            time.sleep(0)
            self._changed.acquire()

    def _done(self, batch: Batch, vectors: Vectors | None, error: Exception | None) -> None:
        with self._changed:
            if vectors is not None:
                self._collector.finish(batch, vectors)
            elif isinstance(error, ServiceError):
                self._collector.fail(batch, error)
            else:
                failure = EngineError()
                failure.__cause__ = error
                self._collector.fail(batch, failure)
