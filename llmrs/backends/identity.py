"""Which model the processes of one service mean: a digest of all that its vectors depend on.

Names are no help there. They are moved from one model to another while both are under way, and the files
of a folder may be replaced between one process reading them and another.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeAlias

from llmrs.config import OPTIONS, Config
from llmrs.errors import ModelError

Files: TypeAlias = tuple[tuple[str, int, int], ...]

DIGEST_BYTES = 16
"""A multiple of four, so that the numbers behind it in a frame stay aligned."""

ANSWERING = frozenset(
    (
        "backend_url",
        "backend_protocol",
        "backend_api_key",
        "backend_ca_file",
        "backend_api_version",
        "model_aliases",
        "normalize_embeddings",
        "default_prompt",
        "queue_capacity",
        "queue_seconds",
        "token_ids",
        "allow_any_dimensions",
    )
)
"""Settings of a model that matter only to who answers for it. Of a new setting nobody has to think here:
it counts as one of computing, which costs another loading at most."""

COMPUTING = tuple(option.name for option in OPTIONS if option.per_model and option.name not in ANSWERING)
"""Settings of a model that matter to who computes it."""


def settings_of(config: Config) -> dict[str, Any]:
    """What another process must know to compute a model, as JSON takes it."""
    return {key: getattr(config, key) for key in COMPUTING}


def digest_of(config: Config, files: Files) -> bytes:
    """The digest of a model by its settings and its files, as they were before they were read."""
    told = json.dumps([settings_of(config), files], sort_keys=True)
    return blake2b(told.encode(), digest_size=DIGEST_BYTES).digest()


def files_of(folder: Path) -> Files:
    """Path, size and time of change of each file; models have theirs in two levels.

    Raises:
        ModelError: the folder cannot be read.
    """
    try:
        paths = [path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_file()]
        states = [(str(path), path.stat()) for path in paths]  # what links point at, as in a download cache
    except OSError as error:
        raise ModelError(f"{folder} cannot be read ({error.strerror})") from None
    return tuple(sorted((name, state.st_size, state.st_mtime_ns) for name, state in states))
