"""OpenAI's API, which many servers imitate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llmrs.backends.protocols.base import UNTOLD, Fields, Protocol, Reply, count_of, decode
from llmrs.backends.vectors import to_matrix
from llmrs.embeddings import Truncate
from llmrs.errors import UpstreamError

WRONG_NUMBERS = "the backend numbered its vectors wrongly"

TRUNCATES: Mapping[str, Mapping[Truncate, Fields]] = {
    "llmrs": {word: {"truncate": word} for word in ("none", "end", "start")},
    "vllm": {"none": UNTOLD, "end": UNTOLD},
    "llamacpp": {"none": UNTOLD, "end": UNTOLD},
}
"""What can be asked of servers that are known by `owned_by`: those two refuse long inputs by themselves."""

OWN_VOCABULARY = ("vllm", "llamacpp", "infinity", "library")
"""Servers, by `owned_by`, that read token ids as the model's own, or not at all; `library` is Ollama."""


class _Data(msgspec.Struct):
    embedding: msgspec.Raw
    index: Any = None


class _OpenAIAnswer(msgspec.Struct):
    data: list[_Data]
    usage: Any = None
    id: Any = None


class OpenAI(Protocol):
    """`/v1/embeddings`: vLLM, TEI, Infinity, LocalAI, llama.cpp, OpenAI itself, another llmrs.

    The API says nothing of inputs that are too long: some servers refuse them, others cut their end without
    a word. What a server is, its list of models may tell: `owner` is the `owned_by` there.

    Vectors are asked for in base64, a fifth of the bytes and of the work of decimal text, unless
    `base64` is false; then the field is left out, which means float everywhere. Both are understood
    whatever was asked, and rows go where their `index` says.
    """

    name = "openai"
    shortens = True
    takes_ids = True
    max_items = 2048  # the API's own limit, and Infinity's
    max_tokens = 300_000  # the API's limit for one request

    def __init__(
        self, model: str, *, path: str = "/v1/embeddings", base64: bool = True, owner: str | None = None
    ) -> None:
        self.path = path
        self.truncates = TRUNCATES.get(owner or "", Protocol.truncates)
        self.forwards_ids = owner not in OWN_VOCABULARY
        self.prompts = owner == "llmrs"
        super().__init__({"model": model} | ({"encoding_format": "base64"} if base64 else {}), "input")

    def read(self, body: bytes, headers: Mapping[str, str], count: int) -> Reply:
        answer = decode(_OPENAI_ANSWER, body)
        places = _places([_number(item.index) for item in answer.data], count)
        rows = [answer.data[place].embedding for place in places]
        return Reply(to_matrix(rows, count, strings=True), _tokens(answer))


class Azure(OpenAI):
    """OpenAI's models on Azure: the same at another path. They refuse inputs that are too long."""

    name = "azure"

    def __init__(self, model: str, path: str, *, base64: bool = True) -> None:
        super().__init__(model, path=path, base64=base64)
        self.truncates = {"none": UNTOLD, "end": UNTOLD}


def _number(index: object) -> int | None:
    """A row's `index`, which some servers write as text; None where it has none."""
    if index is None or type(index) is int:
        return index
    if isinstance(index, str) and len(index) < 10 and index.isascii() and index.isdecimal():
        return int(index)
    raise UpstreamError(WRONG_NUMBERS)


def _places(numbers: list[int | None], count: int) -> Sequence[int]:
    """Where in the answer the vector of each input stands.

    Where no row has a number, position counts. What writes protobuf as JSON leaves out zeros: a row
    without a number is the first input's if the others have all numbers but 0. No other gap is filled.
    """
    if len(numbers) != count:
        raise UpstreamError(f"the backend answered {len(numbers)} vectors to {count} inputs")
    if numbers == list(range(count)) or not any(number is not None for number in numbers):
        return range(count)
    if numbers.count(None) == 1 and 0 not in numbers:
        numbers = [number or 0 for number in numbers]
    places = {number: place for place, number in enumerate(numbers)}
    if places.keys() != set(range(count)):
        raise UpstreamError(WRONG_NUMBERS)
    return [places[number] for number in range(count)]


def _tokens(answer: _OpenAIAnswer) -> int | None:
    """All its tokens. Infinity counts characters, and is known by its answers' ids."""
    usage = answer.usage
    if not isinstance(usage, dict) or (isinstance(answer.id, str) and answer.id.startswith("infinity-")):
        return None
    return count_of(usage.get("prompt_tokens")) or count_of(usage.get("total_tokens"))


_OPENAI_ANSWER = msgspec.json.Decoder(_OpenAIAnswer)
