"""API keys: deny by default, compare in constant time, never keep or show a key in clear."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path

from llmrs.config import Config
from llmrs.errors import ConfigError, InvalidApiKey

OPEN_PATHS = frozenset({"/health", "/livez", "/readyz"})
"""Probes answer without a key, or an orchestrator could not ask."""


class ApiKeys:
    """The keys that open the API. Without any key, it is open to everyone who can reach the port."""

    def __init__(self, keys: Iterable[str], open_paths: Iterable[str] = ()) -> None:
        self._digests = [_digest(key) for key in keys]
        self._open_paths = OPEN_PATHS.union(open_paths)

    def __len__(self) -> int:
        return len(self._digests)

    def check(self, path: str, authorization: str | None) -> None:
        """Raise InvalidApiKey unless the path is open or the header carries one of the keys."""
        if not self._digests or path.rstrip("/") in self._open_paths:
            return
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise InvalidApiKey("send an API key: Authorization: Bearer <key>")
        digest = _digest(key.strip())
        # All keys are compared, and as digests, so that neither their number, their length nor a
        # common prefix shows in the time it takes.
        if not max([hmac.compare_digest(digest, known) for known in self._digests]):
            raise InvalidApiKey("the API key is not valid")


def load_keys(config: Config) -> ApiKeys:
    """The keys of `api_key` and of the file `api_key_file` (one a line, # starts a comment)."""
    keys = list(config.api_key)
    if config.api_key_file:
        try:
            lines = Path(config.api_key_file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise ConfigError(f"api_key_file {config.api_key_file!r} cannot be read: {reason}") from None
        keys += [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not keys:
            # An empty file must not open the door that it was meant to lock.
            raise ConfigError(f"api_key_file {config.api_key_file!r} holds no key")
    return ApiKeys(keys, {"/metrics"} if config.metrics == "open" else ())


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
