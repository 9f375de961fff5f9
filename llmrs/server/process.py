"""The server process: gunicorn's settings, its hooks, and how `llmrs serve` runs it.

Imported by gunicorn's master, before the fork and before gevent patches the worker, so nothing
here may import gevent, falcon, requests, ssl users or an engine: `load` does, in the worker.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from functools import partial
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.errors import HaltServer
from gunicorn.sock import UnixSocket

from llmrs.backends import check_type
from llmrs.config import Config
from llmrs.errors import ConfigError, ModelError
from llmrs.server.connections import backlog, count_connections
from llmrs.server.fetching import fetch_model
from llmrs.server.listening import check_address
from llmrs.server.processes import room
from llmrs.server.scratch import scratch_folder
from llmrs.server.systemd import REPEAT_SECONDS, ServiceManager

log = logging.getLogger("llmrs.server")

WORKER_CLASSES = {"llmrs": "llmrs.server.worker.Worker", "gevent": "gevent"}
"""gunicorn's names of the choices of `worker_class`."""

READY_STEP = 0.1

EXAMPLE = (
    """curl -s {url}/v1/embeddings -H 'Content-Type: application/json' -d '{{"input": "Hello, world"}}'"""
)


def gunicorn_settings(config: Config) -> dict[str, Any]:
    """gunicorn's settings for this configuration, in gunicorn's own names.

    Raises:
        ConfigError: there is no backend of the configured type, or no folder that can be written to.
    """
    for model in config.served:
        check_type(model)
    manager = ServiceManager(config.processes)
    return {
        "bind": config.bind,
        "worker_class": WORKER_CLASSES[config.worker_class],
        # One process holds the model and batches for everyone, behind those that answer HTTP or being
        # the one that does. (`workers` of llmrs means batches in flight.)
        "workers": config.processes + config.has_engine_process,
        "worker_connections": config.worker_connections,
        "keepalive": config.keepalive,
        # The worker sends no heartbeat while it loads its model.
        "timeout": 120,
        "graceful_timeout": config.graceful_timeout,
        # A replacement worker starts after the old one has stopped listening: no recycling.
        "max_requests": 0,
        # Native inference threads do not survive a fork.
        "preload_app": False,
        # The heartbeat file must not wait for a disk.
        "worker_tmp_dir": scratch_folder(in_memory=True),
        # gunicorn's access log costs 30 us a request, more than our own whole path.
        "accesslog": None,
        "loglevel": config.log_level,
        "logger_class": f"llmrs.server.logs.{'Json' if config.log_format == 'json' else 'Text'}Logger",
        # It wants a writable home directory, which a container need not have.
        "control_socket_disable": True,
        "proc_name": "llmrs",
        "on_starting": lambda server: _prepare(config, manager),
        "on_reload": lambda server: _open_room(config),
        "when_ready": lambda server: manager.listen(),
        "post_fork": lambda server, worker: _worker_joins(worker, manager),
        "post_worker_init": lambda worker: _worker_ready(worker, manager),
        "child_exit": lambda server, worker: _worker_ended(server, worker, manager),
        "worker_exit": _worker_exit,
        "on_exit": lambda server: _end(manager),
    }


class Server(BaseApplication):  # type: ignore[misc]
    """gunicorn around a configuration that is already loaded."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._settings = gunicorn_settings(config)
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        from llmrs.server.app import get_app

        return get_app(self._config)


def serve(config: Config) -> int:
    """Run the server until it is told to stop; returns the exit code of the process.

    Raises:
        ConfigError: before anything is started.
    """
    check_address(config)
    server = Server(config)
    try:
        server.run()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def _prepare(config: Config, manager: ServiceManager) -> None:
    """Before the port opens."""
    manager.take_over(os.environ)
    try:
        check_address(config)
        for model in config.served:
            fetch_model(model, partial(manager.is_loading, "fetching a model"))
        _open_room(config)
    except ModelError as error:
        log.critical("%s", error)
        raise SystemExit(error.exit_code) from None
    except ConfigError as error:
        sys.stderr.write(f"llmrs: error: {error}\n")  # at once: the thread of the log writes there, too
        raise SystemExit(error.exit_code) from None


def _open_room(config: Config) -> None:
    room.open(config.processes, engine=config.has_engine_process)


def _worker_joins(worker: Any, manager: ServiceManager) -> None:
    """A worker has been forked: the one that computes has a listener of its own."""
    manager.join()
    room.is_later = worker.age > worker.cfg.workers
    if (listener := room.join()) is not None:
        for public in worker.sockets:
            public.sock.close()  # or connections would wait in it when the gateways have closed theirs
        path = listener.getsockname()
        worker.sockets = [UnixSocket(path, worker.cfg, worker.log, fd=listener.fileno())]


def _worker_ready(worker: Any, manager: ServiceManager) -> None:
    """The model is loaded: say so, with a line that can be pasted into a shell."""
    app = worker.wsgi
    app.draining = lambda: not worker.alive and not room.is_needed()
    app.metrics.connections = getattr(worker, "connections", None) or count_connections(worker)
    app.metrics.connection_limit = lambda: getattr(worker, "usable", worker.worker_connections)
    app.metrics.porch.needed = lambda: backlog(worker.sockets) if app.metrics.is_full() else 0
    app.metrics.refused = getattr(worker, "refused", dict)
    if room.role == "engine":
        return
    if manager.is_asking:
        import gevent

        gevent.spawn(_report, app, manager)
    reason = app.models[0].reason
    state = "ready" if reason is None else f"waiting for the backend ({reason})"
    for listener in worker.sockets:
        log.info("%s; try: %s", state, _example(listener.getsockname()))


def _report(app: Any, manager: ServiceManager) -> None:
    """Tell the service manager what /readyz would say, until that is 200."""
    import gevent

    told_at = float("-inf")
    while (reason := app.registry.reason) is not None:
        if (now := time.monotonic()) >= told_at + REPEAT_SECONDS:
            told_at = now
            manager.report(reason)
        gevent.sleep(READY_STEP)
    manager.report(None)


def _example(address: Any) -> str:
    if isinstance(address, (str, bytes)):
        path = address.decode() if isinstance(address, bytes) else address
        return EXAMPLE.format(url=f"--unix-socket {path} http://localhost")
    host, port = address[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    return EXAMPLE.format(url=f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")


def _worker_ended(server: Any, worker: Any, manager: ServiceManager) -> None:
    """In the master: another worker takes its place, and needs a heartbeat file of its own."""
    manager.forget(worker.pid)
    if not server.LISTENERS:
        return  # it is stopping
    try:
        server.cfg.set("worker_tmp_dir", scratch_folder(in_memory=True))
    except ConfigError as error:
        raise HaltServer(str(error), error.exit_code) from None


def _end(manager: ServiceManager) -> None:
    manager.is_stopping()
    room.close()


def _worker_exit(server: Any, worker: Any) -> None:
    app = getattr(worker, "wsgi", None)
    if app is not None:
        app.close()
