"""A model folder's weights as an OpenVINO graph, built op by op.

From token ids to finished vectors in one graph: embeddings, encoder layers, pooling, and whatever
steps the folder lists after it. The constants are views of the mapped weight files, so building
copies nothing; neither torch nor a conversion is involved.

Written for the CPU plugin: int32 ids, one additive mask broadcast over heads, the fused attention op,
layer norm as mean-variance normalization. Texts lie side by side in rows (see plan.py). Linear layers,
norms and activations work on the last axis only and do not notice; the mask keeps each text from
seeing its neighbours, and the pooling picks out what is its own.

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
"""Added to the score of a place that a token must not see: far below any score, and still finite as a
float16."""

WORDS = "embeddings.word_embeddings.weight"


class Batch(NamedTuple):
    """The graph's view of its inputs: R rows of C places, in which T texts lie side by side.

    Attributes:
        ids, positions, segments, starts, lengths: see packing.Inputs.
        places: int32 [T, L], where the tokens of each text are, counted through all rows; L is the
            length of the longest text, and shorter ones repeat their last place.
        real: float32 [T, L, 1], 1 where a text has a token, 0 beyond its end.
    """

    ids: Node
    positions: Node
    segments: Node
    starts: Node
    lengths: Node
    places: Node
    real: Node


class Graph(NamedTuple):
    """A model as a graph: the arrays of packing.Inputs to the texts' vectors, float32 [T, dimensions].

    Its second result, float32 [R], is finite for the rows of which every place is. Elsewhere all
    texts of the row may be wrong: a neighbour's NaN is weighed with zero, and not always stays NaN.

    The graph and whatever is compiled from it refer to the mapped files of `weights` without keeping
    them mapped: whoever uses either must keep `weights` too.
    """

    model: ov.Model
    weights: list[Weights]


def build_graph(folder: ModelFolder) -> Graph:
    """The graph of the model in a folder.

    Raises:
        ModelError: a tensor is missing or does not have the shape that the folder implies.
    """
    inputs = [
        ops.parameter(ov.PartialShape([-1] * axes), ov.Type.i32, name=name)
        for name, axes in (("ids", 2), ("positions", 2), ("segments", 2), ("starts", 1), ("lengths", 1))
    ]
    batch = _batch(*inputs)
    weights = [Weights.of(folder.path)]
    tokens = _encode(batch, folder.encoder, weights[0])
    vectors = _finish(tokens, batch, folder, weights)
    # What is not finite in any layer is carried on by the residual connections, and kept by the sum.
    sums = ops.reduce_sum(tokens, _ints(1, 2))
    return Graph(ov.Model([ops.result(vectors), ops.result(sums)], inputs, "encoder"), weights)


def _batch(ids: Node, positions: Node, segments: Node, starts: Node, lengths: Node) -> Batch:
    longest = ops.reduce_max(lengths, _ints(0))
    steps = ops.unsqueeze(ops.range(_int(0), longest, _int(1), "i32"), _ints(0))
    real = ops.convert(ops.less(steps, ops.unsqueeze(lengths, _ints(1))), "f32")
    last = ops.unsqueeze(ops.subtract(lengths, _int(1)), _ints(1))
    places = ops.add(ops.unsqueeze(starts, _ints(1)), ops.minimum(steps, last))
    return Batch(ids, positions, segments, starts, lengths, places, ops.unsqueeze(real, _ints(2)))


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
    """Token vectors, float32 [R, C, hidden]."""
    layers = _Layers(weights, weights.prefix_of(WORDS), encoder.epsilon)
    # Query by key: a token sees those of its own text. Padding sees padding, so no row is without any.
    queries, keys = ops.unsqueeze(batch.segments, _ints(2)), ops.unsqueeze(batch.segments, _ints(1))
    others = ops.convert(ops.not_equal(queries, keys), "f32")
    mask = ops.unsqueeze(ops.multiply(others, _float(MASKED)), _ints(1))
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
    x = ops.add(x, ops.gather(table, batch.positions, _int(0)))
    return layers.norm(x, "embeddings.LayerNorm", hidden)


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
    """Text vectors, float32 [T, dimensions]; adds the steps' weights to `weights`."""
    x = ops.reshape(tokens, _ints(-1, folder.encoder.hidden), False)
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
    """One vector a text from the vectors of all places, [R * C, hidden]."""
    if mode == "cls":
        return ops.gather(tokens, batch.starts, _int(0))
    if mode == "lasttoken":
        last = ops.subtract(ops.add(batch.starts, batch.lengths), _int(1))
        return ops.gather(tokens, last, _int(0))
    own = ops.gather(tokens, batch.places, _int(0))  # [T, L, hidden]
    real = batch.real
    if mode == "max":
        beyond = ops.multiply(ops.subtract(_float(1), real), _float(np.finfo(np.float32).min))
        return ops.reduce_max(ops.add(own, beyond), _ints(1))
    if mode == "weightedmean":
        real = ops.multiply(real, ops.cum_sum(real, _int(1)))
    total = ops.reduce_sum(ops.multiply(own, real), _ints(1))
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
