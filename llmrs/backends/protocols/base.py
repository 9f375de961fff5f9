"""What every protocol is: the body of a request from JSON-encoded inputs, a matrix from an answer.

Sans-I/O: bytes in, bytes out. A protocol object is immutable and knows everything a request of its
kind needs, the model's name included. No request carries a null. Answers are not trusted: msgspec
checks that they are JSON of the protocol's shape and `vectors` what a vector is, and whatever is not
is an UpstreamError, which never quotes it. Non-finite numbers pass: the server refuses them for the
input they belong to.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple, TypeVar

import msgspec

from llmrs.backends.vectors import NOT_THE_PROTOCOL
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


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """The answer; of its vectors no more is known then than that they are JSON values."""
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        if b"NaN" not in body and b"Infinity" not in body:
            raise UpstreamError(no_vectors(body)) from None
    # Not JSON, but what Python's json writes for a model's NaN: slow, and good for its neighbours.
    # Written anew, these numbers are nulls.
    try:
        return decoder.decode(msgspec.json.encode(json.loads(body)))
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        raise UpstreamError(no_vectors(body)) from None


def no_vectors(body: bytes) -> str:
    """What came in place of vectors, in words of this program alone."""
    if body.lstrip()[:1] == b"<":
        return f"{NOT_THE_PROTOCOL}: it is a web page"
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return NOT_THE_PROTOCOL
    return f"{NOT_THE_PROTOCOL}: it is an error" if "error" in fields else NOT_THE_PROTOCOL


def count_of(count: object) -> int | None:
    if not isinstance(count, int) or isinstance(count, bool) or not 0 < count < MAX_TOKENS:
        return None
    return count
