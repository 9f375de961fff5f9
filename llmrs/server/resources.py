"""The routes. Each responder is a straight walk: body, request, model, vectors, bytes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any, TypeVar

import falcon

from llmrs import wire
from llmrs.config import Config
from llmrs.errors import InvalidRequest, NotReady, QueueFull, ServiceError
from llmrs.server.body import close_connection, read_json_body
from llmrs.server.door import TURN
from llmrs.server.exposition import CONTENT_TYPE, Page
from llmrs.server.memory import PayloadMemory
from llmrs.server.native import NativeThreads
from llmrs.server.outputs import check_output
from llmrs.server.presence import GONE
from llmrs.server.registry import Registry
from llmrs.server.serving import Answer, ServedModel
from llmrs.server.tracecontext import call_headers

T = TypeVar("T")

CREATED = 1735689600
"""`created` of every model: constant, because clients may compare listings. 2025-01-01 UTC."""

SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")

INLINE_WRITE_SECONDS = 0.001
SECONDS_PER_NUMBER = 8e-9
SECONDS_PER_BASE64_NUMBER = 1e-9
"""Writing a response body takes about this long per number (bench/bench_wire.py, AVX2 kernels); a
body that takes over a millisecond is written beside the hub."""


class _EmbeddingRoute:
    """What the embedding routes share: reading, computing, telling about it, writing."""

    def __init__(
        self, registry: Registry, config: Config, threads: NativeThreads, memory: PayloadMemory
    ) -> None:
        self._registry = registry
        self._config = config
        self._writing = threads
        self._memory = memory
        self._limits = wire.RequestLimits(
            max_inputs=config.max_client_batch_size, empty_input=config.empty_input
        )

    def _body(self, req: falcon.Request) -> bytes:
        return read_json_body(req, self._config.payload_limit, self._memory, partial(self._wait, req))

    def _wait(self, req: falcon.Request, size: int) -> None:
        """Wait for a place before a large body is read, where it is known for which model.

        How many tokens are in it is not known, only that they may be more than a batch.
        """
        if len(self._registry.models) == 1:
            model = self._registry.models[0]
            deadline = req.context.arrived + min(self._config.request_timeout, patience(req))
            n_tokens = min(size // 4, model.backend.limits.batch_tokens + 1)
            req.env[TURN] = self._let_in(req, partial(model.door.turn, deadline, req.env.get(GONE), n_tokens))

    def _let_in(self, req: falcon.Request, enter: Callable[[], T]) -> T:
        """What a call gives that waits for a place; who is refused may have to give up the connection."""
        try:
            return enter()
        except QueueFull as refusal:
            if refusal.closes:
                close_connection(req.env)
            raise

    def _answer(
        self, req: falcon.Request, resp: falcon.Response, request: wire.EmbeddingRequest
    ) -> tuple[ServedModel, Answer]:
        """What `_embed` gives; errors name the fields as the request does."""
        try:
            return self._embed(req, resp, request)
        except ServiceError as error:
            if request.form != "openai":
                error = error.in_field(wire.INPUTS[request.form])
            raise (error.under(request.names) if request.names else error) from None

    def _embed(
        self, req: falcon.Request, resp: falcon.Response, request: wire.EmbeddingRequest
    ) -> tuple[ServedModel, Answer]:
        model = self._registry.get(request.model)
        deadline = req.context.arrived + min(self._config.request_timeout, patience(req))
        told = b""
        if model.backend.waits_on == "network":
            told = call_headers(req.context.request_id, req.context.trace)
        unit = model.normalizes(request.normalize) or model.info.normalized
        check_output(request, model.info.dimensions, unit)
        embed = partial(model.embed, request, deadline, req.env.get(GONE), told, req.env.get(TURN))
        answer = req.context.answer = self._let_in(req, embed)
        if request.output_dtype != "float32":
            check_output(request, answer.matrix.shape[1], unit)
            resp.set_header("x-output-dtype", request.output_dtype)
        if answer.truncated:
            resp.set_header("x-truncated-inputs", str(answer.truncated))
        if answer.chunked:
            resp.set_header("x-chunked-inputs", str(answer.chunked))
        req.context.timings = (
            f"queue;dur={answer.queue_seconds * 1e3:.2f}, tokenize;dur={answer.tokenize_seconds * 1e3:.2f}, "
            f"inference;dur={answer.inference_seconds * 1e3:.2f}"
        )
        return model, answer

    def _write(
        self,
        req: falcon.Request,
        model: ServedModel,
        write: Callable[[], bytes],
        numbers: int,
        base64: bool = False,
    ) -> bytes:
        seconds = numbers * (SECONDS_PER_BASE64_NUMBER if base64 else SECONDS_PER_NUMBER)
        began = time.monotonic()
        body = write() if seconds < INLINE_WRITE_SECONDS else self._writing.run(write)
        req.context.encoding = began, time.monotonic() - began
        model.metrics.count_encoding(req.context.encoding[1])
        return body


class OpenAIEmbeddings(_EmbeddingRoute):
    """`POST /v1/embeddings` and `/embeddings`."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        request = wire.parse_openai(self._body(req), self._limits, self._registry.get)
        model, answer = self._answer(req, resp, request)
        write = partial(
            wire.encode_openai,
            answer.matrix,
            dimensions=request.dimensions,
            normalize=model.normalizes(request.normalize),
            base64=request.base64,
            model=model.name,
            n_tokens=answer.n_tokens,
            dtype=request.output_dtype,
        )
        resp.data = self._write(req, model, write, answer.matrix.size, request.base64)


