"""Well-behaved services in the shape of the real ones, as far as a gateway sees them."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

from .vectors import as_base64, count_tokens, cut, scaled, vector
from .wire import Behaviour, Connection, Request

MISSING = {"error": {"message": "no such path", "type": "invalid_request_error", "param": None, "code": None}}


LONGEST = 256
"""Tokens that the models of these services take."""


def openai(
    *,
    refuses_base64: bool = False,
    ignores_base64: bool = False,
    prefix: str = "/v1",
    owner: str | None = None,
    cuts: bool = False,
    shortens: bool = False,
    unit: bool = False,
) -> Behaviour:
    """vLLM's shape: a model list with `max_model_len`, base64 on demand, usage.

    `owner` is the list's `owned_by`; `cuts` cuts the end of long texts as Infinity does, `shortens` obeys
    `dimensions`, and `unit` makes unit vectors.
    """

    def embed(value: object, width: int | None) -> list[float]:
        numbers = vector(cut(value, LONGEST) if cuts else value)[:width]
        return scaled(numbers) if unit else numbers

    def behave(connection: Connection, request: Request) -> object:
        if (request.method, request.path) == ("GET", f"{prefix}/models"):
            entry = {"id": "org/m", "max_model_len": 512} | ({"owned_by": owner} if owner else {})
            return connection.answer({"object": "list", "data": [entry]})
        if (request.method, request.path) != ("POST", f"{prefix}/embeddings"):
            return connection.answer(MISSING, 404)
        asked = request.json
        wants_base64 = asked.get("encoding_format") == "base64"
        if wants_base64 and refuses_base64:
            return connection.answer({"detail": "encoding_format: unsupported"}, 422)
        encode = as_base64 if wants_base64 and not ignores_base64 else list
        width = asked.get("dimensions") if shortens else None
        rows = [
            {"object": "embedding", "index": i, "embedding": encode(embed(value, width))}
            for i, value in enumerate(asked["input"])
        ]
        tokens = sum(map(count_tokens, asked["input"]))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return connection.answer({"object": "list", "model": asked["model"], "data": rows, "usage": usage})

    return behave


def llmrs() -> Behaviour:
    """Another llmrs, as far as its OpenAI route goes: it does with long texts as it is told."""
    plain = openai(owner="llmrs", shortens=True)

    def behave(connection: Connection, request: Request) -> object:
        if request.path == "/info":  # of one of its models
            return connection.answer({"model_id": "other", "max_client_batch_size": 32})
        if request.method != "POST":
            return plain(connection, request)
        asked = request.json
        inputs, truncate = asked["input"], asked.get("truncate", "end")
        if truncate == "none" and any(count_tokens(value) > LONGEST for value in inputs):
            error = {
                "message": "This model's maximum context length is 256 tokens",
                "type": "x",
                "param": "input",
            }
            return connection.answer({"error": error | {"code": "context_length_exceeded"}}, 400)
        inputs = [cut(value, LONGEST, side=truncate) for value in inputs]
        body = json.dumps(asked | {"input": inputs}).encode()
        return plain(connection, request._replace(body=body))

    return behave


def tei(
    *,
    max_client_batch_size: int = 4,
    payload_limit: int = 2_000_000,
    info: bool = True,
    tokenizes: bool = True,
    auto_truncate: bool = True,
    at_a_time: int = 512,
) -> Behaviour:
    """text-embeddings-inference 1.9.3 as recorded: what it does with each field, in its words and statuses.

    `at_a_time` is how many requests it takes at a time, `auto_truncate` whether it cuts by itself.
    """
    busy = threading.BoundedSemaphore(at_a_time)

    def invalid(connection: Connection, error: str, status: int = 422, kind: str = "Validation") -> object:
        return connection.answer({"error": error, "error_type": kind}, status)

    def behave(connection: Connection, request: Request) -> object:
        if request.path == "/info" and info:
            return connection.answer(
                {
                    "model_id": "org/tei-model", "model_dtype": "float16", "version": "1.9.3",
                    "model_type": {"embedding": {"pooling": "mean"}}, "max_concurrent_requests": 512,
                    "max_input_length": LONGEST, "max_batch_tokens": 16384, "max_batch_requests": None,
                    "max_client_batch_size": max_client_batch_size, "auto_truncate": auto_truncate,
                }
            )  # fmt: skip
        routes = ("/embed", "/tokenize") if tokenizes else ("/embed",)
        if request.method != "POST" or request.path not in routes:
            return connection.answer(b"", 404)
        if len(request.body) > payload_limit:
            return connection.answer({"error": "length limit exceeded"}, 413)
        asked = request.json
        inputs = asked.get("inputs")
        if inputs is None or len(inputs) > max_client_batch_size:
            return invalid(connection, "batch size > maximum allowed batch size")
        if "" in inputs:
            return invalid(connection, "`inputs` cannot be empty", 400, "Empty")
        if request.path == "/tokenize":
            token = {"id": 1, "text": "word", "special": False, "start": 0, "stop": 4}
            return connection.answer([[token] * count_tokens(text) for text in inputs])
        if not busy.acquire(blocking=False):
            return invalid(connection, "Model is overloaded", 429, "Overloaded")
        try:
            return embed(connection, asked, inputs)
        finally:
            busy.release()

    def embed(connection: Connection, asked: dict[str, Any], inputs: list[Any]) -> object:
        if at_a_time < 512:
            time.sleep(0.01)
        truncate = asked.get("truncate")
        longest = max(map(count_tokens, inputs))
        if longest > LONGEST and not (auto_truncate if truncate is None else truncate):
            words = f"Input validation error: `inputs` must have less than {LONGEST} tokens. Given: {longest}"
            return invalid(connection, words)
        width = asked.get("dimensions")
        if width is not None and not 0 < width <= len(vector("")):
            return invalid(connection, "`dimensions` should be positive and less than 8")
        side = "start" if asked.get("truncation_direction", "Right").lower() == "left" else "end"
        read = [cut(value, LONGEST, side=side) for value in inputs]
        rows = [vector(value)[:width] for value in read]
        if asked.get("normalize", True):
            rows = [scaled(row) for row in rows]
        return connection.answer(rows, x_compute_tokens=str(sum(map(count_tokens, read))))

    return behave


def ollama(*, openai_too: bool = False, unit: bool = True) -> Behaviour:
    """Ollama as recorded: `unit` vectors, the end of long texts cut unless `truncate` is false.

    It also speaks OpenAI's protocol, where nothing can be said about that.
    """

    def behave(connection: Connection, request: Request) -> object:
        if openai_too and request.path.startswith("/v1/"):
            return openai(owner="library", cuts=True, shortens=True, unit=True)(connection, request)
        if request.path == "/api/tags":
            details = {"family": "bert", "context_length": LONGEST, "embedding_length": 8}
            return connection.answer(
                {"models": [{"name": "minilm:latest", "model": "minilm:latest", "details": details}]}
            )
        if (request.method, request.path) != ("POST", "/api/embed"):
            return connection.answer(b"404 page not found", 404, Content_Type="text/plain")
        asked = request.json
        inputs = asked["input"]
        if not asked.get("truncate", True) and max(map(count_tokens, inputs)) > LONGEST:
            return connection.answer({"error": "the input length exceeds the context length"}, 400)
        read = [cut(text, LONGEST) for text in inputs]
        rows = [vector(text)[: asked.get("dimensions")] for text in read]
        return connection.answer(
            {
                "model": asked["model"],
                "embeddings": [scaled(row) if unit else row for row in rows],
                "total_duration": 14143917, "prompt_eval_count": sum(map(count_tokens, read)),
            }
        )  # fmt: skip

    return behave


def embed(key: str = "vectors") -> Behaviour:
    """The legacy form, its vectors named `key`; the end of long texts is cut."""

    def behave(connection: Connection, request: Request) -> object:
        if (request.method, request.path) != ("POST", "/embed"):
            return connection.answer({"detail": "Not Found"}, 404)
        texts = request.json.get("texts")
        if texts is None:
            return connection.answer({"detail": [{"loc": ["body", "texts"], "msg": "Field required"}]}, 422)
        return connection.answer({key: [vector(cut(text, LONGEST)) for text in texts]})

    return behave
