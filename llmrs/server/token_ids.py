"""What to do with inputs that are token ids instead of text.

Token ids only mean something in the vocabulary they were made with. OpenAI clients such as
LangChain send ids of OpenAI's `cl100k_base` whatever the model, so reading them in the model's
own vocabulary would give a plausible vector of a nonsense text. Hence a policy, and refusal
where nothing better is possible.
"""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Callable
from typing import Any

from llmrs.embeddings import Input
from llmrs.errors import ConfigError, InvalidRequest

log = logging.getLogger("llmrs.server")

REFUSAL = (
    "this server takes text, not token ids, because the ids' vocabulary is not known to be the model's. "
    "Send strings (LangChain: check_embedding_ctx_length=False), or set token_ids to native or cl100k "
    "on the server."
)

Translate = Callable[[list[Input]], list[Input]]
"""Takes a request's inputs; gives them as the backend shall get them, or raises InvalidRequest."""


def translator(policy: str, *, forwards_ids: bool) -> Translate:
    """The translation for a policy: `native`, `cl100k`, `reject` or `auto`.

    `auto` forwards ids to a backend that speaks the OpenAI protocol, else decodes cl100k ids
    where the vocabulary is at hand, else refuses.

    Raises:
        ConfigError: `cl100k` is asked for and cannot be loaded.
    """
    if policy == "native" or (policy == "auto" and forwards_ids):
        return lambda inputs: inputs
    if policy == "reject":
        return _refuse
    encoding = _cl100k()
    if not isinstance(encoding, Exception):
        return _Cl100k(encoding)
    if policy == "cl100k":
        raise ConfigError(
            "token_ids = cl100k needs tiktoken and its vocabulary "
            f"(pip install 'llmrs[tiktoken]'): {encoding!r}"
        )
    log.debug("token ids are refused: no cl100k vocabulary (%r)", encoding)
    return _refuse


@functools.cache  # also of a failure: without a network it can take seconds, and each model asks
def _cl100k() -> Any:
    """tiktoken's vocabulary, or the exception that loading it raised."""
    try:
        return importlib.import_module("tiktoken").get_encoding("cl100k_base")
    except Exception as error:
        return error


def _refuse(inputs: list[Input]) -> list[Input]:
    if any(type(each) is not str for each in inputs):
        raise InvalidRequest(REFUSAL, param="input")
    return inputs


class _Cl100k:
    """Decodes cl100k ids to the text they were made from."""

    def __init__(self, encoding: Any) -> None:
        self._encoding = encoding

    def __call__(self, inputs: list[Input]) -> list[Input]:
        return [
            each if isinstance(each, str) else self._decode(each, index) for index, each in enumerate(inputs)
        ]

    def _decode(self, ids: list[int], index: int) -> str:
        try:
            # A text cut at a token boundary may end inside a character: that part becomes U+FFFD.
            text: str = self._encoding.decode(ids, errors="replace")
        except (KeyError, OverflowError, ValueError):
            raise InvalidRequest(
                f"input[{index}] holds an id that is not in the cl100k vocabulary", param="input"
            ) from None
        return text
