"""An encoder in float64 NumPy, one text at a time: no batches, no padding, no masks.

Written from the papers and from transformers' and sentence-transformers' documented behaviour, and
deliberately sharing no line with llmrs.models. Models are given as plain data, see `makers`.
"""

from __future__ import annotations

import math

import numpy as np

ERF = np.vectorize(math.erf, otypes=[np.float64])


def gelu(x):
    return x * 0.5 * (1 + ERF(x / math.sqrt(2)))


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = {
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "swish": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "identity": lambda x: x,
}

BERT_NAMES = {
    "layer": "encoder.layer.{}.",
    "qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "out": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm2": "output.LayerNorm",
}
DISTILBERT_NAMES = {
    "layer": "transformer.layer.{}.",
    "qkv": ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    "out": "attention.out_lin",
    "norm1": "sa_layer_norm",
    "up": "ffn.lin1",
    "down": "ffn.lin2",
    "norm2": "output_layer_norm",
}


def softmax(x):
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


class Oracle:
    """`sizes`: layers, heads, epsilon, activation, and `padding_id` where positions skip padding."""

    def __init__(self, kind, sizes, tensors, steps):
        self.names = DISTILBERT_NAMES if kind == "distilbert" else BERT_NAMES
        self.sizes = sizes
        self.tensors = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
        self.steps = steps

    def __call__(self, ids):
        """The vector of one text, given all of its token ids."""
        x = self.encode(np.asarray(ids))
        for name, *settings in self.steps:
            x = getattr(self, name)(x, *settings)
        return x

    def linear(self, x, name):
        return x @ self.tensors[name + ".weight"].T + self.tensors[name + ".bias"]

    def layer_norm(self, x, name):
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + self.sizes["epsilon"])
        return scaled * self.tensors[name + ".weight"] + self.tensors[name + ".bias"]

    def positions(self, ids):
        padding_id = self.sizes.get("padding_id")
        if padding_id is None:
            return np.arange(len(ids))
        seen = 0
        positions = []
        for token in ids:
            seen += token != padding_id
            positions.append(padding_id if token == padding_id else padding_id + seen)
        return np.array(positions)

    def encode(self, ids):
        x = self.tensors["embeddings.word_embeddings.weight"][ids]
        x = x + self.tensors["embeddings.position_embeddings.weight"][self.positions(ids)]
        if "embeddings.token_type_embeddings.weight" in self.tensors:
            x = x + self.tensors["embeddings.token_type_embeddings.weight"][0]
        x = self.layer_norm(x, "embeddings.LayerNorm")
        for index in range(self.sizes["layers"]):
            x = self.layer(x, self.names["layer"].format(index))
        return x

    def layer(self, x, prefix):
        names = {key: prefix + name for key, name in self.names.items() if isinstance(name, str)}
        query, key, value = (self.linear(x, prefix + name) for name in self.names["qkv"])
        width = x.shape[1] // self.sizes["heads"]
        mixed = []
        for head in range(self.sizes["heads"]):
            mine = slice(head * width, (head + 1) * width)
            scores = query[:, mine] @ key[:, mine].T / math.sqrt(width)
            mixed.append(softmax(scores) @ value[:, mine])
        x = self.layer_norm(x + self.linear(np.concatenate(mixed, axis=1), names["out"]), names["norm1"])
        wide = ACTIVATIONS[self.sizes["activation"]](self.linear(x, names["up"]))
        return self.layer_norm(x + self.linear(wide, names["down"]), names["norm2"])

    # -- steps ------------------------------------------------------------------------------------

    def pooling(self, x, *modes):
        places = np.arange(1, len(x) + 1)[:, None]
        pooled = {
            "cls": x[0],
            "max": x.max(axis=0),
            "mean": x.mean(axis=0),
            "mean_sqrt_len_tokens": x.sum(axis=0) / math.sqrt(len(x)),
            "weightedmean": (x * places).sum(axis=0) / places.sum(),
            "lasttoken": x[-1],
        }
        return np.concatenate([pooled[mode] for mode in modes])

    def dense(self, x, weight, bias, activation):
        product = weight.astype(np.float64) @ x
        return ACTIVATIONS[activation](product if bias is None else product + bias.astype(np.float64))

    def normalize(self, x):
        return x / max(float(np.linalg.norm(x)), 1e-12)

    def cut(self, x, width):
        return x[:width]
