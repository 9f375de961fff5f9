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
from types import MappingProxyType
from typing import ClassVar, NamedTuple, TypeAlias, TypeVar

import msgspec

from llmrs.backends.vectors import NOT_THE_PROTOCOL
from llmrs.embeddings import CallOptions, Matrix, Truncate
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


Fields: TypeAlias = Mapping[str, object]
"""Fields of a request, as JSON values."""

UNTOLD: Fields = {}
"""The backend is told nothing and does so by itself."""


class Protocol(ABC):
    """One way to ask for the vectors of a batch by HTTP, and all that can be said that way.

    Attributes:
        name: as in `backend_protocol`.
        path: of the POST request.
        max_items, max_bytes, max_tokens: most inputs, bytes of all encoded inputs and tokens of a request.
        max_calls: most requests at a time.

        truncates: what it can be asked to do with inputs that are too long, and the fields that say so.
            What is not here must not be asked for.
        shortens: whether it takes `dimensions`.
        keeps_lengths: whether it is told not to normalize. Where it is not, its vectors are as long as
            it makes them.
        prompts: whether it is told which of its model's prompts to put in front of texts.
        takes_ids: whether an input may be a list of token ids.
        forwards_ids: whether ids of an unknown vocabulary may go there, as to OpenAI, whose they are.
        takes_empty: whether an input may be an empty text.
        tokenizer: path that tells the tokens of texts; None: there is none.
    """

    name: ClassVar[str]
    path: str
    max_items: int = 1 << 16
    max_bytes: int = MAX_BODY
    max_tokens: int = 1 << 30
    max_calls: int = 1 << 30

    truncates: Mapping[Truncate, Fields] = MappingProxyType({"end": UNTOLD})
    shortens: ClassVar[bool] = False
    keeps_lengths: ClassVar[bool] = False
    prompts: bool = False
    takes_ids: ClassVar[bool] = False
    forwards_ids: bool = False
    takes_empty: bool = True
    tokenizer: ClassVar[str | None] = None

    def __init__(self, fields: Fields, inputs: str) -> None:
        """The request is an object of `fields` (at least one) and, named `inputs`, the inputs."""
        self._fields = fields
        self._inputs = msgspec.json.encode(inputs)

    @property
    def refuses_on_request(self) -> bool:
        """Whether it can be told to refuse inputs that are too long."""
        return bool(self.truncates.get("none"))

    def body(self, items: Sequence[bytes], options: CallOptions | None = None) -> bytes:
        """The request's body for inputs that are JSON already, and what is asked for them."""
        fields = dict(self._fields)
        if options is not None:
            fields |= self.truncates[options.truncate] if options.truncate else UNTOLD
            told = {name: getattr(options, name) for name in ("dimensions", "input_type", "prompt_name")}
            fields |= {name: value for name, value in told.items() if value is not None}
        head = msgspec.json.encode(fields)[:-1]
        return b"%b,%b:[%b]}" % (head, self._inputs, b",".join(items))

    def read_lengths(self, body: bytes) -> list[int]:
        """Tokens of each text in an answer of `tokenizer`; raises UpstreamError."""
        raise UpstreamError(NOT_THE_PROTOCOL)

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
