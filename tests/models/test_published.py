"""Popular models are not refused for their files' keys: see published.py."""

from __future__ import annotations

import pytest

from llmrs.models import module_keys
from llmrs.models.families import FAMILIES, read_encoder
from llmrs.models.rules import check_keys
from llmrs.models.settings import Settings
from tests.models.published import PUBLISHED

FILES = [
    (module_keys.TRANSFORMER, {"max_seq_length": 512, "do_lower_case": False}),
    (
        module_keys.SENTENCE_TRANSFORMERS,
        {
            "__version__": {"sentence_transformers": "3.0.1", "transformers": "4.41.2", "pytorch": "2.3.0"},
            "prompts": {"query": "query: ", "document": ""},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
            "model_type": "SentenceTransformer",
        },
    ),
    (
        module_keys.POOLING,
        {
            "word_embedding_dimension": 384,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
            "pooling_mode_weightedmean_tokens": False,
            "pooling_mode_lasttoken": False,
            "include_prompt": True,
        },
    ),
    (
        module_keys.DENSE,
        {
            "in_features": 768,
            "out_features": 512,
            "bias": True,
            "activation_function": "torch.nn.modules.activation.Tanh",
        },
    ),
    (
        module_keys.MODEL2VEC,
        {
            "model_type": "model2vec",
            "architectures": ["StaticModel"],
            "tokenizer_name": "BAAI/bge-base-en-v1.5",
            "apply_pca": 256,
            "apply_zipf": True,
            "hidden_dim": 256,
            "seq_length": 1000000,
            "normalize": True,
        },
    ),
]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_configuration_is_understood(tmp_path, name):
    assert read_encoder(Settings(tmp_path / "config.json", PUBLISHED[name])).max_tokens > 500


def test_every_family_is_published():
    assert {config["model_type"] for config in PUBLISHED.values()} == FAMILIES.keys()


@pytest.mark.parametrize(("table", "values"), FILES)
def test_published_files_are_understood(tmp_path, table, values):
    check_keys(Settings(tmp_path / "some.json", values), table)
