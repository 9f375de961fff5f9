"""Who may call: deny by default, compare in constant time, never keep or show a key in clear."""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from llmrs.config import Config
from llmrs.errors import InvalidApiKey
from llmrs.server.keys import Key, KeyFile, digest, unnamed

OPEN_PATHS = frozenset({"/health", "/livez", "/readyz"})
"""Probes answer without a key, or an orchestrator could not ask."""


class ApiKeys:
    """The keys that open the API. Without any key, it is open to everyone who can reach the port.

    Args:
        keys: in clear, of which only digests stay.
        open_paths: further paths that need no key.
        file: gives more keys, and others when it changes.
    """

    def __init__(
        self, keys: Iterable[str], open_paths: Iterable[str] = (), file: KeyFile | None = None
    ) -> None:
        self._fixed = unnamed(keys)
        self._file = file
        self._open_paths = OPEN_PATHS.union(open_paths)
        self._keys = self._all()

    def __len__(self) -> int:
        return len(self._keys)

    def check(self, path: str, authorization: str | None) -> str | None:
        """The name of the key that the header carries; None where none is needed.

        Raises:
            InvalidApiKey: the path is not open, and the header carries none of the keys.
        """
        if not self._keys or path in self._open_paths:
            return None
        if self._file is not None and self._file.look():
            self._keys = self._all()
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise InvalidApiKey("send an API key: Authorization: Bearer <key>")
        theirs = digest(key.strip())
        # All keys are compared, and as digests, so that neither their number, their length nor a
        # common prefix shows in the time it takes.
        matches = [hmac.compare_digest(theirs, known.digest) for known in self._keys]
        if not max(matches):
            raise InvalidApiKey("the API key is not valid")
        return self._keys[matches.index(True)].name

    def _all(self) -> tuple[Key, ...]:
        return self._fixed if self._file is None else self._fixed + self._file.keys


def load_keys(config: Config) -> ApiKeys:
    """The keys of `api_key` and of the file `api_key_file`.

    Raises:
        ConfigError: the file gives no keys. An empty one must not open the door it was meant to lock.
    """
    file = KeyFile(config.api_key_file) if config.api_key_file else None
    open_paths = [
        path
        for path, is_open in (
            ("/metrics", config.metrics == "open"),
            ("/admin/reload", config.admin_key is not None),  # which asks for that key
        )
        if is_open
    ]
    return ApiKeys(config.api_key, open_paths, file)
