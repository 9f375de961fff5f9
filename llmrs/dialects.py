"""Fields by which other embedding APIs say what ours says, and those that ask for what is not done here.

A field of an imitated API that changes the answer is obeyed or refused by name, never skipped: whoever
sends it would get other vectors than they asked for, without a sign of it. Fields that cannot change the
answer are in no table and are ignored. Two fields that contradict each other are refused, too.

What a field asks for is said in the words of `wire.EmbeddingRequest`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from llmrs import fields
from llmrs.errors import InvalidRequest
from llmrs.prompts import INPUT_TYPES

Asked = dict[str, Any]
"""What is asked for, by the attributes of `wire.EmbeddingRequest`. None stands for nothing."""


class Field(NamedTuple):
    """A field of other APIs.

    Attributes:
        apis: whose it is.
        meaning: what it does here, in Markdown.
        read: takes value and name, gives what is asked for, or raises InvalidRequest.
    """

    apis: str
    meaning: str
    read: Callable[[Any, str], Asked]


def _as(attribute: str, check: Callable[[Any, str], Any]) -> Callable[[Any, str], Asked]:
    """A field that is another name of one of ours."""
    return lambda value, name: {attribute: check(value, name)}


def _only(*neutral: Any, why: str) -> Callable[[Any, str], Asked]:
    """A field that may only have the values which ask for nothing; `why` completes the message."""

    def read(value: Any, name: str) -> Asked:
        if not any(type(value) is type(each) and value == each for each in neutral):
            raise InvalidRequest(f"{name} is not supported: {why}", param=name)
        return {}

    return read


def _truncation(value: Any, name: str) -> Asked:
    return {"truncate": "cut" if fields.flag(value, name) else "none"}


def _token_limit(value: Any, name: str) -> Asked:
    return {"token_limit": fields.positive(value, name)}


def _truncate_prompt_tokens(value: Any, name: str) -> Asked:
    if type(value) is int and value == -1:
        return {"truncate": "cut"}
    if type(value) is not int or value < 1:
        raise InvalidRequest(f"{name} must be -1 or an integer of at least 1", param=name)
    return {"truncate": "cut", **_token_limit(value, name)}


def _embedding_type(value: Any, name: str) -> Asked:
    if type(value) is list and len(value) == 1:
        value = value[0]
    if value == "base64":
        return {"base64": True}
    words = ("float", *fields.OUTPUT_DTYPES)
    if type(value) is not str or value not in words:
        raise InvalidRequest(f"{name} must be one of base64, {', '.join(words)}", param=name)
    return {"output_dtype": fields.output_dtype(value, name)}


def _embed_dtype(value: Any, name: str) -> Asked:
    return {"output_dtype": fields.choice(value, name, ("float32", "float16"))}


def _embd_normalize(value: Any, name: str) -> Asked:
    if type(value) is not int or value not in (-1, 2):
        raise InvalidRequest(f"{name} must be 2, for length 1, or -1, for vectors as they are", param=name)
    return {"normalize": value == 2}


def _modality(value: Any, name: str) -> Asked:
    if value == "text" or (type(value) is list and set(map(str, value)) == {"text"}):
        return {}
    raise InvalidRequest(f"{name} must be text: models here take nothing else", param=name)


_INPUT_TYPE = _as("input_type", fields.input_type)
_SIDE = _as("truncation_side", fields.side)
_WIDTH = _as("dimensions", fields.positive)
_NO_PROMPT = _only(
    "", why="name one of the model's own prompts with prompt_name, or write it before the texts"
)
_ONE_VECTOR = _only(False, why="an input gets one vector")
_NO_IMAGES = _only([], why="models here take texts, in input")

FIELDS: Mapping[str, Field] = {
    "truncation": Field("Voyage", "`true` is `truncate: true`, `false` is `truncate: false`", _truncation),
    "autoTruncate": Field("Vertex AI", "the same", _truncation),
    "auto_truncate": Field("Vertex AI", "the same", _truncation),
    "truncation_direction": Field("TEI", "the end to cut off: `left` or `right`", _SIDE),
    "truncation_side": Field("vLLM", "the same", _SIDE),
    "truncate_prompt_tokens": Field(
        "vLLM",
        "`-1`, or a number that is not below the model's limit: long inputs are cut",
        _truncate_prompt_tokens,
    ),
    "max_tokens": Field("Cohere", "at least the model's limit, else refused", _token_limit),
    "max_length": Field("FlagEmbedding", "the same", _token_limit),
    "task": Field("Jina", "as `input_type`", _INPUT_TYPE),
    "task_type": Field("Gemini, Nomic", "as `input_type`", _INPUT_TYPE),
    "taskType": Field("Gemini, Vertex AI", "as `input_type`", _INPUT_TYPE),
    "text_type": Field("DashScope", "as `input_type`", _INPUT_TYPE),
    "title": Field("Gemini", "refused", _only("", why="write it before the text")),
    "output_dimension": Field("Cohere, Mistral, Voyage", "as `dimensions`", _WIDTH),
    "outputDimensionality": Field("Gemini, Vertex AI", "as `dimensions`", _WIDTH),
    "output_dimensionality": Field("Gemini, Vertex AI", "as `dimensions`", _WIDTH),
    "dimensionality": Field("Nomic", "as `dimensions`", _WIDTH),
    "dimension": Field("DashScope", "as `dimensions`", _WIDTH),
    "truncate_dim": Field("sentence-transformers", "as `dimensions`", _WIDTH),
    "embedding_type": Field(
        "Jina, NVIDIA", "`base64`, or as `output_dtype`; `float` is `float32`", _embedding_type
    ),
    "embedding_types": Field("Cohere", "the same, in an array of one", _embedding_type),
    "embed_dtype": Field("vLLM", "`float32` or `float16`, as `output_dtype`", _embed_dtype),
    "endianness": Field(
        "vLLM", "`little` or `native`", _only("little", "native", why="numbers are little-endian here")
    ),
    "normalized": Field("Jina", "as `normalize`", _as("normalize", fields.flag)),
    "use_activation": Field("vLLM", "as `normalize`", _as("normalize", fields.flag)),
    "embd_normalize": Field(
        "llama.cpp", "`2` is `normalize: true`, `-1` is `normalize: false`", _embd_normalize
    ),
    "add_special_tokens": Field(
        "vLLM",
        "`true`",
        _only(True, why="inputs always get the special tokens that the model was trained with"),
    ),
    "late_chunking": Field("Jina", "`false`", _only(False, why="each input is computed by itself")),
    "return_multivector": Field("Jina", "`false`", _ONE_VECTOR),
    "return_dense": Field("FlagEmbedding", "`true`", _only(True, why="an input gets one dense vector")),
    "return_sparse": Field("FlagEmbedding, Xinference", "`false`", _ONE_VECTOR),
    "return_colbert_vecs": Field("FlagEmbedding", "`false`", _ONE_VECTOR),
    "output_type": Field("DashScope", "`dense`", _only("dense", why="an input gets one dense vector")),
    "output_value": Field(
        "sentence-transformers",
        "`sentence_embedding`",
        _only("sentence_embedding", why="an input gets one vector"),
    ),
    "modality": Field("Infinity, NVIDIA", "`text`", _modality),
    "precision": Field("sentence-transformers", "`float32`", _only("float32", why="use output_dtype")),
    "prompt": Field("sentence-transformers", "refused: see `prompt_name`", _NO_PROMPT),
    "prompt_template": Field("Fireworks", "refused: see `prompt_name`", _NO_PROMPT),
    "instruction": Field("Xinference and others", "refused: see `prompt_name`", _NO_PROMPT),
    "instruct": Field("DashScope", "refused: see `prompt_name`", _NO_PROMPT),
    "messages": Field("vLLM", "refused", _only([], why="chats are not embedded here, only texts in input")),
    "image": Field("Jina and others", "refused", _NO_IMAGES),
    "images": Field("Cohere", "refused", _NO_IMAGES),
}
"""Every field of other APIs that is obeyed or refused on the routes for embeddings, with its API."""


def merge(asked: Asked, values: Iterable[Any], *, base64: bool) -> Mapping[str, str]:
    """Add to `asked` what the fields of other APIs ask for, whose `values` are in the table's order.

    `base64` tells whether the answer has a place for that. Returns the names of the fields that have asked
    for something, by its attribute.

    Raises:
        InvalidRequest: a field is wrong or asks for what is not done here, or two contradict each other.
    """
    origin: dict[str, str] = {}
    for (name, field), value in zip(FIELDS.items(), values, strict=True):
        if value is None:
            continue
        for attribute, wanted in field.read(value, name).items():
            before = asked.get(attribute)
            if before is not None and not _agree(attribute, before, wanted):
                first = origin.get(attribute) or ("encoding_format" if attribute == "base64" else attribute)
                raise contradiction(first, name)
            if before is None or before == "cut":
                asked[attribute] = wanted
                origin[attribute] = name
    end, side = asked.get("truncate"), asked.get("truncation_side")
    if side is not None and end in ("start", "end") and end != side:
        raise contradiction("truncate", origin["truncation_side"])
    if asked.get("base64") and not base64:
        name = origin["base64"]
        raise InvalidRequest(f"{name} must not be base64 at this path", param=name)
    return origin


def _agree(attribute: str, before: Any, wanted: Any) -> bool:
    """Whether two fields that both say what `attribute` shall be can be obeyed together."""
    if attribute == "input_type":
        return INPUT_TYPES[before] == INPUT_TYPES[wanted]
    if attribute == "truncate" and "cut" in (before, wanted):
        return {before, wanted} <= {"cut", "start", "end"}
    return bool(before == wanted)


def contradiction(first: str, second: str) -> InvalidRequest:
    """The error for two fields that ask for different things."""
    return InvalidRequest(f"{first} and {second} contradict each other: send one of them", param=second)
