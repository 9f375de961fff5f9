"""Sans-I/O: bytes to a request, vectors to bytes, an error to bytes.

What the bodies of the HTTP contract look like is decided here and nowhere else. This file knows no
socket, no framework, no model: what depends on the model (its name, its width, token limits) is
checked by whoever serves it. Messages name the field and the index, and never quote the input.

A body is decoded once, into values without types, which the checks below then tell apart: so the
message can say which element is wrong, which a typed decoder's cannot. The loops over elements run
in C. An explicit null is the same as absence, unknown fields are skipped undecoded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias, cast, get_args

import msgspec

from llmrs import _fast
from llmrs.embeddings import AskedTruncate, Input, Matrix, OutputDtype, Side, Truncate
from llmrs.errors import InvalidJson, InvalidRequest, ServiceError, TooManyInputs

Form: TypeAlias = Literal["openai", "legacy", "tei"]

MAX_MESSAGE_BYTES = 1024

OUTPUT_DTYPES: tuple[OutputDtype, ...] = get_args(OutputDtype)

_MAX_EXPLAINED_BYTES = 1 << 20
"""Only bodies up to this size are searched for lone surrogates when they cannot be decoded: the
search takes 20-30 ms per MiB."""


class RequestLimits(NamedTuple):
    """What the configuration says about requests.

    Attributes:
        max_inputs: most inputs of one request (`max_client_batch_size`).
        empty_input: whether an empty text is embedded or refused.
    """

    max_inputs: int
    empty_input: str = "accept"


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request to embed, checked as far as that is possible without the model.

    Attributes:
        form: which of the three bodies it came as.
        inputs: at least one, each a text or a non-empty list of token ids in 0..2^31-1.
        model: the model's name as asked for; None: the default one.
        base64: whether vectors are wanted as base64 instead of arrays of numbers.
        output_dtype: what the numbers of the answer shall be.
        dimensions: the width wanted, at least 1; None: the model's own.
        truncate: what to do with an over-long input; None: as configured.
        truncation_side: the end to cut off, where one is; None: as configured.
        input_type, prompt_name: which of the model's prompts to put in front, if any.
        normalize: whether to make unit vectors; None: as configured.
        batch_size: most inputs of this request in one backend batch; None: as configured.
    """

    form: Form
    inputs: list[Input]
    model: str | None = None
    base64: bool = False
    output_dtype: OutputDtype = "float32"
    dimensions: int | None = None
    truncate: AskedTruncate | None = None
    truncation_side: Side | None = None
    input_type: Literal["query", "document"] | None = None
    prompt_name: str | None = None
    normalize: bool | None = None
    batch_size: int | None = None


class _OpenAIBody(msgspec.Struct):
    input: Any = None
    model: Any = None
    encoding_format: Any = None
    output_dtype: Any = None
    dimensions: Any = None
    input_type: Any = None
    prompt_name: Any = None
    truncate: Any = None


class _EmbedBody(msgspec.Struct):
    texts: Any = None
    normalize_embeddings: Any = None
    batch_size: Any = None
    inputs: Any = None
    normalize: Any = None
    truncate: Any = None
    input_type: Any = None
    prompt_name: Any = None
    output_dtype: Any = None
    dimensions: Any = None


_decode_openai = msgspec.json.Decoder(_OpenAIBody).decode
_decode_embed = msgspec.json.Decoder(_EmbedBody).decode


def parse_openai(
    body: bytes, limits: RequestLimits, check_model: Callable[[str | None], object] = lambda name: None
) -> EmbeddingRequest:
    """The request in a body of `POST /v1/embeddings`.

    `check_model` is called with the model's name before the other fields are looked at, and raises
    for one that is not served: whoever asks for the wrong model shall learn that first.

    Raises:
        InvalidJson: not UTF-8, not JSON, not an object, or nested too deeply.
        InvalidRequest: a field is missing or wrong; `param` names it.
        TooManyInputs: more than `limits.max_inputs`.
    """
    fields = _decode(_decode_openai, body, ("input",))
    model = _text(fields.model, "model")
    check_model(model)
    return EmbeddingRequest(
        form="openai",
        model=model,
        base64=_choice(fields.encoding_format, "encoding_format", ("float", "base64"), "float") == "base64",
        output_dtype=_output_dtype(fields.output_dtype),
        dimensions=_positive(fields.dimensions, "dimensions"),
        input_type=_input_type(fields.input_type),
        prompt_name=_text(fields.prompt_name, "prompt_name"),
        truncate=_truncate(fields.truncate),
        inputs=_inputs(fields.input, "input", limits),
    )


