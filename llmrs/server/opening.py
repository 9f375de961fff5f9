"""A model's backend, as this process's role in the service asks for it, see `processes`."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from llmrs.backends import open_backend, open_engine_client
from llmrs.backends.base import Backend
from llmrs.config import Config
from llmrs.errors import ConfigError, StartupError
from llmrs.prompts import check_default
from llmrs.server.processes import room

log = logging.getLogger("llmrs.server")


def open_here(row: Config) -> Backend:
    """The backend of a model: a gateway has its local models computed by the engine. Raises StartupError."""
    if room.role == "gateway" and row.uses_local_backend:
        return open_engine_client(row, room.address)
    if room.role == "alone" and row.has_engine_process:
        raise ConfigError(
            f"model {row.model_name or row.model_path}: the process that computes local models for several "
            "others is there from the next start on"
        )
    return open_backend(row)


def open_usable(rows: Iterable[Config]) -> tuple[list[tuple[Config, Backend]], dict[str, str]]:
    """The models that can be opened with their backends, and why others cannot, by their names."""
    opened: list[tuple[Config, Backend]] = []
    trouble: dict[str, str] = {}
    for row in rows:
        name = row.model_name or row.model_path
        if isinstance(found := _try_open(row), Backend):
            opened.append((row, found))
        else:
            log.error("model %s cannot be served: %s", name, found)
            trouble[name] = str(found)
    return opened, trouble


def _try_open(row: Config) -> Backend | StartupError:
    try:
        backend = open_here(row)
        if not row.uses_http_backend:
            check_default(backend.info.prompts, row.default_prompt)
    except StartupError as error:
        return error
    return backend
