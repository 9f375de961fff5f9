"""A model folder as an OpenVINO graph, built op by op.

From token ids to finished vectors in one graph: embeddings, encoder layers, pooling, and whatever
steps the folder lists after it. The constants are views of the mapped weight files, so building
copies nothing; neither torch nor a conversion is involved. Where the encoder has been exported, its
graph takes the place of embeddings and layers.

Written for the CPU plugin: int32 ids, one additive mask broadcast over heads, the fused attention op,
layer norm as mean-variance normalization. Texts lie side by side in rows (see plan.py); the encoder
keeps them apart, and the pooling picks out what is each text's own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import openvino as ov  # type: ignore[import-untyped]
from openvino import opset15 as ops

from llmrs.models.architectures import Encoder
from llmrs.models.encoder import encode
from llmrs.models.exported import Exported
from llmrs.models.folder import ModelFolder
from llmrs.models.foreign import Encoded, encode_foreign
from llmrs.models.modules import Dense, LayerNorm, Normalize, Pooling
from llmrs.models.nodes import Layers, Node, activate, float_, int_, ints
from llmrs.models.plan import Layout
from llmrs.models.weights import Weights

TORCH_EPSILON = 1e-5
"""What torch.nn.LayerNorm adds to the variance, unless it is told otherwise."""


class Batch(NamedTuple):
    """The graph's view of its inputs: R rows of C places, in which T texts lie side by side.

    Attributes:
        starts, lengths: see packing.Inputs.
        places: int32 [T, L], where the tokens of each text are, counted through all rows; L is the
            length of the longest text, and shorter ones repeat their last place.
        real: float32 [T, L, 1], 1 where a text has a token, 0 beyond its end.
    """

    starts: Node
    lengths: Node
    places: Node
    real: Node


class Graph(NamedTuple):
    """A model as a graph: the arrays of packing.Inputs to the texts' vectors, float32 [T, dimensions].

    Its `layout` says which texts it may compute together.

    Its second result, float32 [R], is finite for the rows of which every place is. Elsewhere all
    texts of the row may be wrong: a neighbour's NaN is weighed with zero, and not always stays NaN.

    The graph and whatever is compiled from it refer to the mapped files of `weights` without keeping
    them mapped: whoever uses either must keep `weights` too.
    """

    model: ov.Model
    weights: list[Weights]
    layout: Layout


def build_graph(folder: ModelFolder) -> Graph:
    """The graph of the model in a folder.

    Raises:
        ModelError: a tensor is missing or does not have the shape that the folder implies, or an exported
            graph cannot be read or fed.
    """
    inputs = [
        ops.parameter(ov.PartialShape([-1] * axes), ov.Type.i32, name=name)
        for name, axes in (("ids", 2), ("positions", 2), ("segments", 2), ("starts", 1), ("lengths", 1))
    ]
    ids, positions, segments, starts, lengths = inputs
    batch = _batch(starts, lengths)
    weights: list[Weights] = []
    encoded = _encode(ids, positions, segments, folder, weights)
    vectors = _finish(encoded, batch, folder, weights)
    # What is not finite in any layer is carried on by the residual connections, and kept by the sum.
    sums = ops.reduce_sum(encoded.vectors, ints(1) if encoded.pooled else ints(1, 2))
    model = ov.Model([ops.result(vectors), ops.result(sums)], inputs, "encoder")
    return Graph(model, weights, encoded.layout)


def _encode(
    ids: Node, positions: Node, segments: Node, folder: ModelFolder, weights: list[Weights]
) -> Encoded:
    """The encoder's vectors; adds its weights to `weights`."""
    encoder = folder.encoder
    if isinstance(encoder, Exported):
        return encode_foreign(ids, positions, segments, encoder, folder.full_width)
    assert isinstance(encoder, Encoder)  # see open_engine
    weights.append(Weights.of(folder.path))
    tokens = encode(ids, positions, segments, encoder, weights[0], folder.max_tokens)
    return Encoded(tokens, pooled=False, layout="packed")


def _batch(starts: Node, lengths: Node) -> Batch:
    longest = ops.reduce_max(lengths, ints(0))
    steps = ops.unsqueeze(ops.range(int_(0), longest, int_(1), "i32"), ints(0))
    real = ops.convert(ops.less(steps, ops.unsqueeze(lengths, ints(1))), "f32")
    last = ops.unsqueeze(ops.subtract(lengths, int_(1)), ints(1))
    places = ops.add(ops.unsqueeze(starts, ints(1)), ops.minimum(steps, last))
    return Batch(starts, lengths, places, ops.unsqueeze(real, ints(2)))


# -- from token vectors to text vectors -----------------------------------------------------------


def _finish(encoded: Encoded, batch: Batch, folder: ModelFolder, weights: list[Weights]) -> Node:
    """Text vectors, float32 [T, dimensions]; adds the steps' weights to `weights`."""
    steps = folder.steps
    if encoded.pooled:
        # Of the rows the last may hold no text. A normalization may be part of the graph or not: two are one.
        x = ops.slice(encoded.vectors, ints(0), ops.shape_of(batch.starts, "i32"), ints(1), ints(0))
        steps = tuple(step for step in steps if isinstance(step, Normalize))
    else:
        x = ops.reshape(encoded.vectors, ints(-1, folder.encoder.hidden), False)
    for step in steps:
        if isinstance(step, Pooling):
            pooled = [_pool(x, batch, mode) for mode in step.modes]
            x = pooled[0] if len(pooled) == 1 else ops.concat(pooled, -1)
        elif isinstance(step, Dense):
            weights.append(Weights.of(step.folder))
            linear = Layers(weights[-1]).linear(x, "linear", step.inputs, step.outputs, bias=step.bias)
            x = activate(linear, step.activation)
            weights[-1].check_all_known()
        elif isinstance(step, LayerNorm):
            weights.append(Weights.of(step.folder))
            x = Layers(weights[-1]).layer_norm(x, "norm", step.width, TORCH_EPSILON)
            weights[-1].check_all_known()
        elif isinstance(step, Normalize):
            # The sum of squares is compared, so this is 1e-12 for the length, as in torch.
            x = ops.normalize_l2(x, ints(-1), 1e-24, "max")
    if folder.cut:
        x = ops.slice(x, ints(0), ints(folder.cut), ints(1), ints(1))
    return x


def _pool(tokens: Node, batch: Batch, mode: str) -> Node:
    """One vector a text from the vectors of all places, [R * C, hidden]."""
    if mode == "cls":
        return ops.gather(tokens, batch.starts, int_(0))
    if mode == "lasttoken":
        last = ops.subtract(ops.add(batch.starts, batch.lengths), int_(1))
        return ops.gather(tokens, last, int_(0))
    own = ops.gather(tokens, batch.places, int_(0))  # [T, L, hidden]
    real = batch.real
    if mode == "max":
        beyond = ops.multiply(ops.subtract(float_(1), real), float_(np.finfo(np.float32).min))
        return ops.reduce_max(ops.add(own, beyond), ints(1))
    if mode == "weightedmean":
        real = ops.multiply(real, ops.cum_sum(real, int_(1)))
    total = ops.reduce_sum(ops.multiply(own, real), ints(1))
    weight = ops.reduce_sum(real, ints(1))
    return ops.divide(total, ops.sqrt(weight) if mode == "mean_sqrt_len_tokens" else weight)