def parse_embed(body: bytes, limits: RequestLimits) -> EmbeddingRequest:
    """The request in a body of `POST /embed`, in the legacy form (`texts`) or TEI's (`inputs`).

    Raises the same as `parse_openai`.
    """
    fields = _decode(_decode_embed, body, ("texts", "inputs"))
    if (fields.texts is None) == (fields.inputs is None):
        raise InvalidRequest("exactly one of texts and inputs must be given")
    if fields.inputs is None:
        return EmbeddingRequest(
            form="legacy",
            normalize=_flag(fields.normalize_embeddings, "normalize_embeddings"),
            batch_size=_positive(fields.batch_size, "batch_size"),
            truncate=_truncate(fields.truncate),
            input_type=_input_type(fields.input_type),
            prompt_name=_text(fields.prompt_name, "prompt_name"),
            output_dtype=_output_dtype(fields.output_dtype),
            inputs=_inputs(fields.texts, "texts", limits, token_ids=False),
        )
    return EmbeddingRequest(
        form="tei",
        normalize=_flag(fields.normalize, "normalize"),
        truncate=_truncate(fields.truncate),
        input_type=_input_type(fields.input_type),
        prompt_name=_text(fields.prompt_name, "prompt_name"),
        output_dtype=_output_dtype(fields.output_dtype),
        dimensions=_positive(fields.dimensions, "dimensions"),
        inputs=_inputs(fields.inputs, "inputs", limits),
    )


def encode_openai(
    matrix: Matrix,
    *,
    dimensions: int | None,
    normalize: bool,
    base64: bool,
    model: str,
    n_tokens: int,
    dtype: OutputDtype = "float32",
) -> bytes:
    """The answer to `POST /v1/embeddings`. `dimensions` None means the matrix's width.

    Raises:
        NonFiniteEmbedding: a row holds NaN or infinity.
        InvalidRequest: a number is too large for float16.
    """
    return _fast.encode_openai(
        matrix,
        dimensions=dimensions or matrix.shape[1],
        normalize=normalize,
        base64=base64,
        model_json=encode_json(model),
        n_tokens=n_tokens,
        dtype=dtype,
    )


def encode_legacy(
    matrix: Matrix, *, dimensions: int | None, normalize: bool, model: str, dtype: OutputDtype = "float32"
) -> bytes:
    """The answer to the legacy form of `POST /embed`. Raises the same as `encode_openai`.

    `vector_dim` is how many numbers a row has: where those are bytes of bits, an eighth of the width.
    """
    count, width = matrix.shape
    width = dimensions or width
    numbers = width // 8 if packs_bits(dtype) else width
    suffix = b',"count":%d,"vector_dim":%d,"model_path":%b}' % (count, numbers, encode_json(model))
    return _fast.encode_rows(
        matrix,
        dimensions=width,
        normalize=normalize,
        prefix=b'{"vectors":',
        suffix=suffix,
        dtype=dtype,
    )


def encode_tei(
    matrix: Matrix, *, dimensions: int | None, normalize: bool, dtype: OutputDtype = "float32"
) -> bytes:
    """The answer to TEI's form of `POST /embed`. Raises the same as `encode_openai`."""
    width = dimensions or matrix.shape[1]
    return _fast.encode_rows(
        matrix, dimensions=width, normalize=normalize, prefix=b"", suffix=b"", dtype=dtype
    )


def packs_bits(dtype: OutputDtype) -> bool:
    """Whether eight numbers of a vector are one of the answer."""
    return dtype in ("binary", "ubinary")


def encode_error(error: ServiceError) -> bytes:
    """The body of an error's answer."""
    return encode_json(error_object(error))


def error_object(error: ServiceError) -> dict[str, dict[str, str | None]]:
    """An error as clients get it: always all four keys, the message at most 1 KiB of UTF-8."""
    message = error.message.encode("utf-8", "replace")[:MAX_MESSAGE_BYTES].decode("utf-8", "ignore")
    return {"error": {"message": message, "type": error.type, "param": error.param, "code": error.code}}


def encode_json(value: Any) -> bytes:
    """Compact JSON in UTF-8."""
    return msgspec.json.encode(value)


def _decode(decode: Any, body: bytes, inputs: tuple[str, ...]) -> Any:
    """The body's fields; `inputs` are those that may hold inputs, for the explanation of an error."""
    try:
        # msgspec skips the values of unknown fields without looking at their encoding.
        body.isascii() or body.decode()
        return decode(body)
    except UnicodeDecodeError as error:
        raise InvalidJson(f"the body is not valid UTF-8, at byte {error.start}") from None
    except RecursionError:
        raise InvalidJson("the body is nested too deeply") from None
    except msgspec.ValidationError as error:
        raise _explain_value(str(error)) from None
    except msgspec.DecodeError as error:
        # Its text says what is wrong and at which byte, and quotes nothing.
        reason = str(error).removeprefix("JSON is malformed: ") if body else "it is empty"
        raise _explain_surrogate(decode, body, inputs) or InvalidJson(
            f"the body is not valid JSON: {reason}"
        ) from None


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


