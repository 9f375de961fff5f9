"""A model folder's weights as an OpenVINO graph, built op by op.

From token ids to finished vectors in one graph: embeddings, encoder layers, pooling, and whatever
steps the folder lists after it. The constants are views of the mapped weight files, so building
copies nothing; neither torch nor a conversion is involved.

Written for the CPU plugin: int32 ids, one additive mask broadcast over heads and queries, the fused
attention op, layer norm as mean-variance normalization. Linear layers, norms and activations work on
the last axis only; `_attention` and the pooling are the only places that know rows from columns.

Source of the arithmetic: "BERT" (Devlin et al., 2018) as Hugging Face transformers 5 computes it.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import openvino as ov  # type: ignore[import-untyped]
from openvino import opset15 as ops

from llmrs.models.architectures import Encoder
from llmrs.models.folder import Dense, ModelFolder, Normalize, Pooling
from llmrs.models.weights import Tensor, Weights

Node: TypeAlias = Any
"""An OpenVINO node; its ops are generated, and typed too loosely to help."""

MASKED = -65504.0
"""Added to the score of a padded place: far below any score, and still finite as a float16."""

WORDS = "embeddings.word_embeddings.weight"


class Batch(NamedTuple):
    """The graph's view of its inputs: B texts of up to S tokens.

    Attributes:
        ids: int32 [B, S].
        lengths: int32 [B], tokens of each text.
        columns: int32 [1], S.
        real: float32 [B, S], 1 where there is a token, 0 where there is padding.
    """

    ids: Node
    lengths: Node
    columns: Node
    real: Node


class Graph(NamedTuple):
    """A model as a graph: (`ids` int32 [B, S], `lengths` int32 [B]) to float32 [B, dimensions].

    Ids beyond a text's length are ignored; every length is at least 1. The graph and whatever is
    compiled from it refer to the mapped files of `weights` without keeping them mapped: whoever
    uses either must keep `weights` too.
    """

    model: ov.Model
    weights: list[Weights]


def build_graph(folder: ModelFolder) -> Graph:
    """The graph of the model in a folder.

    Raises:
        ModelError: a tensor is missing or does not have the shape that the folder implies.
    """
    ids = ops.parameter(ov.PartialShape([-1, -1]), ov.Type.i32, name="ids")
    lengths = ops.parameter(ov.PartialShape([-1]), ov.Type.i32, name="lengths")
    batch = _batch(ids, lengths)
    weights = [Weights.of(folder.path)]
    tokens = _encode(batch, folder.encoder, weights[0])
    vectors = _finish(tokens, batch, folder, weights)
    return Graph(ov.Model([ops.result(vectors)], [ids, lengths], "encoder"), weights)


def _batch(ids: Node, lengths: Node) -> Batch:
    columns = ops.gather(ops.shape_of(ids, "i32"), _ints(1), _int(0))
    places = ops.range(_int(0), ops.squeeze(columns, _ints(0)), _int(1), "i32")
    real = ops.less(ops.unsqueeze(places, _ints(0)), ops.unsqueeze(lengths, _ints(1)))
    return Batch(ids, lengths, columns, ops.convert(real, "f32"))


# -- the encoder ----------------------------------------------------------------------------------


class _Layers:
    """The two layers that have weights, fetched by name."""

    def __init__(self, weights: Weights, prefix: str, epsilon: float) -> None:
        self._weights = weights
        self._prefix = prefix
        self._epsilon = epsilon

    def constant(self, name: str, *shape: int) -> Node:
        return _constant(self._weights.get(self._prefix + name, shape))

    def linear(self, x: Node, name: str, inputs: int, outputs: int, *, bias: bool = True) -> Node:
        product = ops.matmul(x, self.constant(f"{name}.weight", outputs, inputs), False, True)
        return ops.add(product, self.constant(f"{name}.bias", outputs)) if bias else product

    def norm(self, x: Node, name: str, width: int) -> Node:
        centred = ops.mvn(x, _ints(-1), True, self._epsilon, "inside_sqrt")
        scaled = ops.multiply(centred, self.constant(f"{name}.weight", width))
        return ops.add(scaled, self.constant(f"{name}.bias", width))


def _encode(batch: Batch, encoder: Encoder, weights: Weights) -> Node:
    """Token vectors, float32 [B, S, hidden]."""
    layers = _Layers(weights, weights.prefix_of(WORDS), encoder.epsilon)
    padding = ops.multiply(ops.subtract(_float(1), batch.real), _float(MASKED))
    mask = ops.unsqueeze(padding, _ints(1, 2))
    x = _embed(batch, encoder, layers)
    for index in range(encoder.layers):
        x = _layer(x, mask, encoder, layers, encoder.names.layer.format(index))
    return x


def _embed(batch: Batch, encoder: Encoder, layers: _Layers) -> Node:
    """Words, token type 0 and positions, normalized."""
    hidden = encoder.hidden
    x = ops.gather(layers.constant(WORDS, encoder.vocabulary, hidden), batch.ids, _int(0))
    if encoder.token_types:
        types = layers.constant("embeddings.token_type_embeddings.weight", encoder.token_types, hidden)
        x = ops.add(x, ops.gather(types, _int(0), _int(0)))
    table = layers.constant("embeddings.position_embeddings.weight", encoder.positions, hidden)
    if encoder.positions_skip_padding:
        positions = ops.gather(table, _counted_positions(batch, encoder.padding_id), _int(0))
    else:
        positions = ops.slice(table, _ints(0), batch.columns, _ints(1), _ints(0))
    return layers.norm(ops.add(x, positions), "embeddings.LayerNorm", hidden)


def _counted_positions(batch: Batch, padding_id: int) -> Node:
    """RoBERTa's positions, int32 [B, S]: the n-th id that is not padding has padding_id + n.

    A text may contain the padding token itself, which then has position `padding_id` and is not
    counted.
    """
    counts = ops.convert(ops.not_equal(batch.ids, _int(padding_id)), "i32")
    return ops.add(ops.multiply(ops.cum_sum(counts, _int(1)), counts), _int(padding_id))


def _layer(x: Node, mask: Node, encoder: Encoder, layers: _Layers, prefix: str) -> Node:
    names, hidden, inner = encoder.names, encoder.hidden, encoder.intermediate
    attended = _attention(x, mask, encoder, layers, prefix)
    attended = layers.linear(attended, prefix + names.attention_output, hidden, hidden)
    x = layers.norm(ops.add(attended, x), prefix + names.attention_norm, hidden)
    wide = _activate(layers.linear(x, prefix + names.up, hidden, inner), encoder.activation)
    narrow = layers.linear(wide, prefix + names.down, inner, hidden)
    return layers.norm(ops.add(narrow, x), prefix + names.output_norm, hidden)


def _attention(x: Node, mask: Node, encoder: Encoder, layers: _Layers, prefix: str) -> Node:
    heads, width = encoder.heads, encoder.hidden // encoder.heads

    def split(name: str) -> Node:
        projected = layers.linear(x, prefix + name, encoder.hidden, encoder.hidden)
        return ops.transpose(ops.reshape(projected, _ints(0, 0, heads, width), True), _ints(0, 2, 1, 3))

    names = encoder.names
    query, key, value = split(names.query), split(names.key), split(names.value)
    mixed = ops.scaled_dot_product_attention(query, key, value, mask)
    return ops.reshape(ops.transpose(mixed, _ints(0, 2, 1, 3)), _ints(0, 0, encoder.hidden), True)


def _activate(x: Node, name: str) -> Node:
    if name == "gelu":
        return ops.gelu(x, "erf")
    if name == "gelu_tanh":
        return ops.gelu(x, "tanh")
    simple = {"relu": ops.relu, "silu": ops.swish, "tanh": ops.tanh, "identity": lambda same: same}
    return simple[name](x)


# -- from token vectors to text vectors -----------------------------------------------------------


def _finish(tokens: Node, batch: Batch, folder: ModelFolder, weights: list[Weights]) -> Node:
    """Text vectors, float32 [B, dimensions]; adds the steps' weights to `weights`."""
    x = tokens
    for step in folder.steps:
        if isinstance(step, Pooling):
            pooled = [_pool(x, batch, mode) for mode in step.modes]
            x = pooled[0] if len(pooled) == 1 else ops.concat(pooled, -1)
        elif isinstance(step, Dense):
            weights.append(Weights.of(step.folder))
            layers = _Layers(weights[-1], "", 0.0)
            linear = layers.linear(x, "linear", step.inputs, step.outputs, bias=step.bias)
            x = _activate(linear, step.activation)
        elif isinstance(step, Normalize):
            # The sum of squares is compared, so this is 1e-12 for the length, as in torch.
            x = ops.normalize_l2(x, _ints(-1), 1e-24, "max")
    if folder.cut:
        x = ops.slice(x, _ints(0), _ints(folder.cut), _ints(1), _ints(1))
    return x