class Embed(_EmbeddingRoute):
    """`POST /embed`: the legacy form (`texts`) and TEI's (`inputs`)."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        request = wire.parse_embed(self._body(req), self._limits, self._registry.get)
        model, answer = self._answer(req, resp, request)
        encode: Callable[..., bytes] = wire.encode_tei
        if request.form == "legacy":
            encode = partial(wire.encode_legacy, model=model.name)
        write = partial(
            encode,
            answer.matrix,
            dimensions=request.dimensions,
            normalize=model.normalizes(request.normalize),
            dtype=request.output_dtype,
        )
        resp.data = self._write(req, model, write, answer.matrix.size)


class Models:
    """`GET /v1/models` and `/v1/models/{id}`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        entries = [_describe(model) for model in self._registry.models]
        resp.data = wire.encode_json({"object": "list", "data": entries})

    def on_get_one(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        resp.data = wire.encode_json(_describe(self._registry.get(name)))

    on_head = on_get
    on_head_one = on_get_one


class MetricsPage:
    """`GET /metrics`, for Prometheus."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.data = self._page.text()
        resp.content_type = CONTENT_TYPE

    on_head = on_get


class Health:
    """`GET /health`, `/readyz` and `/livez`: answered from what is known, never queued."""

    def __init__(self, registry: Registry, draining: Callable[[], bool]) -> None:
        self._registry = registry
        self._draining = draining

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        model = self._registry.models[0]
        state: dict[str, Any] = {
            "status": "ok",
            "backend_url": model.urls[0] if model.urls else None,
            "model_name": model.name,
            "backend": model.backend.kind,
            "backends": _addresses(model),
            "model_state": model.state,
            "waiting_requests": model.collector.waiting,
            "running_batches": model.collector.running,
        }
        if len(self._registry.models) > 1:
            state["models"] = [
                {"name": each.name, "state": each.state, "reason": each.reason}
                for each in self._registry.models
            ]
        if self._registry.trouble:
            state["trouble"] = self._registry.trouble
        reason = self.not_ready()
        if reason is not None:
            # The body also has the shape of every other error, for clients that look there.
            error = NotReady(reason, retry_after=1)
            state |= {"status": "unavailable", "reason": reason, **wire.error_object(error)}
            resp.status = falcon.HTTP_503
            resp.set_headers(error.headers)
        resp.data = wire.encode_json(state)

    def on_get_live(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.data = wire.encode_json({"status": "ok"})

    on_head = on_get
    on_head_live = on_get_live

    def not_ready(self) -> str | None:
        """Why the service takes no requests now; None if it does."""
        if self._draining():
            return "the server is shutting down"
        return self._registry.reason


def _describe(model: ServedModel) -> dict[str, Any]:
    info = model.info
    return {
        "id": model.name,
        "object": "model",
        "created": CREATED,
        "owned_by": "llmrs",
        "dimensions": info.dimensions,
        "max_input_tokens": info.max_input_tokens,
        "normalized": info.normalized,
        "backend": model.backend.kind,
        "backends": _addresses(model),
        "state": model.state,
        "aliases": list(model.names[1:]),
        "prompts": sorted(filter(None, info.prompts)),
    }


def _addresses(model: ServedModel) -> list[dict[str, Any]]:
    """How each of a backend's addresses is, in the order in which they were given."""
    if model.replicas:
        return [{"url": r.url, "state": r.state, "reason": r.reason} for r in model.replicas]
    reason = model.health.reason
    return [{"url": url, "state": "down" if reason else "up", "reason": reason} for url in model.urls]


def patience(req: falcon.Request) -> float:
    """Seconds for which the client says that it waits, `X-Request-Timeout`; for ever if it says nothing.

    Raises:
        InvalidRequest: it is no positive number.
    """
    header = req.env.get("HTTP_X_REQUEST_TIMEOUT")
    if header is None:
        return inf
    if not SECONDS.fullmatch(header) or not float(header):
        raise InvalidRequest("the X-Request-Timeout header must be a positive number of seconds")
    return float(header)
