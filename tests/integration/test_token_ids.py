"""Token ids as LangChain sends them by default: OpenAI's vocabulary, whatever the model."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import requests

from tests.processes import llmrs, run

VOCABULARY = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
"""What tiktoken calls cl100k_base in its cache: the SHA-1 of the address it would fetch it from."""


@pytest.fixture(scope="session")
def tiktoken_cache() -> Path:
    """A folder with the vocabulary, which a package of the test requirements carries."""
    spec = importlib.util.find_spec("litellm")
    if spec is None or not spec.submodule_search_locations:
        message = "the vocabulary is not installed (tests/requirements-data.txt)"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    folder = Path(next(iter(spec.submodule_search_locations))) / "litellm_core_utils" / "tokenizers"
    assert hashlib.sha256((folder / VOCABULARY).read_bytes()).hexdigest().startswith("223921b76ee99bde")
    return folder


def vectors(url: str, inputs: object) -> np.ndarray:
    answer = requests.post(f"{url}/v1/embeddings", json={"input": inputs}, timeout=30)
    assert answer.status_code == 200, answer.text
    return np.array([row["embedding"] for row in answer.json()["data"]])


def test_cl100k_ids_are_decoded_where_the_vocabulary_is_at_hand(tiktoken_cache: Path) -> None:
    # `auto` finds it; "hello world" is what LangChain's documentation shows as these ids.
    with llmrs(TIKTOKEN_CACHE_DIR=str(tiktoken_cache)) as server:
        text = vectors(server.url, ["hello world", "bye"])
        ids = vectors(server.url, [[15339, 1917], [29474]])
        assert (text * ids).sum(1).min() > 0.9998
        assert (vectors(server.url, [15339, 1917])[0] * text[0]).sum() > 0.9998
        beyond = requests.post(f"{server.url}/v1/embeddings", json={"input": [[5], [2**31 - 1]]}, timeout=30)
        assert beyond.status_code == 400
        assert "[1]" in beyond.json()["error"]["message"]


def test_without_the_vocabulary_they_are_refused(tmp_path: Path) -> None:
    with llmrs(TIKTOKEN_CACHE_DIR=str(tmp_path)) as server:
        answer = requests.post(f"{server.url}/v1/embeddings", json={"input": [[15339, 1917]]}, timeout=30)
        assert answer.status_code == 400
        assert "check_embedding_ctx_length=False" in answer.json()["error"]["message"]


def test_asking_for_cl100k_without_the_vocabulary_stops_the_start(tmp_path: Path) -> None:
    ended = run("serve", "--port", "0", TOKEN_IDS="cl100k", TIKTOKEN_CACHE_DIR=str(tmp_path))
    assert ended.returncode == 3
    assert "cl100k" in ended.stderr
    assert "Traceback" not in ended.stderr
