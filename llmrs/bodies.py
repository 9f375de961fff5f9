"""JSON to the fields of a request's body.

One struct has the fields of every form of body. Unknown ones are skipped undecoded, and an explicit null is
the same as absence.
"""

from __future__ import annotations

import codecs
import re
from typing import Any, TypeAlias

import msgspec

from llmrs import dialects
from llmrs.errors import InvalidJson, InvalidRequest

INPUTS = ("input", "texts", "inputs")
"""The fields that hold inputs, of which a body has one."""

_MAX_EXPLAINED_BYTES = 1 << 20
"""Only bodies up to this size are searched for lone surrogates when they cannot be decoded: the
search takes 20-30 ms per MiB."""

_USUAL = (
    *INPUTS,
    *("model", "encoding_format", "output_dtype", "dimensions", "input_type", "prompt_name", "truncate"),
    *("normalize", "normalize_embeddings", "batch_size", "user"),
)
_ALL = (*_USUAL, *dialects.FIELDS, "parameters")

Body: TypeAlias = Any
"""Has an attribute for each of the usual fields, and for those of other APIs unless it is a `UsualBody`.
No class statement, so that it cannot drift from the tables."""

UsualBody: Any = msgspec.defstruct(
    "UsualBody", [(name, Any, None) for name in _USUAL], forbid_unknown_fields=True
)
_FullBody: Any = msgspec.defstruct("_FullBody", [(name, Any, None) for name in _ALL])
_decode_usual = msgspec.json.Decoder(UsualBody).decode
_decode_full = msgspec.json.Decoder(_FullBody).decode
"""A body with no other fields than the usual ones is decoded and checked in a third of the time."""


def decode(body: bytes) -> Body:
    """The fields of a body. A byte order mark in front of it is skipped.

    Raises:
        InvalidJson: not UTF-8, not JSON, not an object, or nested too deeply.
        InvalidRequest: a field holds half a surrogate pair, or a number beyond what can be read.
    """
    body = body.removeprefix(codecs.BOM_UTF8)  # which editors and some clients put in front
    try:
        # msgspec skips the values of unknown fields without looking at their encoding.
        body.isascii() or body.decode()
        return _decode_json(body)
    except UnicodeDecodeError as error:
        raise InvalidJson(f"the body is not valid UTF-8, at byte {error.start}") from None
    except RecursionError:
        raise InvalidJson("the body is nested too deeply") from None
    except msgspec.ValidationError as error:
        raise _explain_value(str(error)) from None
    except msgspec.DecodeError as error:
        # Its text says what is wrong and at which byte, and quotes nothing.
        reason = str(error).removeprefix("JSON is malformed: ") if body else "it is empty"
        raise _explain_surrogate(body) or InvalidJson(f"the body is not valid JSON: {reason}") from None


def _decode_json(body: bytes) -> Body:
    try:
        return _decode_usual(body)
    except msgspec.ValidationError:
        found = _decode_full(body)
    if found.parameters is not None:
        _unfold(found)
    return found


def _explain_value(reason: str) -> InvalidRequest:
    """Why valid JSON was refused: it is no object, or one of our fields holds an unreadable number."""
    field = re.search(r"`\$\.(\w+)", reason)
    if field is None:
        return InvalidJson("the body must be a JSON object")
    return InvalidRequest(f"{field[1]} holds a number out of range", param=field[1])


_HIGH, _LOW, _HEX = rb"\\u[dD][89abAB]", rb"\\u[dD][c-fC-F]", rb"[0-9a-fA-F][0-9a-fA-F]"
_LONE_SURROGATE = re.compile(
    b"%b%b(?!%b%b)|(?<!%b%b)%b%b" % (_HIGH, _HEX, _LOW, _HEX, _HIGH, _HEX, _LOW, _HEX)
)
_MARK = "\uffff"  # no character, by the Unicode standard


def _explain_surrogate(body: bytes) -> InvalidRequest | None:
    r"""Whether all that is wrong with a body is half a surrogate pair (`"\ud800"`) in an input.

    Browsers send those when they cut a text inside an emoji, so it deserves better than "not valid
    JSON", and msgspec's own text does not tell. If the body can be decoded with a mark in their
    places, that was all, and the mark shows where.
    """
    if len(body) > _MAX_EXPLAINED_BYTES or b"\\u" not in body:
        return None
    try:
        repaired = _decode_json(_LONE_SURROGATE.sub(rb"\\uffff", body))
    except (msgspec.DecodeError, RecursionError):
        return None
    for field in INPUTS:
        value = getattr(repaired, field)
        if type(value) is str and _MARK in value:
            return InvalidRequest(f"{field} holds half a surrogate pair", param=field)
        for index, item in enumerate(value if type(value) is list else ()):
            if type(item) is str and _MARK in item:
                return InvalidRequest(f"{field}[{index}] holds half a surrogate pair", param=field)
    return None


def foreign(body: Body) -> tuple[Any, ...]:
    """The values of the fields of other APIs, in the order of their table."""
    return msgspec.structs.astuple(body)[len(_USUAL) : -1]


def _unfold(body: Any) -> None:
    """Take what is in `parameters`, as Hugging Face's clients send them, for fields of the body."""
    if type(body.parameters) is not dict:
        raise InvalidRequest("parameters must be an object", param="parameters")
    for name, value in body.parameters.items():
        if value is None or name not in _ALL:
            continue
        if name == "parameters":
            raise InvalidRequest("parameters must not hold parameters of its own", param=name)
        before = getattr(body, name)
        if before is not None and before != value:
            raise dialects.contradiction(name, "parameters")
        setattr(body, name, value)
