"""What an HTTP answer that brings no vectors means, in words of this program alone.

Pure functions. Nothing that a backend says is passed on: its text may quote other clients' inputs, or
its own secrets. It is only searched for the few words that tell a too long input from other faults.
"""

from __future__ import annotations

import re

from llmrs.backends.connections import Broken
from llmrs.backends.transport import Answer
from llmrs.errors import ServiceError, UpstreamError, UpstreamRejected, UpstreamTooLong

CREDENTIALS = "the backend refused this server's own credentials: check backend_api_key"

REJECTED = (400, 413, 422)
"""Statuses that blame the input."""

TOO_LONG = re.compile(
    rb"context_length_exceeded|exceed_context_size|context length|context size|model length|sequence length"
    rb"|max_model_len|must have less than \d+ tokens|input is too long|too large to process"
    rb"|longer than the model|longer than the maximum"
    rb"|index out of range in self|size of tensor \w+ \(\d+\) must match the size of tensor",
    re.IGNORECASE,
)
"""What vLLM, OpenAI, text-embeddings-inference, Ollama, llama.cpp, LocalAI and llmrs say of such an input,
and PyTorch where a text has more tokens than the model has positions."""

EMPTY = re.compile(rb'"Empty"|cannot be empty|must not be empty', re.IGNORECASE)
"""What text-embeddings-inference and others say of an empty text."""

FIELD = re.compile(rb'"param": ?"(dimensions|truncate|input_type|prompt_name)"')
"""How OpenAI and llmrs name the field that they refuse, of those that they are told beside the inputs."""

ENCODINGS = ("gzip", "deflate", "br", "zstd", "compress")


class Failed(UpstreamError):
    """The backend answered a batch with an HTTP status that says that it failed."""

    def __init__(self, answered: int, found: str | None = None) -> None:
        super().__init__(f"the backend answered {found or f'HTTP {answered}'}")
        self.answered = answered


class Unreadable(UpstreamError):
    """The backend answered 200, and not with the batch's vectors."""


class FailedOnInput(UpstreamError):
    """The backend failed on a batch, and embeds other texts: one of the batch's is to blame."""

    poison = True

    def __init__(self, error: UpstreamError) -> None:
        message = f"the backend embeds other inputs and fails on this one: {error.message}"
        super().__init__(message, headers={"x-should-retry": "false"})


def may_blame_input(error: UpstreamError) -> bool:
    """Whether what a call ended with may be due to its texts. 503 and 504 say "not now", not "not this"."""
    if isinstance(error, Failed):
        return error.answered not in (503, 504)
    return isinstance(error, (Broken, Unreadable))


def described(answer: Answer) -> str:
    """What came in place of vectors, as far as its status and headers tell."""
    status = answer.status
    if 300 <= status < 400:
        return f"HTTP {status}, a redirect, which is not followed: set backend_url to where it leads"
    if 200 < status < 300:
        return f"HTTP {status} in place of 200"
    if encoding := encoding_of(answer):
        return f"HTTP {status} in {encoding}, although it was asked for no compression"
    return f"HTTP {status}"


def encoding_of(answer: Answer) -> str | None:
    """How the body is compressed; None if it is not."""
    found = answer.headers.get("content-encoding", "identity").lower()
    if found in ("", "identity"):
        return None
    return found if found in ENCODINGS else "a compressed form"


def says_too_long(answer: Answer) -> bool:
    """Whether a refusal says that the input is longer than the model takes."""
    return TOO_LONG.search(answer.body) is not None


def refusal(answer: Answer, longest: int | None) -> ServiceError:
    """The error that an HTTP status other than 200 and 429 stands for.

    `longest` is the most tokens of an input, if that is known, for the message.
    """
    # llama.cpp answers 500 to what is too long for it.
    if answer.status in (*REJECTED, 500) and says_too_long(answer):
        return UpstreamTooLong(longest)
    if answer.status in REJECTED and EMPTY.search(answer.body):
        return UpstreamRejected("the backend refused the input as empty", param="input")
    if answer.status in REJECTED and (named := FIELD.search(answer.body)):
        field = named[1].decode()
        return UpstreamRejected(f"{field} is not accepted by the backend", param=field)
    if answer.status in REJECTED:
        return UpstreamRejected("the backend refused the input as invalid or too long", param="input")
    if answer.status in (401, 403):
        return UpstreamError(CREDENTIALS)
    return Failed(answer.status, described(answer))
