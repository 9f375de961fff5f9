"""Well-behaved services in the shape of the real ones, as far as a gateway sees them."""

from __future__ import annotations

from .vectors import as_base64, count_tokens, vector
from .wire import Behaviour, Connection, Request

MISSING = {"error": {"message": "no such path", "type": "invalid_request_error", "param": None, "code": None}}


def openai(*, refuses_base64: bool = False, ignores_base64: bool = False, prefix: str = "/v1") -> Behaviour:
    """vLLM's shape: a model list with `max_model_len`, base64 on demand, usage."""

    def behave(connection: Connection, request: Request) -> object:
        if (request.method, request.path) == ("GET", f"{prefix}/models"):
            return connection.answer({"object": "list", "data": [{"id": "org/m", "max_model_len": 512}]})
        if (request.method, request.path) != ("POST", f"{prefix}/embeddings"):
            return connection.answer(MISSING, 404)
        asked = request.json
        wants_base64 = asked.get("encoding_format") == "base64"
        if wants_base64 and refuses_base64:
            return connection.answer({"detail": "encoding_format: unsupported"}, 422)
        encode = as_base64 if wants_base64 and not ignores_base64 else list
        rows = [
            {"object": "embedding", "index": i, "embedding": encode(vector(value))}
            for i, value in enumerate(asked["input"])
        ]
        tokens = sum(map(count_tokens, asked["input"]))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return connection.answer({"object": "list", "model": asked["model"], "data": rows, "usage": usage})

    return behave


def tei(*, max_client_batch_size: int = 4, payload_limit: int = 2_000_000, info: bool = True) -> Behaviour:
    """text-embeddings-inference: `/info`, ceilings on inputs and bytes, tokens in a header."""

    def behave(connection: Connection, request: Request) -> object:
        if request.path == "/info" and info:
            return connection.answer(
                {
                    "model_id": "org/tei-model", "model_dtype": "float16", "version": "1.9.3",
                    "model_type": {"embedding": {"pooling": "mean"}}, "max_concurrent_requests": 512,
                    "max_input_length": 256, "max_batch_tokens": 16384, "max_batch_requests": None,
                    "max_client_batch_size": max_client_batch_size, "auto_truncate": True,
                }
            )  # fmt: skip
        if (request.method, request.path) != ("POST", "/embed"):
            return connection.answer(b"", 404)
        if len(request.body) > payload_limit:
            return connection.answer({"error": "length limit exceeded"}, 413)
        inputs = request.json.get("inputs")
        if inputs is None or len(inputs) > max_client_batch_size:
            return connection.answer({"error": "batch size > maximum", "error_type": "Validation"}, 422)
        tokens = str(sum(map(count_tokens, inputs)))
        return connection.answer([vector(text) for text in inputs], x_compute_tokens=tokens)

    return behave


def ollama() -> Behaviour:
    """Ollama's own API; it also has an OpenAI one, left out here."""

    def behave(connection: Connection, request: Request) -> object:
        if request.path == "/api/tags":
            return connection.answer({"models": [{"name": "minilm:latest", "model": "minilm:latest"}]})
        if (request.method, request.path) != ("POST", "/api/embed"):
            return connection.answer(b"404 page not found", 404, Content_Type="text/plain")
        asked = request.json
        return connection.answer(
            {
                "model": asked["model"], "embeddings": [vector(text) for text in asked["input"]],
                "total_duration": 14143917, "prompt_eval_count": sum(map(count_tokens, asked["input"])),
            }
        )  # fmt: skip

    return behave


def embed(key: str = "vectors") -> Behaviour:
    """The legacy form, its vectors named `key`."""

    def behave(connection: Connection, request: Request) -> object:
        if (request.method, request.path) != ("POST", "/embed"):
            return connection.answer({"detail": "Not Found"}, 404)
        texts = request.json.get("texts")
        if texts is None:
            return connection.answer({"detail": [{"loc": ["body", "texts"], "msg": "Field required"}]}, 422)
        return connection.answer({key: [vector(text) for text in texts]})

    return behave
