"""Token ids as LangChain sends them by default: OpenAI's vocabulary, whatever the model."""

from __future__ import annotations

import numpy as np
import pytest
import requests

from tests.processes import llmrs


def vectors(url: str, inputs: object) -> np.ndarray:
    answer = requests.post(f"{url}/v1/embeddings", json={"input": inputs}, timeout=30)
    assert answer.status_code == 200, answer.text
    return np.array([row["embedding"] for row in answer.json()["data"]])


@pytest.mark.parametrize("policy", ["auto", "cl100k"])
def test_cl100k_ids_are_decoded_by_a_plain_install(policy: str) -> None:
    # "hello world" is what LangChain's documentation shows as these ids.
    with llmrs(TOKEN_IDS=policy) as server:
        text = vectors(server.url, ["hello world", "bye"])
        ids = vectors(server.url, [[15339, 1917], [29474]])
        assert (text * ids).sum(1).min() > 0.9998
        assert (vectors(server.url, [15339, 1917])[0] * text[0]).sum() > 0.9998
        beyond = requests.post(f"{server.url}/v1/embeddings", json={"input": [[5], [2**31 - 1]]}, timeout=30)
        assert beyond.status_code == 400
        assert "[1]" in beyond.json()["error"]["message"]


def test_they_can_be_refused() -> None:
    with llmrs(TOKEN_IDS="reject") as server:
        answer = requests.post(f"{server.url}/v1/embeddings", json={"input": [[15339, 1917]]}, timeout=30)
        assert answer.status_code == 400
        assert "check_embedding_ctx_length=False" in answer.json()["error"]["message"]
