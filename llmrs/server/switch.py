"""Models are added, replaced and removed while others are served.

The configuration is read again when its file changes, or when somebody who may asks for it. A model whose
settings are the same stays as it is. A new one is loaded beside the old ones, off the hub, and probed; then
all of them take their places at once, between two requests. A model that is served no more answers the
requests it has, and is released. One that cannot be loaded leaves the old one of its name serving, and the
reason in /health and in the log. What is not about models waits for a restart.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import gevent
from gevent.lock import BoundedSemaphore

from llmrs.backends.base import Backend
from llmrs.config import OPTIONS, Config
from llmrs.errors import ConfigError, StartupError
from llmrs.server.loading import load, retire
from llmrs.server.registry import Registry
from llmrs.server.serving import ServedModel

log = logging.getLogger("llmrs.server")

LOOK_SECONDS = 1.0
"""How often the configuration file is looked at: a system call of two microseconds."""

PER_MODEL = tuple(option.name for option in OPTIONS if option.per_model)


class Switch:
    """Keeps a registry as the configuration says.

    Args:
        registry: what is served.
        config: what it was made from.
        open_backend: makes a backend of a configuration, on a native thread.
        serve: makes a served model of a backend and its configuration.
        changed: called when the registry has changed.
    """

    def __init__(
        self,
        registry: Registry,
        config: Config,
        open_backend: Callable[[Config], Backend],
        serve: Callable[[Backend, Config], ServedModel],
        changed: Callable[[], None],
    ) -> None:
        self._registry = registry
        self._config = config
        self._start = config
        self._open = open_backend
        self._serve = serve
        self._changed = changed
        self._one_at_a_time = BoundedSemaphore()
        self._seen: Signature | None = None  # so it is read once more: it may have changed meanwhile

    def watch(self) -> None:
        """Look at the configuration file from now on, in a greenlet of its own."""
        gevent.spawn(self._watch)

    def reload(self) -> dict[str, str]:
        """Serve what the configuration says now. Returns why some models are not, by their names.

        Raises:
            ConfigError: the configuration is wrong, and all is as it was.
        """
        with self._one_at_a_time:
            self._seen = _signature(self._config.file)
            try:
                config = self._config.reread()
            except ConfigError as error:
                self._registry.trouble = {"configuration": str(error)}
                raise
            self._tell_what_waits(config)
            self._registry.trouble = self._switch(config)
            self._config = config
            return self._registry.trouble

    def mend(self) -> None:
        """Open models anew whose files were replaced, so that nobody can load the old ones any more."""
        with self._one_at_a_time:
            if any(map(_is_outdated, self._registry.models)):
                self._registry.trouble = self._switch(self._config)

    def _switch(self, config: Config) -> dict[str, str]:
        before = self._registry.models
        old = {_settings(model.config): model for model in before if not _is_outdated(model)}
        models: list[ServedModel] = []
        trouble: dict[str, str] = {}
        for row in config.served:
            model = old.get(_settings(row))
            if model is None:
                try:
                    model = self._load(row)
                except Exception as error:  # of an installed backend, too: the others shall go on
                    name = row.model_name or row.model_path
                    known = isinstance(error, StartupError)
                    log.error("model %s cannot be served: %s", name, error, exc_info=not known)
                    trouble[name] = str(error) if known else "it cannot be loaded, see the log"
                    model = next((each for each in before if name in each.names), None)
            if model is not None and model not in models:
                models.append(model)
        if not models:
            return trouble  # nothing can be served as it is asked for: rather what there is than nothing
        if tuple(models) == before:
            return trouble
        self._registry.models = tuple(models)
        self._changed()
        log.info("served: %s", ", ".join(model.name for model in models))
        for model in before:
            if model not in models:
                gevent.spawn(retire, model)
        return trouble

    def _load(self, row: Config) -> ServedModel:
        """A model, ready to take its place. Raises StartupError."""
        return load(row_of(self._start, row), self._open, self._serve)

    def _watch(self) -> None:
        before = None
        while True:
            gevent.sleep(LOOK_SECONDS)
            now = _signature(self._config.file)
            # A file that is gone, empty or still being written says nothing about models.
            settled, before = now == before, now
            if now is None or not now.size or not settled or now == self._seen:
                continue
            try:
                self.reload()
            except ConfigError as error:
                log.error("the configuration has changed and cannot be used: %s", error)
            except Exception:
                log.exception("the configuration could not be applied")

    def _tell_what_waits(self, config: Config) -> None:
        rest = (option.name for option in OPTIONS if not option.per_model)
        waits = [key for key in rest if getattr(config, key) != getattr(self._config, key)]
        if waits:
            log.warning("changed with the next start: %s", ", ".join(waits))


def row_of(service: Config, model: Config) -> Config:
    """A model of a configuration read later: what is for the whole service stays as it was at the start."""
    return replace(service, models=(), **{key: getattr(model, key) for key in PER_MODEL})


def _is_outdated(model: ServedModel) -> bool:
    return model.reason is not None and model.backend.is_outdated


def _settings(config: Config) -> tuple[object, ...]:
    """What makes a model this one and no other."""
    return tuple(getattr(config, key) for key in PER_MODEL)


class Signature(NamedTuple):
    """Changes whenever a file is written or replaced."""

    changed: int
    size: int
    inode: int


def _signature(path: str) -> Signature | None:
    """That of a file; None while there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return Signature(status.st_mtime_ns, status.st_size, status.st_ino)
