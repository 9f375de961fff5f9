"""The composition root: the one place where backend, collector, keys and routes are put together.

`create_app` is pure: it gets all it needs and reads nothing. `get_app` reads the configuration,
loads the model and is what gunicorn calls in its worker, after the fork and after patching.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import falcon
from falcon.routing import CompiledRouter

from llmrs import wire
from llmrs.backends.base import Backend
from llmrs.backends.frames import BATCH, MODEL
from llmrs.config import Config, load
from llmrs.errors import (
    ConfigError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    ModelError,
    NotReady,
    ServiceError,
    StartupError,
    UnknownUrl,
)
from llmrs.server.admin import PATH as RELOAD
from llmrs.server.admin import Reload
from llmrs.server.auth import ApiKeys, load_keys
from llmrs.server.batches import Batches, Standings
from llmrs.server.body import CLOSE, release
from llmrs.server.cors import Cors
from llmrs.server.door import TURN
from llmrs.server.envelope import Envelope
from llmrs.server.exposition import Page, process_families
from llmrs.server.hosting import Hosting
from llmrs.server.logs import lost_lines
from llmrs.server.memory import PayloadMemory
from llmrs.server.metrics import Metrics
from llmrs.server.native import NativeThreads
from llmrs.server.notices import Notices
from llmrs.server.opening import open_here, open_usable
from llmrs.server.presence import watch_stock
from llmrs.server.processes import room
from llmrs.server.quotas import Limited, Posted, Quotas
from llmrs.server.registry import Registry
from llmrs.server.reloading import Reloading
from llmrs.server.requestlog import RequestLog
from llmrs.server.residence import Residents
from llmrs.server.resources import Embed, Health, MetricsPage, Models, OpenAIEmbeddings
from llmrs.server.series import Family
from llmrs.server.serving import ServedModel
from llmrs.server.snapshots import Snapshots
from llmrs.server.switch import Switch, row_of

if TYPE_CHECKING:
    from llmrs.server.tracing import Tracing

log = logging.getLogger("llmrs.server")

SLASHES = re.compile("//+")
"""Several in a row are one: clients join an address that ends in a slash and a path that begins with one."""


class Application:
    """The WSGI application with what has to be told about the process and released at its end.

    Attributes:
        draining: whether the process has been asked to end; the server sets what to ask.
        payload_memory: what the bodies of requests take.
        registry: what is served.

    Args:
        backends: one for each model of the configuration; none where it serves as the `engine`, which
            serves other processes of this service, and not clients.
    """

    def __init__(
        self, backends: Sequence[Backend], config: Config, keys: ApiKeys, *, engine: bool = False
    ) -> None:
        self.draining: Callable[[], bool] = lambda: False
        self.metrics = Metrics(tei=config.tei_metrics)
        self.request_log = RequestLog(config.log_requests, json=config.log_format == "json")
        self._tracing = _open_tracing(config)
        self._tokenizing = NativeThreads(1)
        self._writing = NativeThreads(1)
        self._residents = Residents(config.model_memory)
        self.registry = Registry(
            [*map(self._serve, backends, () if engine else config.served)],
            answers_any=config.unknown_model == "default",
        )
        self.metrics.watch(self.models)
        changed = lambda: self.metrics.show(self.models)  # noqa: E731
        self.hosting = Hosting(self.registry, config, self._serve, changed) if engine else None
        self._switch = Switch(self.registry, config, open_here, self._serve, changed)
        notices = None if room.folder is None or engine else Notices(room.folder, os.getpid())
        self._reloading = Reloading(self._switch, self.registry, notices)
        self.payload_memory = PayloadMemory(config.payload_memory)
        self.metrics.payload_bytes = lambda: self.payload_memory.taken
        self.metrics.lost_log_lines = lambda: self.request_log.lost + lost_lines()
        self._families: Callable[[], Iterable[Family]] = self._own_families
        self._snapshots: Snapshots | None = None
        if room.folder is not None and config.metrics != "off":
            self._snapshots = Snapshots(room.folder, self._own_families, room.role)
            self._families = self._snapshots.families
        self._watches_file = config.watch_config
        self._falcon = self._routes(config, keys)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if CLOSE not in environ:
            self._complete(environ, start_response)
        if "//" in environ["PATH_INFO"]:
            environ["PATH_INFO"] = SLASHES.sub("/", environ["PATH_INFO"])
        self.metrics.in_flight += 1
        try:
            return self._falcon(environ, start_response)
        finally:
            self.metrics.in_flight -= 1
            release(environ)
            if (turn := environ.pop(TURN, None)) is not None:
                turn.release()

    def _complete(self, environ: dict[str, Any], start_response: Any) -> None:
        """Add to the environ of gunicorn's own worker what that of ours has."""
        # Its start_response is a method of its response, which can be told to close.
        close = environ[CLOSE] = getattr(getattr(start_response, "__self__", None), "force_close", None)
        if close is not None and self.metrics.is_full():
            close()  # it keeps idle connections as long as ever, however many wait for one
        watch_stock(environ, start_response)

    @property
    def models(self) -> Sequence[ServedModel]:
        """What is served now, the default model first."""
        return self.registry.models

    def _serve(self, backend: Backend, config: Config) -> ServedModel:
        return ServedModel(
            backend, config, self.metrics, self._tokenizing, lambda: self.draining(), self._residents
        )

    def _own_families(self) -> Iterator[Family]:
        """The metrics of this process."""
        yield from self.metrics.families()
        yield from process_families()

    def watch_backends(self) -> None:
        """Learn what the backends are, and keep watching them, and whether others are wanted."""
        for model in self.models:
            model.watch()
        self._residents.watch()
        if self.hosting is not None:
            self.hosting.watch()
            return
        self._reloading.watch()
        if self._watches_file:
            self._switch.watch()

    def abort(self) -> None:
        """Answer all requests at once: nobody computes, and will not before this process has ended."""
        for model in self.models:
            model.collector.abort(lambda: NotReady("nobody computes at the moment", retry_after=2))

    def close(self) -> None:
        """Answer what waits, stop the threads, release the backends."""
        self._reloading.close()
        if self._snapshots is not None:
            self._snapshots.close()
        for model in self.models:
            model.close()
        self._residents.close()
        self._tokenizing.close()
        self._writing.close()
        self.metrics.close()
        if self._tracing is not None:
            self._tracing.close()

    def _routes(self, config: Config, keys: ApiKeys) -> falcon.App[Any, Any]:
        router = CompiledRouter()
        cors = Cors(config.cors_allow_origin, router) if config.cors_allow_origin else None
        envelope = Envelope(keys, self.metrics, self.request_log, cors, self._tracing)
        app: falcon.App[Any, Any] = falcon.App(middleware=[envelope], router=router)
        app.req_options.strip_url_path_trailing_slash = True
        if self.hosting is not None:
            app.add_route(BATCH, Batches(self.hosting))
            app.add_route(MODEL, Standings(self.hosting))
        else:
            self._add_api(app, config)
        health = Health(self.registry, lambda: self.draining())
        self.metrics.ready = lambda: health.not_ready() is None
        app.add_route("/health", health)
        app.add_route("/readyz", health)
        app.add_route("/livez", health, suffix="live")
        if config.metrics != "off":
            app.add_route("/metrics", MetricsPage(Page(self._families)))
        # Falcon takes the handler added last first: the specific ones come after the general one.
        app.add_error_handler(Exception, _answer_bug)
        app.add_error_handler(falcon.HTTPError, _answer_falcon_error)
        app.add_error_handler(ServiceError, _answer_error)
        return app

    def _add_api(self, app: falcon.App[Any, Any], config: Config) -> None:
        registry = self.registry
        embeddings: Posted = OpenAIEmbeddings(registry, config, self._writing, self.payload_memory)
        embed: Posted = Embed(registry, config, self._writing, self.payload_memory)
        if config.key_concurrency or config.key_rate:
            quotas = Quotas(config.key_concurrency, config.key_rate)
            embeddings, embed = Limited(embeddings, quotas), Limited(embed, quotas)
        models = Models(registry)
        app.add_route("/v1/embeddings", embeddings)
        app.add_route("/embeddings", embeddings)
        app.add_route("/embed", embed)
        for listing in ("/v1/models", "/models"):
            app.add_route(listing, models)
            app.add_route(f"{listing}/{{name:path}}", models, suffix="one")
        if config.admin_key is not None:
            app.add_route(RELOAD, Reload(self._reloading, config.admin_key))


