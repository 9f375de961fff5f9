"""Sans-I/O: bytes to a request, vectors to bytes, an error to bytes.

What the bodies of the HTTP contract look like is decided here and nowhere else. This file knows no
socket, no framework, no model: what depends on the model (its name, its width, token limits) is
checked by whoever serves it. Messages name the field and the index, and never quote the input.

A body is decoded once, by `bodies`, into values without types, which the checks then tell apart: so the
message can say which element is wrong, which a typed decoder's cannot. The loops over elements run
in C. `fields` says what each of our own fields may be, `dialects` those of other APIs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from llmrs import _fast, bodies, dialects, fields
from llmrs.embeddings import AskedTruncate, Input, Matrix, OutputDtype, Side
from llmrs.errors import InvalidRequest, ServiceError, TooManyInputs

Form: TypeAlias = Literal["openai", "legacy", "tei"]

INPUTS: Mapping[Form, str] = {"openai": "input", "legacy": "texts", "tei": "inputs"}
"""The field that holds the inputs."""

_ATTRIBUTES = {
    "encoding_format": "base64",
    "output_dtype": "output_dtype",
    "dimensions": "dimensions",
    "input_type": "input_type",
    "truncate": "truncate",
    "normalize": "normalize",
    "normalize_embeddings": "normalize",
}
"""What fields of ours say that those of other APIs may say, too: the attributes of a request."""

MAX_MESSAGE_BYTES = 1024


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
        token_limit: the most tokens of an input that may be read, at least as many as the model takes.
        input_type, prompt_name: which of the model's prompts to put in front, if any; see `prompts`.
        normalize: whether to make unit vectors; None: as configured.
        batch_size: most inputs of this request in one backend batch; None: as configured.
        names: the fields of other APIs in which something of this came, by its attribute.
    """

    form: Form
    inputs: list[Input]
    model: str | None = None
    base64: bool = False
    output_dtype: OutputDtype = "float32"
    dimensions: int | None = None
    truncate: AskedTruncate | None = None
    truncation_side: Side | None = None
    token_limit: int | None = None
    input_type: str | None = None
    prompt_name: str | None = None
    normalize: bool | None = None
    batch_size: int | None = None
    names: Mapping[str, str] | None = None


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
    found = bodies.decode(body)
    if found.input is not None and not (found.texts is found.inputs is None):
        raise InvalidRequest("send input alone, without texts and inputs", param="input")
    return _request(found, "openai", limits, check_model)


def parse_embed(
    body: bytes, limits: RequestLimits, check_model: Callable[[str | None], object] = lambda name: None
) -> EmbeddingRequest:
    """The request in a body of `POST /embed`, in the legacy form (`texts`) or TEI's (`inputs`).

    Takes and raises the same as `parse_openai`.
    """
    found = bodies.decode(body)
    if (found.texts is None) == (found.inputs is None):
        raise InvalidRequest("exactly one of texts and inputs must be given")
    if found.input is not None:
        raise InvalidRequest("send texts or inputs alone, without input", param="input")
    return _request(found, "legacy" if found.inputs is None else "tei", limits, check_model)


def _request(
    body: bodies.Body, form: Form, limits: RequestLimits, check_model: Callable[[str | None], object]
) -> EmbeddingRequest:
    """The request that the fields make, each of them checked if it is there."""
    model = None if (value := body.model) is None else fields.model_name(value, "model")
    check_model(model)
    normalize = None if (value := body.normalize) is None else fields.flag(value, "normalize")
    if (value := body.normalize_embeddings) is not None:
        if normalize not in (None, fields.flag(value, "normalize_embeddings")):
            raise dialects.contradiction("normalize", "normalize_embeddings")
        normalize = value
    request = EmbeddingRequest(
        form=form,
        model=model,
        base64=(value := body.encoding_format) is not None and fields.is_base64(value, form),
        output_dtype="float32" if (value := body.output_dtype) is None else fields.output_dtype(value),
        dimensions=None if (value := body.dimensions) is None else fields.positive(value, "dimensions"),
        input_type=None if (value := body.input_type) is None else fields.input_type(value),
        prompt_name=None if (value := body.prompt_name) is None else fields.text(value, "prompt_name"),
        truncate=None if (value := body.truncate) is None else fields.truncate(value),
        normalize=normalize,
        batch_size=None if (value := body.batch_size) is None else fields.positive(value, "batch_size"),
        inputs=_inputs(body, form, limits),
    )
    return request if type(body) is bodies.UsualBody else _obey(request, body)


def _obey(request: EmbeddingRequest, body: bodies.Body) -> EmbeddingRequest:
    """The request with what the fields of other APIs ask for."""
    asked = {
        attribute: getattr(request, attribute)
        for name, attribute in _ATTRIBUTES.items()
        if getattr(body, name) is not None
    }
    names = dialects.merge(asked, bodies.foreign(body), base64=request.form == "openai")
    return msgspec.structs.replace(request, **asked, names=names) if names else request


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


def _inputs(body: bodies.Body, form: Form, limits: RequestLimits) -> list[Input]:
    name, token_ids = INPUTS[form], form != "legacy"
    value = getattr(body, name)
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
