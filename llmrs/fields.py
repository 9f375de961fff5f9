"""The fields of a request's body: what each may be, by itself.

A check takes the field's value and name, and gives what it asks for or raises InvalidRequest, which names the
field and never quotes the value. An explicit null never gets here: it is the same as absence.
"""

from __future__ import annotations

from typing import Any, cast, get_args

from llmrs.embeddings import AskedTruncate, OutputDtype, Side, Truncate
from llmrs.errors import InvalidRequest
from llmrs.prompts import INPUT_TYPES

OUTPUT_DTYPES: tuple[OutputDtype, ...] = get_args(OutputDtype)

TRUNCATIONS: tuple[Truncate, ...] = get_args(Truncate)

SIDES: dict[str, Side] = {"left": "start", "right": "end"}
"""The end that is cut off, in the words of TEI and vLLM."""


def text(value: Any, name: str) -> str:
    """A text that is not empty."""
    if type(value) is str and value:
        return value
    raise InvalidRequest(f"{name} must be a non-empty string", param=name)


def flag(value: Any, name: str) -> bool:
    """True or false."""
    if type(value) is bool:
        return value
    raise InvalidRequest(f"{name} must be true or false", param=name)


def positive(value: Any, name: str) -> int:
    """A whole number above zero."""
    if type(value) is int and value > 0:
        return value
    raise InvalidRequest(f"{name} must be an integer of at least 1", param=name)


def choice(value: Any, name: str, choices: tuple[str, ...]) -> str:
    """One of the words, spelled as they are."""
    if type(value) is str and value in choices:
        return value
    raise InvalidRequest(f"{name} must be one of {', '.join(choices)}", param=name)


def model_name(value: Any, name: str) -> str | None:
    """A model's name; None for the empty one, which stands for the default model."""
    if type(value) is str:
        return value or None
    raise InvalidRequest(f"{name} must be a string", param=name)


def is_base64(value: Any, form: str) -> bool:
    """Whether numbers are to be sent as base64, for which only OpenAI's answers have a place."""
    return (
        choice(value, "encoding_format", ("float", "base64") if form == "openai" else ("float",)) == "base64"
    )


def output_dtype(value: Any, name: str = "output_dtype") -> OutputDtype:
    """What the numbers shall be; Voyage and Mistral call float32 `float`."""
    if value == "float":
        return "float32"
    return cast(OutputDtype, choice(value, name, OUTPUT_DTYPES))


def truncate(value: Any, name: str = "truncate") -> AskedTruncate:
    """What to do with long inputs, as OpenAI's clients, TEI (true or false), Cohere and NVIDIA say it."""
    if type(value) is bool:
        return "cut" if value else "none"
    word = value.lower() if type(value) is str else None
    for known in TRUNCATIONS:
        if word == known:
            return known
    raise InvalidRequest(f"{name} must be true, false or one of {', '.join(TRUNCATIONS)}", param=name)


def side(value: Any, name: str) -> Side:
    """The end that is cut off, left or right in any letter case."""
    found = SIDES.get(value.lower()) if type(value) is str else None
    if found is None:
        raise InvalidRequest(f"{name} must be left or right", param=name)
    return found


def input_type(value: Any, name: str = "input_type") -> str:
    """A word for what the inputs are, in lower case: one of INPUT_TYPES."""
    word = value.lower() if type(value) is str else None
    if word not in INPUT_TYPES:
        raise InvalidRequest(f"{name} must be one of {', '.join(INPUT_TYPES)}", param=name)
    return cast(str, word)
