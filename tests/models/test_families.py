"""Every family against transformers and sentence-transformers: text in, vector out.

The oracle runs in an environment of its own, see families.py. It is made by `make test`, or by
`make .venv-oracles/installed`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from llmrs.backends.local import LocalBackend
from llmrs.errors import ModelError
from llmrs.models.families import FAMILIES, read_encoder
from llmrs.models.settings import Settings
from tests.models.oracles import run_oracle

CASES = (
    "albert",
    "bert",
    "bert-large",
    "camembert",
    "distilbert",
    "electra",
    "gemma3",
    "gemma3-causal",
    "gte",
    "gte-new",
    "modernbert",
    "modernbert-published",
    "mpnet",
    "nomic",
    "nomic-published",
    "qwen3",
    "qwen3-windows",
    "roberta",
    "xlm-roberta",
)
"""Those of families.py."""


@pytest.fixture(scope="session")
def oracles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all cases. Without the oracle's environment: a failure under CI, else a skip."""
    folder = tmp_path_factory.mktemp("families")
    run_oracle("families.py", folder)
    return folder


@pytest.fixture(autouse=True)
def short_warm_up(monkeypatch):
    monkeypatch.setattr("llmrs.models.engine.WARM_UP_SECONDS", 0.0)


def cosines(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return (a * b).sum(axis=-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def same(vectors, expected):
    assert vectors.shape == expected.shape
    assert np.isfinite(vectors).all()
    assert cosines(vectors, expected).min() >= 0.99999
    np.testing.assert_allclose(vectors, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", CASES)
def test_vectors_are_those_of_transformers(oracles, name):
    """All texts in one batch, each alone, and in batches of all sizes, in both orders."""
    folder = oracles / name
    texts = json.loads((folder / "texts.json").read_text())
    expected = np.load(folder / "alone.npy")
    backend = LocalBackend(str(folder / "model"), dtype="f32", threads=1)
    prepared = backend.prepare(texts)

    def embed(chosen):
        return backend.embed([prepared[index] for index in chosen], timeout=60).matrix

    everything = list(range(len(texts)))
    same(embed(everything), expected)
    same(embed(everything[::-1]), expected[::-1])
    same(np.concatenate([embed([index]) for index in everything]), expected)
    for size in (2, 3, 5):
        for start in range(0, len(texts), size):
            chosen = everything[start : start + size]
            same(embed(chosen), expected[chosen])
    for padded in folder.glob("padded-*.npy"):
        same(embed(everything), np.load(padded))


@pytest.mark.parametrize("name", CASES)
def test_low_precision_stays_close(oracles, name):
    """In whatever this machine computes by default; random weights exaggerate rounding."""
    folder = oracles / name
    backend = LocalBackend(str(folder / "model"), threads=1)
    prepared = backend.prepare(json.loads((folder / "texts.json").read_text()))
    vectors = backend.embed(prepared, timeout=60).matrix
    least = 0.99999 if backend.precision == "f32" else 0.99
    assert cosines(vectors, np.load(folder / "alone.npy")).min() >= least


def test_every_family_has_a_case(oracles):
    assert {folder.name for folder in oracles.iterdir()} == set(CASES)
    kinds = {json.loads((oracles / name / "model/config.json").read_text())["model_type"] for name in CASES}
    assert kinds == FAMILIES.keys()


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("gte", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}),
        ("gte", {"rope_parameters": 3}),
        ("gte", {"rope_scaling": {"type": "ntk", "factor": 2.0, "mixed_b": 0.5}}),
        ("gte", {"rope_scaling": {"type": "ntk"}}),
        ("gte", {"pack_qkv": False}),
        ("gte", {"layer_norm_type": "rms_norm"}),
        ("gte", {"num_attention_heads": 32}),
        ("nomic_bert", {"moe_every_n_layers": 2}),
        ("nomic_bert", {"prenorm": True}),
        ("nomic_bert", {"rotary_emb_fraction": 0.5}),
        ("qwen3", {"num_key_value_heads": 3}),
        ("qwen3", {"layer_types": ["full_attention"]}),
        ("qwen3", {"layer_types": ["full_attention", "linear_attention"]}),
        ("gemma3_text", {"attn_logit_softcapping": 30.0}),
        ("modernbert", {"hidden_activation": "quick_gelu"}),
        ("mpnet", {"relative_attention_num_buckets": 64}),
    ],
)
def test_what_would_change_the_vectors_is_refused(tmp_path, kind, changes):
    sizes = {
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "hidden_size": 32,
        "intermediate_size": 48,
        "vocab_size": 99,
        "max_position_embeddings": 40,
    }
    if kind in ("qwen3", "gemma3_text"):
        sizes["num_key_value_heads"] = 2
    path = tmp_path / "config.json"
    assert read_encoder(Settings(path, {"model_type": kind, **sizes})).max_tokens >= 38
    with pytest.raises(ModelError, match=str(path)):
        read_encoder(Settings(path, {"model_type": kind, **sizes, **changes}))


def test_the_longest_text_has_a_mask_of_bounded_size(tmp_path):
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 12, "hidden_size": 768, "intermediate_size": 1024}
    long = {**sizes, "vocab_size": 99, "max_position_embeddings": 131_072, "num_key_value_heads": 4}
    assert read_encoder(Settings(tmp_path, {**long, "model_type": "qwen3"})).max_tokens == 16_384
    del long["num_key_value_heads"]
    jina = {**long, "model_type": "bert", "position_embedding_type": "alibi"}
    assert read_encoder(Settings(tmp_path, jina)).max_tokens == 4729