def _open_tracing(config: Config) -> Tracing | None:
    """What makes spans, if it is asked for.

    Raises:
        ConfigError: its packages are not installed.
    """
    if config.tracing == "off":
        return None
    try:
        from llmrs.server.tracing import Tracing
    except ImportError as error:
        raise ConfigError(
            f"tracing = {config.shown('tracing')} ({config.sources['tracing']}) needs OpenTelemetry, which "
            f"cannot be loaded ({error}): pip install 'llmrs[otel]'"
        ) from None
    return Tracing()


def create_app(backends: Sequence[Backend], config: Config, keys: ApiKeys | None = None) -> Application:
    """The application that serves these backends, the first of them as the default model."""
    return Application(backends, config, keys or ApiKeys(()))


def get_app(config: Config | None = None) -> Application:
    """The application that the configuration describes, its model loaded and warm.

    A StartupError ends the process with one line in the log and exit code 3, whatever its own: it is
    the code with which gunicorn's master ends, too, instead of starting the worker again and again.
    """
    try:
        config = config or load()
        for warning in config.warnings:
            log.warning("%s", warning)
        began = time.monotonic()
        app = _create_later(config) if room.is_later else _create(config)
    except StartupError as error:
        log.critical("%s", error)
        # A second one with that code would end the master before it has tidied up, with another code.
        raise SystemExit(ModelError.exit_code if room.fails_first() else 1) from None
    app.watch_backends()
    for model in app.models:
        if model.backend.on_demand:
            log.info("model %s is loaded on its first request", model.name)
        elif model.health.reason is None:
            kind = ", ".join(filter(None, (model.backend.kind, model.backend.description)))
            log.info("model %s (%s, %s dimensions) is ready", model.name, kind, model.info.dimensions)
    log.info("started in %.1f s", time.monotonic() - began)
    return app


