"""From a parsed request to its vectors: the part of the walk that every model shares.

A `ServedModel` joins one backend with its collector and the threads or greenlets its batches run
on. It checks what only the model can judge (width, tokens), waits for the rows under the
request's deadline, and never leaves anything behind in the queue.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import NamedTuple, cast

import gevent
from gevent.event import Event

from llmrs.backends.base import CALL_HEADERS, MIN_TRY, Backend, ReplicaState, Retries
from llmrs.batch import Batch
from llmrs.chunks import gather, spread
from llmrs.collector import ClientGone, Collector
from llmrs.config import Config
from llmrs.embeddings import Input, Matrix, ModelInfo, Prepared, Truncate, Vectors
from llmrs.errors import (
    DeadlineExceeded,
    EngineError,
    InternalError,
    InvalidRequest,
    NotReady,
    ServiceError,
    TooManyTokens,
)
from llmrs.fairqueue import Group
from llmrs.prompts import check_default, choose_prompt
from llmrs.server.door import DRAIN_SHARE, Door, Turn
from llmrs.server.health import health_of
from llmrs.server.longtexts import CutsLog
from llmrs.server.metrics import Metrics, ModelMetrics
from llmrs.server.native import IdleCall, NativeThreads
from llmrs.server.residence import Residents, State
from llmrs.server.token_ids import translator
from llmrs.server.watchdog import GRACE_SECONDS, Watchdog
from llmrs.truncation import choose_truncation
from llmrs.wire import EmbeddingRequest

log = logging.getLogger("llmrs.server")

INLINE_CHARACTERS = 2000
"""Texts of this many characters together are tokenized on the hub, in about half a millisecond;
more go to a native thread, because nothing may hold the hub for longer than a millisecond."""

INLINE_NUMBERS = 100_000
"""Vectors of chunks with so many numbers together become those of inputs in about half a millisecond."""


class Answer(NamedTuple):
    """The vectors of one request and what the response says about them.

    `matrix` is float32 [inputs, width of the model], not cut and not normalized yet; times are in
    seconds; `batch_texts` is how many texts the largest batch had that it had a share in, and
    `began` the reading of time.monotonic() when it began to be tokenized; the `door_seconds` before that
    are part of `queue_seconds`.
    """

    matrix: Matrix
    n_tokens: int
    truncated: int
    chunked: int
    tokenize_seconds: float
    queue_seconds: float
    inference_seconds: float
    batch_texts: int
    began: float
    door_seconds: float


class ServedModel:
    """One model under its name and aliases.

    Attributes:
        requests: how many it is answering.
        residence: its being in memory.

    Args:
        tokenizing: native threads for texts that take too long to be tokenized on the hub.
        draining: tells whether the process has been asked to end.
        residents: the models that share the memory.

    Raises:
        ConfigError, ModelError: it cannot be served as it is configured.
    """

    def __init__(
        self,
        backend: Backend,
        config: Config,
        metrics: Metrics,
        tokenizing: NativeThreads,
        draining: Callable[[], bool],
        residents: Residents | None = None,
    ) -> None:
        # First, because these may raise, and what comes after would have to be given back.
        self._translate_ids = translator(
            config.token_ids,
            forwards_ids=(lambda: backend.forwards_ids) if backend.waits_on == "network" else None,
        )
        if not config.uses_http_backend:
            check_default(backend.info.prompts, config.default_prompt)
        residents = residents or Residents()
        residents.check(backend, config)
        self.backend = backend
        self.health = health_of(backend)
        self.config = config
        self._metrics = metrics
        self._tokenizing = tokenizing
        self.requests = 0
        self._engine: NativeThreads | None = None
        self._draining = draining
        self._aliases = config.model_aliases
        self._cuts = CutsLog(lambda: self.name)
        self._idle = IdleCall(lambda: self.collector.dispatch())
        self.collector = Collector(
            self._runner(),
            self._idle.ask,
            lambda: backend.limits,
            config.queue_capacity,
            config.queue_seconds,
        )
        self.door = Door(
            self.collector,
            config.queue_seconds,
            DRAIN_SHARE * config.graceful_timeout,
            draining,
            metrics.crowding,
            metrics.porch,
        )
        self.watchdog = Watchdog(backend, self.collector, config.hang_timeout)
        self._residents = residents
        self.residence = residents.add(self)

    @property
    def name(self) -> str:
        """The name it is served under; without MODEL_NAME, the model's own."""
        return self.config.model_name or self.info.name or "default"

    @property
    def names(self) -> tuple[str, ...]:
        """Its name, then its aliases."""
        return (self.name, *self._aliases)

    @property
    def origins(self) -> tuple[str, ...]:
        """What the model is called where it comes from."""
        return tuple(filter(None, (self.info.hub_id, self.info.name)))

    def normalizes(self, asked: bool | None) -> bool:
        """Whether vectors are scaled to length 1 for a request that asks for that, or against it, or not."""
        return self.config.normalize_embeddings if asked is None else asked

    @property
    def metrics(self) -> ModelMetrics:
        """What is counted for it, under the name it has now."""
        return self._metrics.model(self.name)

    @property
    def reason(self) -> str | None:
        """Why it cannot compute vectors now, as far as is known."""
        return self.watchdog.reason or self.residence.reason or self.health.reason

    @property
    def state(self) -> State:
        """Whether it is in memory, here or in the process that computes for this one."""
        return self.backend.memory_elsewhere or self.residence.state

    @property
    def info(self) -> ModelInfo:
        return self.backend.info

    @property
    def running_batches(self) -> int:
        """Batches that are computed, here or by an HTTP backend."""
        return 0 if self.backend.relays else self.collector.running

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses of its backend; none where it computes here."""
        return self.config.backend_url if self.config.uses_http_backend else ()

    @property
    def replicas(self) -> Sequence[ReplicaState]:
        """How each address of its backend is; none where there is no choice."""
        return self.health.replicas

    @property
    def retries(self) -> Retries:
        """Batches that failed on one address of several."""
        return self.backend.retries

    def embed(
        self,
        request: EmbeddingRequest,
        deadline: float,
        abandoned: Callable[[], bool] | None = None,
        call_headers: bytes = b"",
        turn: Turn | None = None,
    ) -> Answer:
        """The vectors of a request, in the order of its inputs.

        `deadline` is a reading of time.monotonic(); `abandoned` tells whether the client is gone;
        `call_headers` tell a backend who it is for, as long as it is for this request alone; `turn` is the
        place that it may have already.

        Raises:
            ServiceError: any of its subclasses, as API errors.
        """
        if self._metrics.tei is not None:
            self._metrics.tei.count_request(len(request.inputs))
        self._check(request, self.info.dimensions)
        if self._draining():
            raise NotReady("the server is shutting down", retry_after=1)
        if self.watchdog.reason is not None:
            raise NotReady(self.watchdog.reason, retry_after=GRACE_SECONDS)
        inputs = self._translate_ids(request.inputs)
        arrived = time.monotonic() - (turn.seconds if turn else 0.0)
        self.requests += 1
        group: Group | None = None
        try:
            group, done = (turn and turn.take()) or self._enter(inputs, deadline, abandoned)
            group.call_headers = call_headers
            began = time.monotonic()
            truncate = self._truncation(request)
            prepared = self._prepare(inputs, request, truncate, group)
            prepared_at = time.monotonic()
            texts = spread(prepared) if truncate == "chunk_mean" else prepared
            self.residence.want()
            self.collector.submit(group, texts, request.batch_size or 0)
            done.wait(max(0.0, deadline - prepared_at))
            matrix = _rows_of(group)
            if texts is not prepared:
                matrix = self._gather(matrix, prepared, request)
        finally:
            self.requests -= 1
            if group is not None:
                self.collector.cancel(group)
        self._check(request, matrix.shape[1])
        answer = Answer(
            matrix,
            sum(group.n_tokens),
            sum(text.truncated for text in prepared) + group.cut,
            0 if texts is prepared else sum(bool(text.chunks) for text in prepared),
            prepared_at - began,
            began - arrived + group.started_at - group.queued_at,
            group.finished_at - group.started_at,
            group.batch_texts,
            began,
            began - arrived,
        )
        self.metrics.count_answer(answer)
        if answer.truncated:
            self._cuts.count(answer.truncated)
        return answer

    def _enter(
        self, inputs: list[Input], deadline: float, abandoned: Callable[[], bool] | None
    ) -> tuple[Group, Event]:
        """A place of the queue, and what is set once its group is answered."""
        done = Event()
        size, n_tokens = len(inputs), _estimate(inputs)
        return self.door.enter(done, deadline, abandoned, n_texts=size, n_tokens=n_tokens), done

    def compute(self, prepared: list[Prepared], deadline: float) -> Matrix:
        """The vectors of texts that another process of this service has admitted and prepared.

        Raises:
            ServiceError: any of its subclasses.
        """
        done = Event()
        group = self.collector.admit(done.set, inf, n_texts=len(prepared))  # never "it takes too long":
        group.deadline = deadline  # a gateway has admitted it
        self.requests += 1
        try:
            self.residence.want()
            self.collector.submit(group, prepared)
            done.wait(max(0.0, deadline - time.monotonic()))
            return _rows_of(group)
        finally:
            self.requests -= 1
            self.collector.cancel(group)

    def _check(self, request: EmbeddingRequest, native: int | None) -> None:
        """Raise InvalidRequest unless vectors can be made what a request wants, as far as is known.

        `native` is their width. An HTTP backend may not be known before its answer.
        """
        self.check_dimensions(request.dimensions, native)
        if request.normalize is False and self.backend.always_normalizes:
            field = "normalize_embeddings" if request.form == "legacy" else "normalize"
            raise InvalidRequest(
                f"{field} must not be false: the backend ({self.backend.kind}) gives vectors of length 1 and "
                "cannot be told otherwise",
                param=field,
            )

    def check_dimensions(self, wanted: int | None, native: int | None) -> None:
        """Raise InvalidRequest unless vectors of the model may be cut to the wanted width.

        Cutting a vector whose model was not trained for it gives a worse vector without a sign of
        it, so that must have been allowed by whoever runs the server.
        """
        if wanted is None or native is None or wanted == native:
            return
        declared = self.info.matryoshka
        if wanted > native:
            reason = f"at most {native}"
        elif declared and wanted not in declared:
            reason = f"one of {', '.join(map(str, (*declared, native)))}"
        elif not declared and not self.config.allow_any_dimensions and not self.backend.shortens:
            reason = (
                f"{native}, because the model declares no smaller sizes (allow_any_dimensions lifts that)"
            )
        else:
            return
        raise InvalidRequest(f"dimensions must be {reason}", param="dimensions")

    def watch(self) -> None:
        """Learn what the backend is, and keep watching how it is and whether it hangs."""
        self.health.watch()
        self.watchdog.watch()

    def close(self) -> None:
        """Answer what waits and release the backend."""
        self._residents.remove(self.residence)
        self.health.close()
        self.watchdog.close()
        self._cuts.close()
        self.collector.close(lambda: NotReady("the server is shutting down", retry_after=1))
        if self._engine is not None:
            self._engine.close()
        self.backend.close()

    # -- before the queue ---------------------------------------------------------------------

    def _truncation(self, request: EmbeddingRequest) -> Truncate | None:
        """What the backend is told about long inputs; None: nothing, for it counts its tokens itself.

        Raises:
            InvalidRequest: what the request asks for cannot be done.
        """
        limit, most = request.token_limit, self.info.max_input_tokens
        if limit is not None and (most is None or limit < most):
            reason = "is not known here" if most is None else f"is {most}: inputs are cut nowhere else"
            raise InvalidRequest(
                f"token_limit must not be below the model's own limit, which {reason}", param="token_limit"
            )
        configured = cast("Truncate | None", self.config.truncate)
        counts = self.backend.counts_tokens
        wanted = choose_truncation(
            request.truncate, request.truncation_side, configured, self.info, counts_tokens=counts
        )
        if wanted == "chunk_mean" and not counts:
            raise InvalidRequest("chunk_mean needs a local model, whose tokens are known", param="truncate")
        return wanted

    def _prepare(
        self, inputs: list[Input], request: EmbeddingRequest, truncate: Truncate | None, group: Group
    ) -> list[Prepared]:
        asked = {"input_type": request.input_type, "prompt_name": request.prompt_name}
        prompt = ""
        if self.backend.knows_prompts:
            prompt = choose_prompt(self.info.prompts, default=self.config.default_prompt or "", **asked)
            asked = {}
        prepare = partial(
            self.backend.prepare_for,
            inputs,
            truncate=truncate,
            prompt=prompt,
            dimensions=request.dimensions,
            **asked,
        )
        if not self.backend.counts_tokens:
            return prepare()  # which only estimates the tokens: the backend keeps its own limit
        if sum(map(len, inputs)) > INLINE_CHARACTERS:
            prepared = self._tokenizing.run(partial(_if_wanted, group, prepare))
        else:
            prepared = prepare()
        total = sum(text.n_tokens for text in prepared)
        if total > self.config.max_request_tokens:
            raise TooManyTokens(
                f"the inputs have {total} tokens together, at most {self.config.max_request_tokens} "
                "are allowed in one request",
                param="input",
            )
        return prepared

    def _gather(self, matrix: Matrix, prepared: list[Prepared], request: EmbeddingRequest) -> Matrix:
        """One vector of each input's chunks; of many beside the hub."""
        work = partial(
            gather, matrix, prepared, request.dimensions, normalize=self.normalizes(request.normalize)
        )
        return self._tokenizing.run(work) if matrix.size > INLINE_NUMBERS else work()

    # -- running batches ----------------------------------------------------------------------

    def _runner(self) -> Callable[[Batch], None]:
        """How batches run: computing on native threads or at once, waiting for a network in greenlets."""
        if self.backend.waits_on == "network":
            return lambda batch: gevent.spawn(self._call, batch) and None
        limits = self.backend.limits
        engine = self._engine = NativeThreads(limits.slots)

        def start(batch: Batch) -> None:
            if limits.inline_tokens and batch.n_tokens <= limits.inline_tokens:
                self._compute_here(batch)
                return
            timeout = batch.deadline - time.monotonic()
            engine.submit(
                partial(self.backend.embed, batch.prepared, timeout=timeout), partial(self._done, batch)
            )

        return start

    def _compute_here(self, batch: Batch) -> None:
        """Compute a short batch on the hub.

        The collector hears of its end in the loop's next round, as of that of any other: it is still busy
        starting the batch.
        """
        vectors, error = None, None
        try:
            vectors = self.backend.embed(batch.prepared, timeout=inf)
        except Exception as failure:
            error = failure
        gevent.get_hub().loop.run_callback(self._done, batch, vectors, error)

    def _call(self, batch: Batch) -> None:
        timeout = max(0.001, batch.deadline - time.monotonic())
        CALL_HEADERS.set(batch.call_headers)  # in the context of this greenlet
        expired = DeadlineExceeded("the backend did not answer in time")
        try:
            # A little later than the backend's own deadline, which gives the better message.
            with gevent.Timeout(timeout + 0.1, expired):
                vectors = self.backend.embed(batch.prepared, timeout=timeout)
        except Exception as error:
            self._done(batch, None, error)
        else:
            self._done(batch, vectors, None)

    def _done(self, batch: Batch, vectors: Vectors | None, error: BaseException | None) -> None:
        if not self.backend.relays:  # or it would count twice
            self.metrics.count_batch(batch, time.monotonic() - batch.started_at, vectors)
        if vectors is not None:
            if self._metrics.tei is not None and not self.backend.relays:
                self._metrics.tei.count_batch(batch)
            self.health.note(None)
            self.collector.finish(batch, vectors)
            return
        known = self._as_service_error(error)
        # A backend that was given no time is not to blame: callers choose their own deadlines.
        if not isinstance(known, DeadlineExceeded) or batch.deadline - batch.started_at >= MIN_TRY:
            self.health.note(known)
        self.collector.fail(batch, known)

    def _as_service_error(self, error: BaseException | None) -> ServiceError:
        if isinstance(error, EngineError):
            log.error("the model failed on a batch: %s (%s)", error, error.__cause__)
        if isinstance(error, ServiceError):
            return error
        log.error("a batch failed unexpectedly", exc_info=error)
        if self.backend.waits_on == "cpu":
            return EngineError()
        return InternalError("the backend could not be asked")


def _estimate(inputs: list[Input]) -> int:
    """About how many tokens the inputs have: a quarter of a text's characters and two special ones."""
    return sum(len(each) // 4 + 2 if isinstance(each, str) else len(each) for each in inputs)


def _rows_of(group: Group) -> Matrix:
    """The matrix of a group that was waited for; raises the reason why there is none."""
    if not group.done:
        raise DeadlineExceeded("the request took longer than it may")
    return group.rows()


def _if_wanted(group: Group, prepare: Callable[[], list[Prepared]]) -> list[Prepared]:
    """Tokenize, unless nobody waits for it any more: many long requests may have been in front."""
    if time.monotonic() > group.deadline:
        raise DeadlineExceeded("the request waited longer than it may take")
    if group.abandoned is not None and group.abandoned():
        raise ClientGone("the client closed the connection")
    return prepare()
