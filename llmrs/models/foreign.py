"""An exported graph in the place of the encoder: read, fed from our inputs, and asked for its vectors.

The graph stays as it is. Its parameters become nodes that compute them from ours (see packing.Inputs), and
what would be its results goes on into the pooling, so that everything around the encoder is the same for all
models. Each row holds one text: what keeps two of them apart in a row cannot be told to such a graph.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import openvino as ov  # type: ignore[import-untyped]
from openvino import opset15 as ops

from llmrs.errors import ModelError
from llmrs.models.exported import Exported
from llmrs.models.external import with_weights
from llmrs.models.nodes import Node, int_, reason
from llmrs.models.plan import Layout

TOKEN_VECTORS = ("last_hidden_state", "token_embeddings")
"""What exporters call the encoder's result, [R, C, hidden]."""

TEXT_VECTORS = "sentence_embedding"
"""What they call the result of all steps of a sentence-transformers model, [R, dimensions]."""

REDUCTIONS = ("ReduceMax", "ReduceMin", "ReduceMean", "ReduceSum")
"""Operations that make one number of many."""


class Encoded(NamedTuple):
    """What an encoder computes.

    Attributes:
        vectors: float32, [R, C, hidden], or [R, dimensions] if it is `pooled`.
        pooled: whether all steps of the model but a normalization have been done.
        layout: which texts may be computed together.
    """

    vectors: Node
    pooled: bool
    layout: Layout


def encode_foreign(ids: Node, positions: Node, segments: Node, exported: Exported, width: int) -> Encoded:
    """The vectors of an exported graph.

    Args:
        ids, positions, segments: see packing.Inputs.
        width: of the model's vectors before they are cut.

    Raises:
        ModelError: the file cannot be read, or the graph is not this encoder's.
    """
    model = _read(exported)
    layout: Layout = "single" if mixes_texts(model) or rounds_activations(model) else "rows"
    _feed(model, ids, positions, segments, exported)
    for name in (*TOKEN_VECTORS, TEXT_VECTORS):
        for output in model.outputs:
            if name in output.get_names():
                pooled = name == TEXT_VECTORS
                vectors = _taken(output, exported, [width] if pooled else [-1, exported.hidden])
                return Encoded(vectors, pooled, layout)
    raise ModelError(
        f"{exported.file}: its outputs are {_names(model.outputs)}, and none is {TOKEN_VECTORS[0]}"
    )


def _read(exported: Exported) -> ov.Model:
    try:
        with with_weights(exported.file) as file:
            return ov.Core().read_model(file)
    except (RuntimeError, OSError) as error:
        raise ModelError(f"{exported.file} cannot be read: {reason(error)}") from None


def _feed(model: ov.Model, ids: Node, positions: Node, segments: Node, exported: Exported) -> None:
    """Put nodes of ours in the place of the graph's parameters."""
    given = {
        "input_ids": ids,
        "attention_mask": _mask(segments),
        "token_type_ids": ops.multiply(ids, int_(0)),
        "position_ids": positions,
    }
    unknown = [each for each in model.inputs if given.keys().isdisjoint(each.get_names())]
    if unknown:
        raise ModelError(
            f"{exported.file}: it asks for {_names(unknown)}, and only {', '.join(given)} are known"
        )
    if not any("attention_mask" in each.get_names() for each in model.inputs):
        raise ModelError(f"{exported.file}: it has no input attention_mask, and would take padding for text")
    for each in model.inputs:
        if not each.get_partial_shape().same_scheme(ov.PartialShape([-1, -1])):
            shape = each.get_partial_shape()
            raise ModelError(
                f"{exported.file}: its input {_names([each])} is {shape}: export it for any batch"
            )
        name = next(name for name in given if name in each.get_names())
        node = ops.convert(given[name], each.get_element_type())
        for reader in each.get_target_inputs():
            reader.replace_source_output(node.output(0))


def _taken(output: Any, exported: Exported, sizes: list[int]) -> Node:
    """What an output would give, as float32 [R, *sizes]."""
    found, expected = output.get_partial_shape(), ov.PartialShape([-1, *sizes])
    if not found.compatible(expected) or found[len(sizes)].is_dynamic:
        raise ModelError(f"{exported.file}: its vectors are {found}, by config.json they would be {expected}")
    return ops.convert(output.get_node().input_value(0), "f32")


def _mask(segments: Node) -> Node:
    """1 where a place has a token, int32 [R, C].

    The first place of a row always counts, also where the row holds no text: a graph may make NaN of a row
    that is nothing but padding.
    """
    columns = ops.gather(ops.shape_of(segments, "i32"), int_(1), int_(0))
    first = ops.equal(ops.range(int_(0), columns, int_(1), "i32"), int_(0))
    return ops.convert(ops.logical_or(ops.greater_equal(segments, int_(0)), first), "i32")


def mixes_texts(model: ov.Model) -> bool:
    """Whether a number is computed from those of all texts, as the scale of a quantization is."""
    return any(
        node.get_type_name() in REDUCTIONS
        and node.get_element_type().is_real()
        and node.get_output_partial_shape(0).rank == 0
        and node.input_value(0).get_partial_shape().rank != 0
        for node in model.get_ops()
    )


def rounds_activations(model: ov.Model) -> bool:
    """Whether numbers are rounded to steps that were found beforehand, by a calibration.

    It has seen texts, mostly without padding: the large negative number that hides padding may be beyond the
    last step, and padded places would be seen.
    """
    rounded = (node.input_value(0) for node in model.get_ops() if node.get_type_name() == "FakeQuantize")
    return any(each.get_node().get_type_name() != "Constant" for each in rounded)


def _names(ports: list[Any]) -> str:
    return ", ".join(sorted(name for port in ports for name in port.get_names()))[:200]
