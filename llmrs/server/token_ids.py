"""What to do with inputs that are token ids instead of text.

Token ids only mean something in the vocabulary they were made with. OpenAI clients such as
LangChain send ids of OpenAI's `cl100k_base` whatever the model, so reading them in the model's
own vocabulary would give a plausible vector of a nonsense text. Hence a policy.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import cast

from llmrs.cl100k import Cl100k, UnknownTokenId
from llmrs.embeddings import Input
from llmrs.errors import InvalidRequest

REFUSAL = (
    "this server takes text, not token ids, because it is set to token_ids = reject. "
    "Send strings (LangChain: check_embedding_ctx_length=False), or set token_ids to native or cl100k "
    "on the server."
)

Translate = Callable[[list[Input]], list[Input]]
"""Takes a request's inputs; gives them as the backend shall get them, or raises InvalidRequest."""


def translator(policy: str, *, forwards_ids: Callable[[], bool] | None = None) -> Translate:
    """The translation for a policy: `native`, `cl100k`, `reject` or `auto`.

    `auto` forwards ids where `forwards_ids` says so when they come (None: never), else decodes them as
    cl100k's.

    Raises:
        ConfigError: the vocabulary's file is damaged.
    """
    if policy == "native":
        return lambda inputs: inputs
    if policy == "reject":
        return _refuse
    if policy == "auto" and forwards_ids is not None:
        return functools.partial(_forward, forwards_ids)
    _cl100k()  # now, and not when the first ids come: it takes 0.1 s
    return _decode


def _forward(forwards_ids: Callable[[], bool], inputs: list[Input]) -> list[Input]:
    """Hand ids on, or decode them: a backend behind HTTP is not known before it is reached."""
    if _are_texts(inputs) or forwards_ids():
        return inputs
    return _decode(inputs)


@functools.cache  # each model of a process asks
def _cl100k() -> Cl100k:
    return Cl100k()


def _are_texts(inputs: list[Input]) -> bool:
    return all(type(each) is str for each in inputs)


def _refuse(inputs: list[Input]) -> list[Input]:
    if not _are_texts(inputs):
        raise InvalidRequest(REFUSAL, param="input")
    return inputs


def _decode(inputs: list[Input]) -> list[Input]:
    """The inputs, and in the places of cl100k ids the texts that they were made from."""
    if _are_texts(inputs):
        return inputs
    places = [index for index, each in enumerate(inputs) if type(each) is not str]
    decoded = list(inputs)
    try:
        texts = _cl100k().decode([cast("list[int]", inputs[place]) for place in places])
    except UnknownTokenId as error:
        raise InvalidRequest(
            f"input[{places[error.index]}] holds an id that is not in the cl100k vocabulary", param="input"
        ) from None
    for place, text in zip(places, texts, strict=True):
        decoded[place] = text
    return decoded
