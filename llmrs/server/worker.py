"""The gunicorn worker class: gunicorn's process model around a lean connection loop.

A subclass of gunicorn's own gevent worker, so that settings, signals, heartbeat, patching and the
hooks of the process stay gunicorn's; what happens on a connection is `connection`'s. Any WSGI
application runs on it. It has no access log and no hooks per request, and it speaks plain HTTP/1
only: TLS and HTTP/2 are the proxy's in front.

gunicorn imports this module in its master, before the fork and before gevent patches the worker.
So the connection, and all that it brings along, is imported by `run`.
"""

from __future__ import annotations

import gc
import ipaddress
import sys
from collections.abc import Mapping
from functools import partial
from time import monotonic
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gunicorn.http.wsgi import WSGIErrorsWrapper
from gunicorn.workers.ggevent import VERSION, GeventWorker

from llmrs.server.channel import Channel, Timeouts
from llmrs.server.listener import Listener, usable_connections
from llmrs.server.processes import room

MAX_ACCEPT = 16
"""Connections accepted in one go, before the hub looks at the open ones again."""

QUIET_SECONDS = 1.0
"""On a stop, a connection that has been quiet for so long is closed; a busy one may send one more
request, which is answered with `Connection: close`, so that no client loses one in the gap."""

CROWDED_QUIET_SECONDS = 5.0
"""While no more connections can be taken, one that has been quiet for so long gives way to who waits."""

DRAIN_STEP_SECONDS = 0.1

RESERVE_SECONDS = 1.0
"""The master kills a worker after graceful_timeout. So much of it is kept for ending in order."""

GC_THRESHOLDS = (20_000, 20, 50)
"""For `gc.set_threshold`. A thousand requests in progress are more objects than Python's 700, which are
looked through again and again and found alive: 13 % of the CPU of a request. Hardly any garbage here
has cycles that only the collector can break."""