def _explain_surrogate(decode: Any, body: bytes, fields: tuple[str, ...]) -> InvalidRequest | None:
    r"""Whether all that is wrong with a body is half a surrogate pair (`"\ud800"`) in an input.

    Browsers send those when they cut a text inside an emoji, so it deserves better than "not valid
    JSON", and msgspec's own text does not tell. If the body can be decoded with a mark in their
    places, that was all, and the mark shows where.
    """
    if len(body) > _MAX_EXPLAINED_BYTES or b"\\u" not in body:
        return None
    try:
        repaired = decode(_LONE_SURROGATE.sub(rb"\\uffff", body))
    except (msgspec.DecodeError, RecursionError):
        return None
    for field in fields:
        value = getattr(repaired, field)
        if type(value) is str and _MARK in value:
            return InvalidRequest(f"{field} holds half a surrogate pair", param=field)
        for index, item in enumerate(value if type(value) is list else ()):
            if type(item) is str and _MARK in item:
                return InvalidRequest(f"{field}[{index}] holds half a surrogate pair", param=field)
    return None


def _inputs(value: Any, name: str, limits: RequestLimits, *, token_ids: bool = True) -> list[Input]:
    if value is None:
        raise InvalidRequest(f"{name} is missing", param=name)
    if type(value) is str:
        inputs: list[Input] = [value]
    elif type(value) is list and value:
        inputs = _listed(value, name, token_ids)
    else:
        expected = "a string or a non-empty array of strings" + (" or token ids" if token_ids else "")
        raise InvalidRequest(f"{name} must be {expected}", param=name)
    if len(inputs) > limits.max_inputs:
        raise TooManyInputs(
            f"{name} has {len(inputs)} elements, at most {limits.max_inputs} are allowed", param=name
        )
    if limits.empty_input == "reject" and "" in inputs:
        raise InvalidRequest(f"{name}[{inputs.index('')}] is empty", param=name)
    return inputs


def _listed(value: list[Any], name: str, token_ids: bool) -> list[Input]:
    """The inputs in a non-empty array: all of the kind of its first element."""
    kind = type(value[0])
    if kind is str or not token_ids:
        wrong, expected = _fast.first_not_text(value), "a string"
    elif kind is list:
        wrong, expected = _fast.first_not_token_ids(value), "a non-empty array of token ids"
    elif kind is int:
        wrong, expected = _fast.first_not_token_id(value), "a token id (an integer from 0 to 2147483647)"
    else:
        wrong, expected = 0, "a string, a token id or an array of token ids"
    if wrong >= 0:
        raise InvalidRequest(f"{name}[{wrong}] must be {expected}", param=name)
    return [value] if kind is int else value


def _text(value: Any, name: str) -> str | None:
    if value is None or (type(value) is str and value):
        return value
    raise InvalidRequest(f"{name} must be a non-empty string", param=name)


def _flag(value: Any, name: str) -> bool | None:
    if value is None or type(value) is bool:
        return value
    raise InvalidRequest(f"{name} must be true or false", param=name)


def _positive(value: Any, name: str) -> int | None:
    if value is None or (type(value) is int and value > 0):
        return value
    raise InvalidRequest(f"{name} must be an integer of at least 1", param=name)


def _input_type(value: Any) -> Literal["query", "document"] | None:
    return cast(Any, _choice(value, "input_type", ("query", "document"), None))  # type: ignore[no-any-return]


def _truncate(value: Any) -> AskedTruncate | None:
    """What to do with long inputs, in OpenAI's, TEI's (true or false), Cohere's and NVIDIA's words."""
    if value is None:
        return None
    if type(value) is bool:
        return "cut" if value else "none"
    word = value.lower() if type(value) is str else None
    if word not in get_args(Truncate):
        raise InvalidRequest(
            f"truncate must be true, false or one of {', '.join(get_args(Truncate))}", param="truncate"
        )
    return cast(Truncate, word)


def _output_dtype(value: Any) -> OutputDtype:
    return cast(OutputDtype, _choice(value, "output_dtype", OUTPUT_DTYPES, "float32"))


def _choice(value: Any, name: str, choices: tuple[str, ...], default: str | None) -> str | None:
    if value is None:
        return default
    if type(value) is str and value in choices:
        return value
    raise InvalidRequest(f"{name} must be one of {', '.join(choices)}", param=name)
