"""The default model over HTTP, from the real process, against the reference vectors."""

from __future__ import annotations

import base64
import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from tests.processes import Server, llmrs

REFERENCES = Path(__file__).parents[1] / "models" / "references" / "all-MiniLM-L6-v2"
BF16 = 0.9998
F32 = 0.999999


@pytest.fixture(scope="module")
def texts() -> list[str]:
    listing: list[str] = json.loads(REFERENCES.with_suffix(".json").read_text(encoding="utf-8"))["texts"]
    return listing


@pytest.fixture(scope="module")
def references() -> np.ndarray:
    vectors = np.load(REFERENCES.with_suffix(".npy"), allow_pickle=False)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def embed(server: Server, texts: list[str], **fields: Any) -> np.ndarray:
    body = {"input": texts, "truncate": "end", **fields}
    answer = requests.post(f"{server.url}/v1/embeddings", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    rows = [row["embedding"] for row in answer.json()["data"]]
    if fields.get("encoding_format") == "base64":
        return np.stack([np.frombuffer(base64.b64decode(row), "<f4") for row in rows])
    return np.array(rows, np.float32)


def worst(found: np.ndarray, references: np.ndarray) -> float:
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    return float((found * references).sum(1).min())


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_vectors_are_sentence_transformers(
    server: Server, texts: list[str], references: np.ndarray, encoding: str
) -> None:
    assert worst(embed(server, texts, encoding_format=encoding), references) >= BF16


def test_vectors_at_full_precision(texts: list[str], references: np.ndarray) -> None:
    with llmrs(DTYPE="f32") as exact:
        assert worst(embed(exact, texts), references) >= F32
        assert worst(np.concatenate([embed(exact, [text]) for text in texts]), references) >= F32


def test_alone_and_in_any_company_a_text_has_one_vector(
    server: Server, texts: list[str], references: np.ndarray
) -> None:
    alone = np.concatenate([embed(server, [text]) for text in texts])
    assert worst(alone, references) >= BF16
    shuffle = random.Random(1)
    for size in (2, 7, 32, len(texts)):
        order = shuffle.sample(range(len(texts)), size)
        together = embed(server, [texts[i] for i in order])
        assert worst(together, alone[order]) >= BF16


def test_64_clients_at_once_get_their_own_vectors(
    server: Server, texts: list[str], references: np.ndarray
) -> None:
    def ask(client: int) -> float:
        shuffle = random.Random(client)
        lowest = 1.0
        for _ in range(5):
            order = shuffle.sample(range(len(texts)), shuffle.choice([1, 1, 1, 3, 10]))
            found = embed(server, [texts[i] for i in order], encoding_format="base64")
            lowest = min(lowest, worst(found, references[order]))
        return lowest

    with ThreadPoolExecutor(64) as pool:
        assert min(pool.map(ask, range(64))) >= BF16


def test_a_request_of_the_largest_size(server: Server) -> None:
    texts = [f"text number {i}" for i in range(2048)]
    found = embed(server, texts, encoding_format="base64")
    assert found.shape == (2048, 384)
    picked = [0, 1, 1000, 2047]
    assert worst(found[picked], embed(server, [texts[i] for i in picked])) >= BF16


def test_tokens_are_counted_as_the_model_reads_them(server: Server, texts: list[str]) -> None:
    listing = json.loads(REFERENCES.with_suffix(".json").read_text(encoding="utf-8"))
    expected = sum(map(len, listing["token_ids"]))
    body = {"input": texts, "truncate": "end"}
    answer = requests.post(f"{server.url}/v1/embeddings", json=body, timeout=60)
    assert answer.json()["usage"] == {"prompt_tokens": expected, "total_tokens": expected}
    long = sum(len(ids) == 256 for ids in listing["token_ids"])
    assert 0 < int(answer.headers["x-truncated-inputs"]) <= long


def test_legacy_and_tei_forms(server: Server, texts: list[str], references: np.ndarray) -> None:
    legacy = requests.post(f"{server.url}/embed", json={"texts": texts, "batch_size": 7}, timeout=60).json()
    assert worst(np.array(legacy["vectors"], np.float32), references) >= BF16
    tei = requests.post(f"{server.url}/embed", json={"inputs": texts}, timeout=60).json()
    assert worst(np.array(tei, np.float32), references) >= BF16


def test_native_token_ids_give_the_texts_vectors(texts: list[str], references: np.ndarray) -> None:
    listing = json.loads(REFERENCES.with_suffix(".json").read_text(encoding="utf-8"))
    short = [i for i, ids in enumerate(listing["token_ids"]) if 2 < len(ids) < 200]
    ids = [listing["token_ids"][i][1:-1] for i in short]  # the server adds the special tokens
    with llmrs(TOKEN_IDS="native") as native:
        answer = requests.post(f"{native.url}/v1/embeddings", json={"input": ids}, timeout=60)
        found = np.array([row["embedding"] for row in answer.json()["data"]], np.float32)
        assert worst(found, references[short]) >= BF16
        beyond = requests.post(f"{native.url}/v1/embeddings", json={"input": [[5], [30522]]}, timeout=60)
        assert beyond.status_code == 400
        assert "[1]" in beyond.json()["error"]["message"]


@pytest.mark.chooses_worker_class
def test_a_text_of_many_chunks_has_the_mean_of_its_chunks() -> None:
    """As a client makes it, from several processes too: the gateway splits, the engine computes chunks."""
    words = [f"word{i % 97} about harbour and winter" for i in range(500)]
    step = 50  # words of a chunk that surely fits
    for processes in ("1", "2"):
        with llmrs(DTYPE="f32", PROCESSES=processes, WORKER_CLASS="llmrs", TOKEN_IDS="native") as exact:
            url = f"{exact.url}/v1/embeddings"
            long = {"input": ["short", " ".join(words)], "truncate": "chunk_mean"}
            answer = requests.post(url, json=long, timeout=60)
            assert answer.headers["x-chunked-inputs"] == "1"
            found = np.array([row["embedding"] for row in answer.json()["data"]], np.float32)
            assert worst(found[:1], embed(exact, ["short"])) >= F32
            # Other chunks than the server's: their mean is near, and far from that of the first alone.
            parts = embed(exact, [" ".join(words[start : start + step]) for start in range(0, 500, step)])
            mean = parts.mean(axis=0) / np.linalg.norm(parts.mean(axis=0))
            assert worst(found[1:], mean[None]) >= 0.97
            # The same chunks, as token ids: 254 of the model's own tokens and two special ones.
            ids = [1000 + i % 900 for i in range(254 * 2 + 100)]
            chunks = embed(exact, [ids[:254], ids[254:508], ids[508:]], truncate="none").astype(np.float64)
            weighted = np.average(chunks, axis=0, weights=[254, 254, 100])
            weighted /= np.linalg.norm(weighted)
            assert worst(embed(exact, [ids], truncate="chunk_mean"), weighted[None]) >= F32
