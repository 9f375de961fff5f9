"""Fields of other APIs, as far as only the model can judge them, and what their answers hold."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from llmrs.embeddings import ModelInfo
from tests.engines import DIMENSIONS, MAX_TOKENS, FakeBackend, vector_of
from tests.server.conftest import Client

Make = Callable[..., Client]

PATH = "/v1/embeddings"
LONG = " ".join(map(str, range(40)))


def unit(text: str, width: int = DIMENSIONS) -> np.ndarray:
    vector = vector_of(text)[:width]
    unit: np.ndarray = vector / np.linalg.norm(vector)
    return unit


def with_prompts(make_client: Make, **prompts: str) -> Client:
    info = ModelInfo(name="m", dimensions=DIMENSIONS, max_input_tokens=MAX_TOKENS, prompts=prompts)
    return make_client(FakeBackend(info=info))


QUERIES = ["query", "Query", "search_query", "SEARCH_QUERY", "retrieval.query", "RETRIEVAL_QUERY"]
DOCUMENTS = ["document", "passage", "search_document", "retrieval.passage", "RETRIEVAL_DOCUMENT"]
TASKS = ["classification", "clustering", "separation", "text-matching", "code.query", "CLASSIFICATION"]


@pytest.mark.parametrize("field", ["input_type", "task", "task_type"])
@pytest.mark.parametrize(("words", "kind"), [(QUERIES, "query"), (DOCUMENTS, "document")])
def test_queries_and_documents_in_everybodys_words(
    make_client: Make, field: str, words: list[str], kind: str
) -> None:
    both = with_prompts(make_client, query="q: ", document="d: ")
    other = with_prompts(make_client, **{"document" if kind == "query" else "query": "other: "})
    none = with_prompts(make_client)
    for word in words:
        for client, text in ((both, f"{kind[0]}: x"), (other, "x"), (none, "x")):
            np.testing.assert_allclose(client.vectors({"input": "x", field: word}), [unit(text)], rtol=1e-5)


def test_a_prompt_of_the_words_own_name_counts_first(make_client: Make) -> None:
    prompts = {"query": "q: ", "retrieval.query": "r: ", "Classification": "c: ", "": "default: "}
    client = with_prompts(make_client, **prompts)
    for word, text in (
        ("query", "q: x"), ("retrieval.query", "r: x"), ("search_query", "q: x"),
        ("classification", "c: x"), ("CLASSIFICATION", "c: x"), ("passage", "x"),
    ):  # fmt: skip
        found = client.vectors({"input": "x", "input_type": word})
        np.testing.assert_allclose(found, [unit(text)], rtol=1e-5)


@pytest.mark.parametrize("field", ["input_type", "task", "task_type"])
@pytest.mark.parametrize("task", TASKS)
def test_a_task_that_a_model_with_prompts_has_none_for_is_refused(
    make_client: Make, field: str, task: str
) -> None:
    client = with_prompts(make_client, query="q: ")
    for path, name in ((PATH, "input"), ("/embed", "texts"), ("/embed", "inputs")):
        error = client.error(400, path, {name: "x", field: task})
        assert error["param"] == field
        assert error["message"].startswith(field)
    bare = with_prompts(make_client).vectors({"input": "x", field: task})
    np.testing.assert_allclose(bare, [unit("x")], rtol=1e-5)


@pytest.mark.parametrize("field", ["truncate_prompt_tokens", "max_tokens"])
def test_a_limit_of_tokens(make_client: Make, field: str) -> None:
    client = make_client(truncate="none" if field == "truncate_prompt_tokens" else "end")
    for enough in (MAX_TOKENS, MAX_TOKENS + 100):
        assert client.post(PATH, {"input": LONG, field: enough}).headers["x-truncated-inputs"] == "1"
    error = client.error(400, PATH, {"input": "x", field: MAX_TOKENS - 1})
    assert error["param"] == field
    assert str(MAX_TOKENS) in error["message"]
    unknown = make_client(FakeBackend(info=ModelInfo()))
    assert unknown.error(400, PATH, {"input": "x", field: 10_000})["param"] == field


def test_everything_up_to_the_models_limit(make_client: Make) -> None:
    client = make_client(truncate="none")
    client.error(400, PATH, {"input": LONG})
    assert (
        client.post(PATH, {"input": LONG, "truncate_prompt_tokens": -1}).headers["x-truncated-inputs"] == "1"
    )


@pytest.mark.parametrize("direction", ["Left", "left", "LEFT", "Right", "right"])
@pytest.mark.parametrize("asked", [{}, {"truncate": True}, {"truncate": None}])
def test_teis_truncation_direction(make_client: Make, direction: str, asked: dict[str, Any]) -> None:
    client = make_client()
    result = client.post("/embed", {"inputs": LONG, "truncation_direction": direction, **asked})
    words = LONG.split()
    kept = words[-MAX_TOKENS + 2 :] if direction.lower() == "left" else words[: MAX_TOKENS - 2]
    np.testing.assert_allclose(np.array(result.json, np.float32), [unit(" ".join(kept))], rtol=1e-5)
    assert result.headers["x-truncated-inputs"] == "1"
    refused = client.error(
        400, "/embed", {"inputs": LONG, "truncation_direction": direction, "truncate": False}
    )
    assert refused["code"] == "context_length_exceeded"


def test_voyages_output_dimension(make_client: Make) -> None:
    client = make_client(allow_any_dimensions="true")
    found = client.vectors({"input": "x", "output_dimension": 4, "truncation": True})
    np.testing.assert_allclose(found, [unit("x", 4)], rtol=1e-5)
    error = make_client().error(400, PATH, {"input": "x", "output_dimension": 4})
    assert error["param"] == "output_dimension"
    assert error["message"].startswith("output_dimension must be")


def test_jinas_embedding_type_and_normalized(make_client: Make) -> None:
    client = make_client()
    row = client.post(PATH, {"input": "x", "embedding_type": "base64"}).json["data"][0]["embedding"]
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(row), "<f4"), unit("x"), rtol=1e-5)
    bits = client.post(PATH, {"input": "x", "embedding_type": "ubinary"}).json["data"][0]["embedding"]
    assert bits == np.packbits(vector_of("x") > 0).tolist()
    raw = client.vectors({"input": "x", "normalized": False})
    np.testing.assert_allclose(raw, [vector_of("x")], rtol=1e-6)
    error = client.error(400, PATH, {"input": "x", "embedding_type": "int8", "normalized": False})
    assert error["param"] == "embedding_type"


def test_the_legacy_form_obeys_what_the_others_do(make_client: Make) -> None:
    client = make_client(allow_any_dimensions="true")
    answer = client.post("/embed", {"texts": "x", "dimensions": 4}).json
    assert answer["vector_dim"] == 4
    np.testing.assert_allclose(np.array(answer["vectors"], np.float32), [unit("x", 4)], rtol=1e-5)
    raw = client.post("/embed", {"texts": "x", "normalize": False}).json["vectors"]
    np.testing.assert_allclose(np.array(raw, np.float32), [vector_of("x")], rtol=1e-6)


def test_a_model_asked_for_on_embed_is_the_one_or_none(make_client: Make) -> None:
    client = make_client()
    for name in ("inputs", "texts"):
        assert client.post("/embed", {name: "x", "model": "fake-model"}).status_code == 200
        assert client.error(404, "/embed", {name: "x", "model": "other"})["code"] == "model_not_found"
