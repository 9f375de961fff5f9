"""JinaBERT against an oracle in float64 NumPy: transformers has no such model.

Written from the published modelling code of jina-embeddings-v2 as it is described: BERT without a position
table, scores less a slope of their head times the distance (ALiBi, both ways), and for feed-forward layers
wo(gelu(a) * b), with a and b the halves of one linear layer without a bias, then the norm of the sum.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from llmrs.errors import ModelError
from llmrs.models.engine import Engine
from llmrs.models.folder import read_folder
from tests.models.makers import VOCABULARY, change_json, make_tokenizer, write_json, write_safetensors
from tests.models.oracle import Oracle, gelu, softmax

HIDDEN, INNER, LAYERS, LONGEST = 48, 40, 2, 64


class Jina(Oracle):
    """`sizes`: layers, heads, epsilon."""

    def encode(self, ids):
        x = self.tensors["embeddings.word_embeddings.weight"][ids]
        x = self.layer_norm(
            x + self.tensors["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm"
        )
        for index in range(self.sizes["layers"]):
            x = self.layer(x, f"encoder.layer.{index}.")
        return x

    def layer(self, x, prefix):
        query, key, value = (
            self.linear(x, f"{prefix}attention.self.{name}") for name in ("query", "key", "value")
        )
        width = x.shape[1] // self.sizes["heads"]
        place = np.arange(len(x))
        mixed = []
        for head, slope in enumerate(slopes(self.sizes["heads"])):
            mine = slice(head * width, (head + 1) * width)
            scores = query[:, mine] @ key[:, mine].T / math.sqrt(width)
            mixed.append(softmax(scores - slope * abs(place[:, None] - place)) @ value[:, mine])
        attended = self.linear(np.concatenate(mixed, axis=1), prefix + "attention.output.dense")
        x = self.layer_norm(x + attended, prefix + "attention.output.LayerNorm")
        wide = x @ self.tensors[prefix + "mlp.gated_layers.weight"].T
        inner = gelu(wide[:, :INNER]) * wide[:, INNER:]
        return self.layer_norm(x + self.linear(inner, prefix + "mlp.wo"), prefix + "mlp.layernorm")


def slopes(heads):
    """As in the paper's code: of 2^n heads 2^(-8/2^n) to the powers 1, 2, 3 ..."""
    if heads & (heads - 1) == 0:
        start = 2 ** (-(2 ** -(math.log2(heads) - 3)))
        return [start ** (head + 1) for head in range(heads)]
    power = 2 ** math.floor(math.log2(heads))
    return slopes(power) + slopes(2 * power)[0::2][: heads - power]


def make(folder, heads):
    random = np.random.default_rng(3)
    shapes = {"embeddings.word_embeddings.weight": (VOCABULARY, HIDDEN)}
    shapes["embeddings.token_type_embeddings.weight"] = (2, HIDDEN)
    norms = ["embeddings.LayerNorm"]
    for index in range(LAYERS):
        prefix = f"encoder.layer.{index}."
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            shapes[f"{prefix}attention.{name}.weight"] = (HIDDEN, HIDDEN)
            shapes[f"{prefix}attention.{name}.bias"] = (HIDDEN,)
        shapes[prefix + "mlp.gated_layers.weight"] = (2 * INNER, HIDDEN)
        shapes[prefix + "mlp.wo.weight"] = (HIDDEN, INNER)
        shapes[prefix + "mlp.wo.bias"] = (HIDDEN,)
        norms += [prefix + "attention.output.LayerNorm", prefix + "mlp.layernorm"]
    tensors = {name: random.normal(0, 1.5 / math.sqrt(shape[-1]), shape) for name, shape in shapes.items()}
    for norm in norms:
        tensors[norm + ".weight"] = random.normal(1, 0.2, HIDDEN)
        tensors[norm + ".bias"] = random.normal(0, 0.2, HIDDEN)
    config = {
        "model_type": "bert",
        "position_embedding_type": "alibi",
        "feed_forward_type": "geglu",
        "num_hidden_layers": LAYERS,
        "num_attention_heads": heads,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": LONGEST,
        "type_vocab_size": 2,
        "pad_token_id": 0,
    }
    write_json(folder / "config.json", config)
    make_tokenizer(folder / "tokenizer.json")
    stored = write_safetensors(folder / "model.safetensors", tensors)
    return Jina("bert", {"layers": LAYERS, "heads": heads, "epsilon": 1e-12}, stored, [("pooling", "mean")])


@pytest.mark.parametrize("heads", [1, 4, 6, 12])
def test_vectors(heads, tmp_path, monkeypatch):
    """Numbers of heads that are a power of two, and such that are not."""
    monkeypatch.setattr("llmrs.models.engine.WARM_UP_SECONDS", 0.0)
    oracle = make(tmp_path, heads)
    engine = Engine(read_folder(tmp_path), dtype="f32", threads=1)
    random = np.random.default_rng(1)
    lengths = (1, 2, 3, 7, 8, 9, 30, LONGEST - 1, LONGEST, 5, 5)
    texts = [random.integers(0, VOCABULARY, length).astype(np.int32) for length in lengths]
    expected = np.stack([oracle(text) for text in texts])
    together = engine.embed(texts).matrix
    alone = np.concatenate([engine.embed([text]).matrix for text in texts])
    for vectors in (together, alone):
        lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(expected, axis=1)
        assert ((vectors * expected).sum(axis=1) / lengths).min() >= 0.99999
        np.testing.assert_allclose(vectors, expected, atol=1e-4 * np.abs(expected).max())


def test_another_feed_forward_layer_is_refused(tmp_path):
    make(tmp_path, 4)
    change_json(tmp_path / "config.json", feed_forward_type="reglu")
    with pytest.raises(ModelError, match="feed_forward_type"):
        read_folder(tmp_path)
