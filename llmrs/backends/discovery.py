"""Finding out what a backend speaks and serves: by asking for what identifies it, then for a vector.

Runs once per backend, when it is first reached. A protocol counts as spoken when a short text comes
back as a vector, so what is learned here (protocol, encoding, width) is known to work. Whatever may
pass by itself (unreachable, overloaded, still loading) ends the search with an error instead of a
guess, and the next caller searches again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np

from llmrs.backends.azure import Deployment
from llmrs.backends.protocols import TEI, Azure, Embed, Ollama, OpenAI, Protocol, Reply
from llmrs.backends.refusals import CREDENTIALS, described, encoding_of
from llmrs.backends.transport import Answer, Transport
from llmrs.config import Config
from llmrs.embeddings import ModelInfo
from llmrs.errors import UpstreamError

log = logging.getLogger("llmrs.backend")

PROBE = b'"hello"'
"""The text whose vector is asked for, as JSON."""

MAX_LISTING = 4 << 20
"""Bytes of a model list or a probe's vector."""

DEFAULT_MODEL = "default"
"""The name sent where none is configured and the backend lists none."""

NOT_YET = (424, 429)
"""Statuses, beside those above 501, that say nothing about the protocol: the server may get ready. 500 and
501 are also what some answer to a field or a path they do not know."""


class Found(NamedTuple):
    """A backend that answered: how to speak to it, and what it serves."""

    protocol: Protocol
    info: ModelInfo


class _Model(NamedTuple):
    name: str
    max_input_tokens: int | None
    owner: str | None = None


def discover(transport: Transport, config: Config, deadline: float, azure: Deployment | None = None) -> Found:
    """What the backend speaks, among `config.backend_protocol` or, if that is `auto`, all protocols.

    What is `azure` needs no search: its address says all.

    Raises:
        UpstreamError: it cannot be reached, is not ready, or speaks none of them.
        DeadlineExceeded: `deadline` (a `time.monotonic()` moment) has passed.
    """
    search = _Search(transport, config, deadline, azure)
    for protocol, model in search.candidates():
        reply = search.try_out(protocol)
        if reply is not None:
            return Found(protocol, _announce(transport, protocol, model, reply))
    raise UpstreamError(search.nothing_found())


def _announce(transport: Transport, protocol: Protocol, model: _Model, reply: Reply) -> ModelInfo:
    width = reply.matrix.shape[1]
    unit = bool(abs(np.linalg.norm(reply.matrix[0].astype(np.float64)) - 1) < 1e-3)
    found = "backend %s speaks %s (POST %s): model %s, %d dimensions"
    log.info(found, transport.address, protocol.name, protocol.path, model.name, width)
    return ModelInfo(model.name, dimensions=width, max_input_tokens=model.max_input_tokens, normalized=unit)


