"""What computes vectors, chosen by configuration and imported only then.

`open_backend` knows the two built-in kinds; others are installed packages with an entry point in
the group `llmrs.backends`: a callable that takes the configuration and returns a `Backend`. Its
name is the `backend_type` that picks it.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from llmrs.backends.base import Backend
from llmrs.config import Config
from llmrs.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from llmrs.backends.model import ModelBackend

GROUP = "llmrs.backends"


def open_backend(config: Config) -> Backend:
    """The backend that a configuration asks for, ready to embed or at least to be asked.

    Raises:
        ConfigError: there is no backend of that type, or it does not fit the configuration.
        ModelError: a local model cannot be loaded.
    """
    if config.uses_http_backend:
        from llmrs.backends.pool import open_http

        return open_http(config)
    if config.uses_local_backend:
        return open_model(config)
    return _open_installed(config)


def open_model(config: Config) -> ModelBackend:
    """A local model, to be computed in this process.

    Raises:
        ConfigError, ModelError: as `open_backend`.
    """
    from llmrs.backends.local import open_local

    return open_local(config)


def open_engine_client(config: Config, address: str) -> Backend:
    """A local model that another process computes, at an address. Raises ModelError.

    A static one is computed here: asking would take longer, and its table is mapped, and so shared.
    """
    from llmrs.backends.engine_client import EngineClient

    return EngineClient(config, address) if needs_engine(config) else open_model(config)


def needs_engine(config: Config) -> bool:
    """Whether a model is computed by another process, where there is one for that: a local one that is not
    static. Raises ModelError."""
    from llmrs.backends.model import is_static

    return config.uses_local_backend and not is_static(config)


def needs_download(config: Config) -> bool:
    """Whether the configuration asks for a local model whose files are not on this machine yet."""
    if not config.uses_local_backend:
        return False
    from llmrs.models.resolve import is_here

    try:
        return not is_here(config.model_path, engine=config.engine, model_file=config.model_file)
    except ModelError:
        return True  # fetching it will say what is wrong with the name


def check_type(config: Config) -> None:
    """Raise ConfigError unless the backend type exists; imports no backend."""
    if not config.uses_http_backend and not config.uses_local_backend:
        _entry_point(config)


def _entry_point(config: Config) -> EntryPoint:
    points = entry_points(group=GROUP)
    for point in points:
        if point.name == config.backend_type:
            return point
    names = ", ".join(["local", "proxy", *sorted(point.name for point in points)])
    source = config.sources.get("backend_type", "default")
    raise ConfigError(
        f"backend_type = {config.shown('backend_type')} ({source}): no such backend is installed, "
        f"only {names}"
    )


def _open_installed(config: Config) -> Backend:
    kind = config.backend_type
    point = _entry_point(config)
    try:
        opener = point.load()
    except Exception as error:  # a foreign package may fail in any way
        raise ConfigError(
            f"backend_type = {kind!r}: {point.value} cannot be imported "
            f"({type(error).__name__}); reinstall the package"
        ) from error
    backend = opener(config)
    if not isinstance(backend, Backend):
        raise ConfigError(f"backend_type = {kind!r}: {point.value} does not return a llmrs Backend")
    return backend
