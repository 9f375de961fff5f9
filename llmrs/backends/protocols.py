"""What backends speak: a batch of JSON-encoded inputs to a request body, an answer to a matrix.

Sans-I/O: bytes in, bytes out. A protocol object is immutable and knows everything a request of its
kind needs, the model's name included. No request carries a null. Answers are not trusted: msgspec
checks that they are JSON of the protocol's shape and `vectors` what a vector is, and whatever is not
is an UpstreamError, which never quotes it. Non-finite numbers pass: the server refuses them for the
input they belong to. Where a backend can be told, it is told not to normalize: the server does,
unless its client wants otherwise.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import msgspec

from llmrs.backends.vectors import NOT_THE_PROTOCOL, to_matrix
from llmrs.embeddings import Matrix
from llmrs.errors import UpstreamError

T = TypeVar("T")

MAX_BODY = 16 << 20
"""Bytes of a request where the protocol has no known limit: llmrs' own default."""

MAX_TOKENS = 1 << 40
"""Token counts beyond this are nonsense, and are treated as not given."""


class Reply(NamedTuple):
    """A batch's vectors in the order of its inputs, and all its tokens where the backend counts them."""

    matrix: Matrix
    n_tokens: int | None


class Protocol(ABC):
    """One way to ask for the vectors of a batch by HTTP.

    Attributes:
        name: as in `backend_protocol`.
        path: of the POST request.
        takes_ids: whether an input may be a list of token ids.
        max_items, max_bytes, max_tokens: most inputs, bytes of all encoded inputs and tokens of a request.
    """

    name: ClassVar[str]
    path: str
    takes_ids: ClassVar[bool] = False
    max_items: int = 1 << 16
    max_bytes: int = MAX_BODY
    max_tokens: int = 1 << 30

    def __init__(self, fields: Mapping[str, object], inputs: str) -> None:
        """The request is an object of `fields` (at least one) and, named `inputs`, the inputs."""
        self._head = msgspec.json.encode(fields)[:-1] + b"," + msgspec.json.encode(inputs) + b":["

    def body(self, items: Sequence[bytes]) -> bytes:
        """The request's body for inputs that are JSON already."""
        return self._head + b",".join(items) + b"]}"

    @abstractmethod
    def read(self, body: bytes, headers: Mapping[str, str], count: int) -> Reply:
        """The vectors of `count` inputs in an answer of status 200; raises UpstreamError."""


class _Data(msgspec.Struct):
    embedding: msgspec.Raw
    index: int


class _OpenAIAnswer(msgspec.Struct):
    data: list[_Data]
    usage: Any = None


class OpenAI(Protocol):
    """`/v1/embeddings`: vLLM, TEI, Infinity, LocalAI, llama.cpp, OpenAI itself, another llmrs.

    Vectors are asked for in base64, a fifth of the bytes and of the work of decimal text, unless
    `base64` is false; then the field is left out, which means float everywhere. Both are understood
    whatever was asked, and rows go where their `index` says.
    """

    name = "openai"
    takes_ids = True
    max_items = 2048  # the API's own limit, and Infinity's
    max_tokens = 300_000  # the API's limit for one request

    def __init__(self, model: str, *, path: str = "/v1/embeddings", base64: bool = True) -> None:
        self.path = path
        super().__init__({"model": model} | ({"encoding_format": "base64"} if base64 else {}), "input")

    def read(self, body: bytes, headers: Mapping[str, str], count: int) -> Reply:
        answer = _decode(_OPENAI_ANSWER, body)
        rows: list[msgspec.Raw | None] = [None] * count
        for item in answer.data:
            if not 0 <= item.index < count or rows[item.index] is not None:
                raise UpstreamError("the backend numbered its vectors wrongly")
            rows[item.index] = item.embedding
        matrix = to_matrix([row for row in rows if row is not None], count, strings=True)
        usage = answer.usage if isinstance(answer.usage, dict) else {}
        return Reply(matrix, _tokens(usage.get("prompt_tokens")))


class _EmbedAnswer(msgspec.Struct):
    vectors: list[msgspec.Raw] | None = None
    embeddings: list[msgspec.Raw] | None = None


class Embed(Protocol):
    """`/embed` with `texts`: the plain form of a FastAPI service around sentence-transformers."""

    name = "embed"
    path = "/embed"

    def __init__(self, *, batch_size: int) -> None:
        super().__init__({"normalize_embeddings": False, "batch_size": batch_size}, "texts")

    def read(self, body: bytes, headers: Mapping[str, str], count: int) -> Reply:
        answer = _decode(_EMBED_ANSWER, body)
        rows = answer.embeddings if answer.vectors is None else answer.vectors
        return Reply(to_matrix(rows or [], count), None)


class TEI(Protocol):
    """`/embed` with `inputs`: text-embeddings-inference.

    `truncate` is sent as false: its default cuts long inputs without a word.
    """

    name = "tei"
    path = "/embed"
    max_bytes = 2_000_000 - 1024  # --payload-limit, less what surrounds the inputs

    def __init__(self, *, max_items: int = 32) -> None:
        self.max_items = max_items  # --max-client-batch-size
        super().__init__({"truncate": False, "normalize": False}, "inputs")

    def read(self, body: bytes, headers: Mapping[str, str], count: int) -> Reply:
        tokens = headers.get("x-compute-tokens", "")
        total = int(tokens) if tokens.isdecimal() and len(tokens) < 16 else None
        rows: list[msgspec.Raw] = _decode(_ROWS, body)
        return Reply(to_matrix(rows, count), _tokens(total))


class _OllamaAnswer(msgspec.Struct):
    embeddings: list[msgspec.Raw]
    prompt_eval_count: Any = None


class Ollama(Protocol):
    """`/api/embed` of Ollama. `truncate` is sent as false: its default cuts long inputs without a word."""

    name = "ollama"
    path = "/api/embed"

    def __init__(self, model: str) -> None:
        super().__init__({"model": model, "truncate": False}, "input")

    def read(self, body: bytes, headers: Mapping[str, str], count: int) -> Reply:
        answer = _decode(_OLLAMA_ANSWER, body)
        return Reply(to_matrix(answer.embeddings, count), _tokens(answer.prompt_eval_count))


_OPENAI_ANSWER = msgspec.json.Decoder(_OpenAIAnswer)
_EMBED_ANSWER = msgspec.json.Decoder(_EmbedAnswer)
_OLLAMA_ANSWER = msgspec.json.Decoder(_OllamaAnswer)
_ROWS = msgspec.json.Decoder(list[msgspec.Raw])


def _decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """The answer; of its vectors no more is known then than that they are JSON values."""
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        if b"NaN" not in body and b"Infinity" not in body:
            raise UpstreamError(NOT_THE_PROTOCOL) from None
    # Not JSON, but what Python's json writes for a model's NaN: slow, and good for its neighbours.
    # Written anew, these numbers are nulls.
    try:
        return decoder.decode(msgspec.json.encode(json.loads(body)))
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        raise UpstreamError(NOT_THE_PROTOCOL) from None


def _tokens(count: object) -> int | None:
    if not isinstance(count, int) or isinstance(count, bool) or not 0 < count < MAX_TOKENS:
        return None
    return count