class _Search:
    def __init__(
        self, transport: Transport, config: Config, deadline: float, azure: Deployment | None
    ) -> None:
        self._azure = azure
        self._transport = transport
        self._config = config
        self._deadline = deadline
        self._refused = False
        self._tried: list[str] = []
        self._got: dict[str, dict[str, Any]] = {}

    def nothing_found(self) -> str:
        """Why the search has come to nothing: what was asked, and what was answered."""
        protocol, tried = self._config.backend_protocol, "; ".join(self._tried)
        if self._refused:
            return f"{CREDENTIALS} ({tried})"
        if protocol != "auto":
            return f"the backend does not speak {protocol} ({tried})"
        return f"the backend speaks none of the known protocols ({tried})"

    def candidates(self) -> Iterator[tuple[Protocol, _Model]]:
        """Protocols to try, most telling first, each with the model it would serve."""
        config = self._config
        wanted = config.backend_protocol
        if self._azure is not None:
            for base64 in (True, False):
                yield Azure(self._azure.name, self._azure.path, base64=base64), self._model(self._azure.name)
            return
        if wanted in ("auto", "tei"):
            yield from self._tei()
        if wanted == "auto" and self._get("/api/tags").get("models") and not self._is_llmrs():
            yield from self._ollama()
        if wanted in ("auto", "openai"):
            yield from self._openai()
        if wanted in ("auto", "embed"):
            yield Embed(batch_size=config.batch_size), self._model()
        if wanted in ("auto", "tei"):
            yield TEI(takes_empty=True), self._model()  # something like it, for all that is known
        if wanted in ("auto", "ollama"):
            yield from self._ollama()

    def _tei(self) -> Iterator[tuple[Protocol, _Model]]:
        """text-embeddings-inference, known by its /info; llmrs' own imitates that, but has several models."""
        info = self._get("/info")
        ceiling = _positive(info.get("max_client_batch_size"))
        if not ceiling or not isinstance(info.get("model_id"), str):
            return
        if not (llmrs := self._is_llmrs()) or self._config.backend_protocol == "tei":
            calls = _positive(info.get("max_concurrent_requests"))
            model = self._model(info["model_id"], info.get("max_input_length"))
            yield TEI(max_items=ceiling, max_calls=calls, takes_empty=llmrs), model

    def _ollama(self) -> Iterator[tuple[Protocol, _Model]]:
        model = self._listed("/api/tags", "models", "name")
        yield Ollama(model.name), model

    def _openai(self) -> Iterator[tuple[Protocol, _Model]]:
        # Infinity serves at the root unless told otherwise.
        for prefix in ("/v1", ""):
            model = self._listed(f"{prefix}/models", "data", "id")
            for base64 in (True, False):
                path, owner = f"{prefix}/embeddings", model.owner
                yield OpenAI(model.name, path=path, base64=base64, owner=owner), model

    def _is_llmrs(self) -> bool:
        """Whether it is another llmrs, which speaks several protocols, and OpenAI's to its full extent."""
        return self._listed("/v1/models", "data", "id").owner == "llmrs"

    def try_out(self, protocol: Protocol) -> Reply | None:
        """The answer to a short text if the backend speaks `protocol`, None if it does not."""
        answer = self._transport.post(
            protocol.path, protocol.body([PROBE]), deadline=self._deadline, limit=MAX_LISTING
        )
        outcome = described(answer)
        if answer.status in (401, 403):
            self._refused = True
        elif _not_yet(answer):
            raise UpstreamError(f"the backend is not ready (HTTP {answer.status})")
        elif answer.status == 200 and not encoding_of(answer):
            try:
                return protocol.read(answer.body, answer.headers, 1)
            except UpstreamError as error:
                outcome = f"HTTP 200, but {error.message}"
        if (asked := f"POST {protocol.path}: {outcome}") not in self._tried:
            self._tried.append(asked)
        return None

    def _get(self, path: str) -> dict[str, Any]:
        """The JSON object at `path`, empty if there is none; asked for once."""
        if path not in self._got:
            self._got[path] = self._fetch(path)
        return self._got[path]

    def _fetch(self, path: str) -> dict[str, Any]:
        # Only the answer to a text's embedding decides: a list may need other rights than embedding, or
        # be missing. But without a configured name it is the list that names the model.
        answer = self._transport.get(path, deadline=self._deadline, limit=MAX_LISTING)
        if _not_yet(answer) and self._config.model_name is None:
            raise UpstreamError(f"the backend is not ready (GET {path}: HTTP {answer.status})")
        try:
            return msgspec.json.decode(answer.body, type=dict[str, Any]) if answer.status == 200 else {}
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return {}

    def _listed(self, path: str, key: str, name: str) -> _Model:
        """The configured model's entry in the list at `path`, or the first one."""
        listed = self._get(path).get(key)
        entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
        wanted = self._config.model_name
        entry = next((entry for entry in entries if wanted is None or _names(entry.get(name), wanted)), {})
        details = entry.get("details")
        longest = (
            entry.get("max_input_tokens")
            or entry.get("max_model_len")
            or (details.get("context_length") if isinstance(details, dict) else None)
        )
        owners = {owner for each in entries if isinstance(owner := each.get("owned_by"), str)}
        owner = owners.pop() if len(owners) == 1 else None
        return self._model(entry.get(name), longest)._replace(owner=owner)

    def _model(self, name: object = None, max_input_tokens: object = None) -> _Model:
        found = name if isinstance(name, str) and name else DEFAULT_MODEL
        return _Model(self._config.model_name or found, _positive(max_input_tokens))


def _names(listed: object, wanted: str) -> bool:
    """Whether a listed name is the wanted one. Ollama's have a tag, which may be left out."""
    return listed in (wanted, f"{wanted}:latest")


def _not_yet(answer: Answer) -> bool:
    return answer.status in NOT_YET or answer.status > 501


def _positive(value: object) -> int | None:
    """`value` if it is a count, of inputs or tokens, that a backend can mean."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 30:
        return None
    return value
