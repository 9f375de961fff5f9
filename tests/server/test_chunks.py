"""`truncate: chunk_mean`: vectors, counts, disclosure, limits and refusals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from llmrs.embeddings import ModelInfo
from tests.engines import DIMENSIONS, MAX_TOKENS, FakeBackend, vector_of
from tests.server.conftest import Client
from tests.server.test_metrics import value

PATH = "/v1/embeddings"
Make = Callable[..., Client]
WORDS = [f"w{i}" for i in range(33)]
LONG = " ".join(WORDS)  # three chunks: 14, 14 and 5 words


def mean_of(
    chunks: list[str], weights: list[int], *, normalize: bool = True, width: int = DIMENSIONS
) -> np.ndarray:
    vectors = np.stack([vector_of(chunk).astype(np.float64)[:width] for chunk in chunks])
    if normalize:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    mean = np.average(vectors, axis=0, weights=weights)
    return mean / np.linalg.norm(mean) if normalize else mean


def chunks_of(words: list[str], prompt: str = "") -> list[str]:
    step = MAX_TOKENS - 2 - len(prompt.split())
    return [prompt + " ".join(words[start : start + step]) for start in range(0, len(words), step)]


def test_the_vector_is_the_mean_of_the_chunks(client: Client) -> None:
    body = {"input": ["short", LONG, "other"], "truncate": "chunk_mean"}
    result = client.post(PATH, body)
    assert result.headers["x-chunked-inputs"] == "1"
    assert "x-truncated-inputs" not in result.headers
    assert result.json["usage"]["total_tokens"] == 3 + (33 + 3 * 2) + 3
    found = client.vectors(body)
    np.testing.assert_allclose(found[1], mean_of(chunks_of(WORDS), [14, 14, 5]), rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        found[[0, 2]], client.vectors({"input": ["short", "other"]}), rtol=0, atol=1e-6
    )


def test_it_is_what_a_client_would_make_of_the_chunks_vectors(client: Client) -> None:
    chunks = client.vectors({"input": chunks_of(WORDS)}).astype(np.float64)
    mean = np.average(chunks, axis=0, weights=[14, 14, 5])
    found = client.vectors({"input": LONG, "truncate": "chunk_mean"})[0]
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean), rtol=0, atol=1e-6)


def test_inputs_that_fit_are_as_ever(client: Client) -> None:
    fits = " ".join(WORDS[: MAX_TOKENS - 2])
    result = client.post(PATH, {"input": fits, "truncate": "chunk_mean"})
    assert "x-chunked-inputs" not in result.headers
    assert client.backend.batches == [[fits]]


def test_every_chunk_gets_the_prompt_and_none_weighs_for_it(client: Client) -> None:
    body = {"input": LONG, "truncate": "chunk_mean", "input_type": "query"}
    found = client.vectors(body)[0]
    expected = mean_of(chunks_of(WORDS, "query: "), [13, 13, 7])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert client.post(PATH, body).json["usage"]["total_tokens"] == 33 + 3 * 3


def test_token_ids(make_client: Make) -> None:
    client = make_client(token_ids="native")
    found = client.vectors({"input": [list(range(33))], "truncate": "chunk_mean", "input_type": "query"})[0]
    words = [f"#{i}" for i in range(33)]
    np.testing.assert_allclose(found, mean_of(chunks_of(words), [14, 14, 5]), rtol=0, atol=1e-6)


def test_without_normalization_and_with_fewer_dimensions(make_client: Make) -> None:
    body = {"input": LONG, "truncate": "chunk_mean"}
    raw = make_client(normalize_embeddings=False).vectors(body)[0]
    expected = mean_of(chunks_of(WORDS), [14, 14, 5], normalize=False)
    np.testing.assert_allclose(raw, expected, rtol=0, atol=1e-6)
    cut = make_client(allow_any_dimensions=True).vectors({**body, "dimensions": 3})[0]
    np.testing.assert_allclose(cut, mean_of(chunks_of(WORDS), [14, 14, 5], width=3), rtol=0, atol=1e-6)


def test_many_chunks_are_put_together_beside_the_hub(
    make_client: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmrs.server.serving.INLINE_NUMBERS", 8)
    found = make_client().vectors({"input": ["x", LONG], "truncate": "chunk_mean"})
    np.testing.assert_allclose(found[1], mean_of(chunks_of(WORDS), [14, 14, 5]), rtol=0, atol=1e-6)


def test_chunks_share_batches_and_are_computed_once(client: Client) -> None:
    repeated = " ".join(["same"] * 14 * 9)
    client.vectors({"input": repeated, "truncate": "chunk_mean"})
    assert sum(map(len, client.backend.batches)) <= 3, "nine chunks of one text, in batches of four"
    assert max(map(len, client.backend.batches)) == 1


def test_all_tokens_count_against_the_limit_of_a_request(make_client: Make) -> None:
    """And so there is a limit to how many chunks an input may have."""
    client = make_client(max_request_tokens=39)
    assert client.post(PATH, {"input": LONG, "truncate": "chunk_mean"}).status_code == 200
    error = client.error(400, PATH, {"input": LONG + " more", "truncate": "chunk_mean"})
    assert error["code"] == "max_tokens_per_request"


def test_the_input_at_fault_is_named_and_not_the_chunk(client: Client) -> None:
    words = [*WORDS[:28], "poison", "x"]
    for bad in (" ".join(words), "poison"):
        error = client.error(500, PATH, {"input": ["short", LONG, bad], "truncate": "chunk_mean"})
        assert "input[2]" in error["message"]
        assert error["param"] == "input"
    result = client.post(PATH, {"input": [LONG, " ".join([*WORDS[:28], "nan"])], "truncate": "chunk_mean"})
    assert (result.status_code, result.json["error"]["code"]) == (500, "non_finite_embedding")
    assert "index 1" in result.json["error"]["message"]


def test_chunked_inputs_are_counted(client: Client) -> None:
    assert value(client, "llmrs_chunked_inputs_total", model="fake-model") == 0
    client.vectors({"input": [LONG, "short", LONG + " x"], "truncate": "chunk_mean"})
    assert value(client, "llmrs_chunked_inputs_total", model="fake-model") == 2
    assert value(client, "llmrs_inputs_total", model="fake-model") == 3
    assert value(client, "llmrs_truncated_inputs_total", model="fake-model") == 0


def test_a_backend_that_counts_the_tokens_itself(make_client: Make) -> None:
    class Uncounted(FakeBackend):
        counts_tokens = False

    client = make_client(Uncounted(info=ModelInfo()))
    error = client.error(400, PATH, {"input": "x", "truncate": "chunk_mean"})
    assert error["param"] == "truncate"
    assert client.post(PATH, {"input": "x"}).status_code == 200
