"""Static models against sentence-transformers and model2vec: text in, vector out.

The oracles run in an environment of their own, see statics.py and test_families.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from llmrs.backends.local import LocalBackend
from llmrs.embedder import Embedder
from llmrs.errors import ContextLengthExceeded
from tests.models.oracles import run_oracle

CASES = (
    "model2vec",
    "model2vec-bytes",
    "model2vec-endless",
    "model2vec-half",
    "model2vec-mapped",
    "model2vec-normalized",
    "sentence",
    "sentence-cutting",
    "sentence-half",
    "sentence-model2vec",
    "sentence-nested",
    "sentence-normalized",
)
"""Those of statics.py."""

EXACT, HALF = 1e-6, 2e-3
"""Of the largest number. Where weights are float16, the libraries round their sums to it, too."""


@pytest.fixture(scope="session")
def oracles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all cases. Without the oracle's environment: a failure under CI, else a skip."""
    folder = tmp_path_factory.mktemp("statics")
    run_oracle("statics.py", folder)
    return folder


def same(vectors, expected, name):
    tolerance = HALF if name.endswith("half") else EXACT
    assert vectors.shape == expected.shape
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("name", CASES)
def test_vectors_are_those_of_the_library(oracles, name):
    """In one batch, alone and in batches of other sizes; a text has the same bits in all of them."""
    texts = json.loads((oracles / name / "texts.json").read_text())
    expected = np.load(oracles / name / "vectors.npy")
    backend = LocalBackend(str(oracles / name / "model"))
    prepared = backend.prepare(texts, truncate="end")
    together = backend.embed(prepared, timeout=60).matrix
    same(together, expected, name)
    for size in (1, 2, 5):
        for start in range(0, len(texts), size):
            part = backend.embed(prepared[start : start + size], timeout=60).matrix
            np.testing.assert_array_equal(part, together[start : start + size])


@pytest.mark.parametrize("name", CASES)
def test_a_text_without_a_token_has_the_zero_vector(oracles, name):
    with Embedder(str(oracles / name / "model")) as embedder:
        vectors = embedder.embed(["", "   ", "w1"])
    assert not vectors[:2].any()
    assert np.linalg.norm(vectors[2]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "longest"),
    [("model2vec", 512), ("model2vec-bytes", 30), ("sentence-model2vec", 512), ("sentence-cutting", 16)],
)
def test_what_the_library_would_cut_is_refused(oracles, name, longest):
    backend = LocalBackend(str(oracles / name / "model"))
    assert backend.info.max_input_tokens == longest
    assert backend.prepare(["w1 " * (longest - 1)])[0].n_tokens == longest - 1
    with pytest.raises(ContextLengthExceeded, match=f"maximum context length is {longest} tokens"):
        backend.prepare(["w1 " * (longest + 1)])


def test_prompts_and_widths(oracles):
    with Embedder(str(oracles / "sentence-normalized" / "model")) as embedder:
        assert embedder.dimensions == 32
        assert embedder.info.prompts == {"query": "w5 w6 ", "document": "w7 "}
        query = embedder.embed("w1 w2", input_type="query")
        np.testing.assert_array_equal(query, embedder.embed("w5 w6 w1 w2"))
        cut = embedder.embed("w1 w2", dimensions=8)
    assert cut.shape == (1, 8)
    assert np.linalg.norm(cut) == pytest.approx(1, abs=1e-6)


def test_the_mean_of_chunks_counts_known_tokens_only(oracles):
    """A chunk of unknown words alone would have no weight and no vector."""
    backend = LocalBackend(str(oracles / "model2vec" / "model"))
    text = "w1 " * 300 + "unheard " * 600 + "w2 " * 300
    chunks = backend.prepare([text], truncate="chunk_mean")[0].chunks
    assert [chunk.n_tokens for chunk in chunks] == [512, 88]
    assert backend.prepare(["unheard " * 600], truncate="chunk_mean")[0].n_tokens == 0
