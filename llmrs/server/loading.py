"""A model's coming and going while others are served."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable
from functools import partial

import gevent

from llmrs.backends.base import Backend
from llmrs.config import Config
from llmrs.errors import ModelError, NotReady, ServiceError
from llmrs.server.fetching import fetch_model
from llmrs.server.native import NativeThreads
from llmrs.server.serving import ServedModel

log = logging.getLogger("llmrs.server")

RETIRE_STEP = 0.1
ASK_STEP = 0.2
ASK_SECONDS = 3.0
ELSEWHERE_SECONDS = 600.0
"""For so long another process may take to load a model: a large one, from a slow disk."""


def load(
    row: Config, open_backend: Callable[[Config], Backend], serve: Callable[[Backend, Config], ServedModel]
) -> ServedModel:
    """A model, ready to take its place; loaded off the hub. Raises StartupError."""
    began = time.monotonic()
    fetch_model(row)
    loading = NativeThreads(1)
    try:
        backend = loading.run(partial(open_backend, row))
    finally:
        loading.close()
    try:
        if backend.relays:
            _wait_for(backend)
        model = serve(backend, row)
    except BaseException:
        backend.close()
        raise
    model.watch()
    if not backend.on_demand:
        log.info("model %s loaded in %.1f s", model.name, time.monotonic() - began)
    return model


def retire(model: ServedModel) -> None:
    """Release a model once its last request is answered."""
    while model.requests:
        gevent.sleep(RETIRE_STEP)
    name = model.name
    model.close()
    del model
    # What was there at the start is frozen, and a served model holds itself: it would stay for ever.
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    log.info("model %s is served no more", name)


def _wait_for(backend: Backend) -> None:
    """Wait until another process computes the model. Raises ModelError if it cannot."""
    until = time.monotonic() + ELSEWHERE_SECONDS
    while True:
        try:
            return backend.check(timeout=ASK_SECONDS)
        except NotReady as error:
            if time.monotonic() > until:
                raise ModelError(str(error)) from None
        except ServiceError as error:
            raise ModelError(str(error)) from None
        gevent.sleep(ASK_STEP)
