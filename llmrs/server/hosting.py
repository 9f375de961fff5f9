"""The models that the engine process computes for the gateways, by the digests of `backends.identity`.

The gateways know the configuration and say what they need; the engine has what is asked for. At its start
it loads what its own configuration names. A model that is asked for and not here is loaded in the background;
one for which nobody has asked for a while is released. So a switch needs no further agreement: the new model
is here before a gateway sends to it, and the old one as long as one still does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

import gevent
from gevent.lock import BoundedSemaphore

from llmrs.backends import needs_engine, open_model
from llmrs.backends.base import Backend
from llmrs.backends.frames import Standing
from llmrs.backends.identity import COMPUTING, digest_of, files_of, settings_of
from llmrs.config import Config
from llmrs.errors import InvalidRequest, ModelError, NotReady, StartupError
from llmrs.server.loading import load, retire
from llmrs.server.registry import Registry
from llmrs.server.serving import ServedModel

if TYPE_CHECKING:
    from llmrs.backends.model import ModelBackend

log = logging.getLogger("llmrs.server")

UNUSED_SECONDS = 20.0
"""A model for which no gateway has asked for so long is released. Each asks every 5 to 8 seconds while it
serves the model, see `health`."""

START_SECONDS = 120.0
"""The same for a model of the start: gateways may start after it, and gunicorn gives them so long."""

FAILED_SECONDS = 60.0
"""For so long a model that could not be loaded is not tried again, however often it is asked for. (One whose
files are mended has another digest.)"""

LOOK_SECONDS = 1.0


class Place:
    """What is known of a model that was asked for.

    Attributes:
        model: None while it is not ready.
        failed: why it could not be loaded; None while that is not known.
        until: when it is forgotten unless somebody asks.
        again: when it may be tried again if it has failed.
    """

    __slots__ = ("again", "failed", "model", "until")

    def __init__(self, model: ServedModel | None = None, until: float = 0.0) -> None:
        self.model = model
        self.failed: str | None = None
        self.until = until
        self.again = inf


class Hosting:
    """Keeps the models that are asked for.

    Args:
        registry: shows them to the process's metrics and its end.
        config: the service's; of models only what computing needs is taken from it.
        serve: makes a served model of a backend and its configuration.
        changed: called when the registry has changed.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        registry: Registry,
        config: Config,
        serve: Callable[[Backend, Config], ServedModel],
        changed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._config = config
        self._serve = serve
        self._changed = changed
        self._clock = clock
        self._places: dict[bytes, Place] = {}
        self._one_at_a_time = BoundedSemaphore()

    def open(self, *, strict: bool) -> None:
        """Load the models of the configuration that gateways will ask for, at the start.

        Raises:
            StartupError: one cannot be loaded, and `strict`. Without, it is asked for if it is needed.
        """
        for row in self._config.served:
            if row.uses_local_backend:
                try:
                    self._open(row)
                except StartupError as error:
                    if strict:
                        raise
                    log.error("model %s cannot be loaded: %s", row.model_name or row.model_path, error)

    def get(self, digest: bytes) -> ServedModel:
        """The model that a batch is for. Raises NotReady unless it is here: never another one."""
        place = self._places.get(digest)
        if place is None or place.model is None:
            raise NotReady("that model is not loaded here", retry_after=1)
        self._keep(place)
        return place.model

    def ask(self, digest: bytes, settings: dict[str, Any]) -> Standing:
        """How a model stands; it will be loaded if it is not here yet.

        Raises:
            InvalidRequest: those are no settings.
        """
        if settings.keys() != set(COMPUTING):
            raise InvalidRequest("not the settings of a model")
        place = self._places.get(digest)
        if place is None or self._clock() >= place.again:
            place = self._places[digest] = Place()
            gevent.spawn(self._load, digest, place, settings)
        self._keep(place)
        if place.failed is not None:
            return Standing("failed", place.failed)
        if place.model is None:
            return Standing("loading", memory="loading")
        return Standing("ready", memory=place.model.state)

    def watch(self) -> None:
        """Release what nobody asks for, from now on, in a greenlet of its own."""
        gevent.spawn(self._watch)

    def sweep(self) -> None:
        """Release what nobody has asked for until now."""
        for digest, place in tuple(self._places.items()):
            loading = place.model is None and place.failed is None
            if self._clock() < place.until or loading:
                continue
            del self._places[digest]
            if place.model is not None:
                self._show()
                gevent.spawn(retire, place.model)

    def _open(self, row: Config) -> None:
        """Load a model at the start, where nothing else goes on."""
        if not needs_engine(row):
            return  # the gateways compute it themselves
        row = self._row(settings_of(row))
        backend = open_model(row)
        until = self._clock() + START_SECONDS
        self._places[_digest_of(row, backend)] = Place(self._serve(backend, row), until)
        self._show()

    def _load(self, digest: bytes, place: Place, settings: dict[str, Any]) -> None:
        try:
            with self._one_at_a_time:
                place.model = load(self._row(settings), partial(_open_as, digest), self._serve)
        except Exception as error:  # whatever it is: who asked is told, and the others go on
            known = isinstance(error, StartupError)
            log.error("a model cannot be loaded: %s", error, exc_info=not known)
            place.failed = str(error) if known else "it cannot be loaded, see the log"
            place.again = self._clock() + FAILED_SECONDS
        else:
            self._show()

    def _row(self, settings: dict[str, Any]) -> Config:
        return replace(self._config, models=(), **settings)

    def _keep(self, place: Place) -> None:
        place.until = max(self._clock() + UNUSED_SECONDS, place.until)

    def _show(self) -> None:
        self._registry.models = tuple(place.model for place in self._places.values() if place.model)
        self._changed()

    def _watch(self) -> None:
        while True:
            gevent.sleep(LOOK_SECONDS)
            self.sweep()


def _open_as(digest: bytes, row: Config) -> ModelBackend:
    """The model of a digest, and no other one. Raises StartupError."""
    backend = open_model(row)
    if _digest_of(row, backend) != digest:
        raise ModelError(f"{backend.folder.path}: its files are not those that were there a moment ago")
    return backend


def _digest_of(row: Config, backend: ModelBackend) -> bytes:
    """The digest of a model that has been loaded. Raises ModelError if its files have changed meanwhile."""
    if files_of(backend.folder.path) != backend.files:
        raise ModelError(f"{backend.folder.path}: its files have changed while it was loaded")
    return digest_of(row, backend.files)
