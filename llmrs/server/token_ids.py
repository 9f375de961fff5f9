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


def translator(policy: str, *, forwards_ids: bool) -> Translate:
    """The translation for a policy: `native`, `cl100k`, `reject` or `auto`.

    `auto` forwards ids to a backend that speaks the OpenAI protocol, else decodes them as cl100k's.

    Raises:
        ConfigError: the vocabulary's file is damaged.
    """
    if policy == "native" or (policy == "auto" and forwards_ids):
        return lambda inputs: inputs
    if policy == "reject":
        return _refuse
    return functools.partial(_decode, _cl100k())


@functools.cache  # each model of a process asks
def _cl100k() -> Cl100k:
    return Cl100k()


def _refuse(inputs: list[Input]) -> list[Input]:
    if any(type(each) is not str for each in inputs):
        raise InvalidRequest(REFUSAL, param="input")
    return inputs


def _decode(vocabulary: Cl100k, inputs: list[Input]) -> list[Input]:
    """The inputs with the texts that cl100k ids were made from, in their places."""
    if type(inputs[0]) is str:  # all are of one kind
        return inputs
    try:
        return cast("list[Input]", vocabulary.decode(cast("list[list[int]]", inputs)))
    except UnknownTokenId as error:
        raise InvalidRequest(
            f"input[{error.index}] holds an id that is not in the cl100k vocabulary", param="input"
        ) from None