class Worker(GeventWorker):  # type: ignore[misc]
    """Serves HTTP/1.1 on gunicorn's listeners, one greenlet a connection.

    Attributes:
        timeouts: of every connection; the one for idle ones is gunicorn's `keepalive`.
        usable: how many connections there may be.
        sweep_seconds: how often connections are asked whether their time is over, and so how late
            that may be noticed.
    """

    timeouts = Timeouts()
    sweep_seconds = 1.0
    alive: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._channels: set[Channel] = set()
        self._woken: Event | None = None
        self.usable: int = self.worker_connections
        self._keeps = self.cfg.keepalive > 0  # settings are looked up slowly
        self._schemes = {
            f"HTTP_{name.upper().replace('-', '_')}": value
            for name, value in self.cfg.secure_scheme_headers.items()
        }

    def init_process(self) -> None:
        """Refuse what this worker would not do, then start as every worker."""
        for asked, setting in (
            (self.cfg.is_ssl, "certfile"),
            (self.cfg.proxy_protocol not in (False, None, "off"), "proxy_protocol"),
            (self.cfg.header_map != "drop", "header_map"),
        ):
            if asked:
                self.log.critical(
                    "%s: %s does not support it; use gunicorn's worker class gevent",
                    setting, type(self).__name__,
                )  # fmt: skip
                sys.exit(3)  # gunicorn's code for a worker that cannot start: it does not try again
        if self.cfg.accesslog:
            self.log.warning("accesslog: %s writes no access log", type(self).__name__)
        super().init_process()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """TERM: stop after what is in progress. Called in a signal handler, so it only tells `run`."""
        super().handle_exit(sig, frame)
        if self._woken is not None:
            gevent.get_hub().loop.run_callback_threadsafe(self._woken.set)

    def run(self) -> None:
        """Serve until told to stop, then finish what is in progress within graceful_timeout."""
        # What has been loaded stays. Looking through it took 8 ms, in which nobody was answered.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        self._woken = Event()
        self.usable = usable_connections(self.worker_connections)
        pool = Pool(self.usable)
        servers = [self._listen(listener, pool) for listener in self.sockets]
        while self.alive:
            self.notify()
            self._sweep(CROWDED_QUIET_SECONDS if pool.full() else None)
            self._woken.wait(self.sweep_seconds)
            if room.engine_is_missing():
                self.log.warning("nobody computes: this gateway ends, so that a worker can")
                self.alive = False
                self.wsgi.abort()  # what waits for an engine would keep it from ending
        while room.is_needed():
            self.notify()
            self._sweep()
            gevent.sleep(DRAIN_STEP_SECONDS)
        for server in servers:
            server.finish()
        self._drain(pool)

    def connections(self) -> int:
        """How many client connections are open."""
        return len(self._channels)

    def refused(self) -> Mapping[int, int]:
        """Answers, by status, to what was no acceptable request."""
        from llmrs.server.connection import REFUSED

        return REFUSED

    # -- connections --------------------------------------------------------------------------

    def _listen(self, listener: Any, pool: Pool) -> Listener:
        from llmrs.server.connection import Connection
        from llmrs.server.request import Limits

        limits = Limits(
            self.cfg.limit_request_line or sys.maxsize,
            self.cfg.limit_request_fields or sys.maxsize,
            self.cfg.limit_request_field_size or sys.maxsize,
        )
        connect = partial(
            Connection,
            app=self.wsgi,
            proceed=self._proceed,
            limits=limits,
            timeouts=self.timeouts._replace(idle=self.cfg.keepalive or self.timeouts.head),
        )
        listener.setblocking(1)
        serve = partial(self._serve, connect, self._template(listener.getsockname()))
        server = Listener(listener, handle=serve, spawn=pool)
        server.max_accept = 1 if self.cfg.workers > 1 else MAX_ACCEPT
        server.start()
        return server

    def _serve(self, connect: Any, template: dict[str, Any], sock: Any, address: Any) -> None:
        """The life of one connection, in a greenlet of its own."""
        environ = {**template, "gunicorn.socket": sock}
        if isinstance(address, tuple):
            environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = address[0], str(address[1])
        connection = connect(sock, environ, schemes=self._schemes if self._trusts(address) else {})
        self._channels.add(connection)
        try:
            connection.serve()
        finally:
            self._channels.discard(connection)

    def _proceed(self) -> bool:
        """Count a request; whether its connection may have another one."""
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("max_requests is reached: the worker ends")
            self.alive = False
        return self.alive and self._keeps

    def _trusts(self, address: Any) -> bool:
        """Whether a peer may say which scheme its client used: gunicorn's forwarded_allow_ips."""
        if not isinstance(address, tuple) or "*" in self.cfg.forwarded_allow_ips:
            return True
        peer = ipaddress.ip_address(address[0].partition("%")[0])
        return any(peer in network for network in self.cfg.forwarded_allow_networks())

    def _template(self, address: Any) -> dict[str, Any]:
        """The environ entries that all requests of a listener share."""
        host, port = address[:2] if isinstance(address, tuple) else ("localhost", 80)
        return {
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.errors": WSGIErrorsWrapper(self.cfg),
            "wsgi.multithread": True,
            "wsgi.multiprocess": self.cfg.workers > 1,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
            "SERVER_SOFTWARE": VERSION,
            "SERVER_NAME": str(host),
            "SERVER_PORT": str(port),
            "SCRIPT_NAME": "",
            "REMOTE_ADDR": "",
        }

    # -- time ---------------------------------------------------------------------------------

    def _sweep(self, quiet: float | None = None) -> None:
        now = monotonic()
        for channel in tuple(self._channels):
            channel.expire(now)
            if quiet is not None:
                channel.retire(now, quiet)

    def _drain(self, pool: Pool) -> None:
        """Wait for the requests in progress, and for idle connections to fall quiet."""
        until = monotonic() + max(self.cfg.graceful_timeout - RESERVE_SECONDS, 0)
        while len(pool) and monotonic() < until:
            self._sweep(QUIET_SECONDS)
            self.notify()
            pool.join(timeout=DRAIN_STEP_SECONDS)
        if len(pool):
            self.log.warning("stopped with %d requests in progress", len(pool))
            pool.kill(timeout=RESERVE_SECONDS / 2)