def _pool(tokens: Node, batch: Batch, mode: str) -> Node:
    """One vector a text from its token vectors [B, S, hidden], padding left out."""
    if mode == "cls":
        return ops.gather(tokens, _int(0), _int(1))
    if mode == "lasttoken":
        last = ops.unsqueeze(ops.subtract(batch.lengths, _int(1)), _ints(1))
        return ops.squeeze(ops.gather(tokens, last, _int(1), 1), _ints(1))
    real = ops.unsqueeze(batch.real, _ints(2))
    if mode == "max":
        padding = ops.multiply(ops.subtract(_float(1), real), _float(np.finfo(np.float32).min))
        return ops.reduce_max(ops.add(tokens, padding), _ints(1))
    if mode == "weightedmean":
        places = ops.cum_sum(real, _int(1))
        real = ops.multiply(real, places)
    total = ops.reduce_sum(ops.multiply(tokens, real), _ints(1))
    weight = ops.reduce_sum(real, _ints(1))
    return ops.divide(total, ops.sqrt(weight) if mode == "mean_sqrt_len_tokens" else weight)


# -- constants ------------------------------------------------------------------------------------


def _constant(tensor: Tensor) -> Node:
    """A tensor of the files, shared and not copied, as float32."""
    if tensor.dtype == "F32":
        return ops.constant(tensor.data, shared_memory=True)
    kind = ov.Type.bf16 if tensor.dtype == "BF16" else ov.Type.f16
    shared = ov.Tensor(tensor.data, ov.Shape(tensor.data.shape), kind)
    return ops.convert(ops.constant(shared, shared_memory=True), "f32")


def _int(value: int) -> Node:
    return ops.constant(np.int32(value))


def _ints(*values: int) -> Node:
    return ops.constant(np.array(values, np.int32))


def _float(value: float) -> Node:
    return ops.constant(np.float32(value))