def _create(config: Config) -> Application:
    """The application for this process's role, see `processes`."""
    if room.role != "engine":
        return create_app([open_here(model) for model in config.served], config, load_keys(config))
    app = Application((), _without_limits(config), ApiKeys(()), engine=True)
    assert app.hosting is not None
    app.hosting.open(strict=not room.is_later)
    return app


def _create_later(config: Config) -> Application:
    """The application of a process that takes another one's place, with the models of the present.

    Those that cannot be served are left out, and /health tells of them. If none can, those of the start are
    served.
    """
    try:
        now = config.reread()
    except ConfigError as error:
        log.error("the configuration cannot be used, the one of the start is: %s", error)
        return _create(config)
    now = replace(config, models=tuple(row_of(config, row) for row in now.served))
    if room.role == "engine":
        return _create(now)
    opened, trouble = open_usable(now.served)
    if not opened:
        return _create(config)
    rows, backends = zip(*opened, strict=True)
    app = create_app(backends, replace(now, models=rows), load_keys(config))
    app.registry.trouble = trouble
    return app


def _without_limits(config: Config) -> Config:
    """The engine's configuration: the gateways have bounded queues of their own, and what concerns texts,
    and not token ids, is theirs, too."""
    return replace(
        config,
        backend_url=(),
        default_prompt=None,
        token_ids="native",
        queue_capacity=1_000_000,
        queue_seconds=86400.0,
        log_requests=0.0,
        tracing="off",
    )


def _answer_error(req: falcon.Request, resp: falcon.Response, error: Exception, params: Any) -> None:
    assert isinstance(error, ServiceError)
    req.context.error = error.code or error.type  # not the error itself: its traceback holds the request
    req.context.rejection = error.rejection
    resp.status = falcon.code_to_http_status(error.status)
    resp.data = wire.encode_error(error)
    resp.content_type = falcon.MEDIA_JSON
    resp.set_headers(error.headers)


def _answer_falcon_error(req: falcon.Request, resp: falcon.Response, error: Exception, params: Any) -> None:
    """Falcon's own errors: no route, a wrong method, a header that cannot be read."""
    assert isinstance(error, falcon.HTTPError)
    known: ServiceError
    if isinstance(error, falcon.HTTPNotFound):
        known = UnknownUrl("there is nothing at this path; embeddings are at POST /v1/embeddings")
    elif isinstance(error, falcon.HTTPMethodNotAllowed):
        known = MethodNotAllowed("this path does not take that method; see the Allow header")
        known.headers = dict(error.headers or {})
    else:
        known = InvalidRequest("the request could not be understood")
        known.status = error.status_code
    _answer_error(req, resp, known, params)


def _answer_bug(req: falcon.Request, resp: falcon.Response, error: Exception, params: Any) -> None:
    # The template and not the path, which is the caller's to choose.
    log.error("unexpected error while answering %s", req.uri_template or "an unknown path", exc_info=error)
    _answer_error(req, resp, InternalError("the server made a mistake; its log has the details"), params)
