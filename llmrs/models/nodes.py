"""Small pieces of graphs: constants, layers that have weights, activations."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import openvino as ov  # type: ignore[import-untyped]
from openvino import opset15 as ops

from llmrs.models.architectures import Encoder, Name, Part
from llmrs.models.weights import Tensor, Weights

Node: TypeAlias = Any
"""An OpenVINO node; its ops are generated, and typed too loosely to help."""


class Layers:
    """The layers that have weights, fetched by name. Each tensor becomes one constant, used or shared."""

    def __init__(self, weights: Weights, prefix: str = "") -> None:
        self._weights = weights
        self._prefix = prefix
        self._constants: dict[tuple[Name, str], Node] = {}

    def constant(self, name: Name, kind: str, *shape: int) -> Node:
        """The tensor `name`.`kind`, or the part of it, as float32."""
        known = self._constants.get((name, kind))
        if known is None:
            known = self._constants[name, kind] = _constant(self._get(name, kind, shape))
        return known

    def linear(self, x: Node, name: Name, inputs: int, outputs: int, *, bias: bool = True) -> Node:
        product = ops.matmul(x, self.constant(name, "weight", outputs, inputs), False, True)
        return ops.add(product, self.constant(name, "bias", outputs)) if bias else product

    def norm(self, x: Node, name: str, width: int, encoder: Encoder) -> Node:
        """The last axis normalized, as the encoder's norms are."""
        if encoder.norm == "layer":
            return self.layer_norm(x, name, width, encoder.epsilon, bias=encoder.norm_bias)
        weight = self.constant(name, "weight", width)
        if encoder.norm == "rms_plus_one":
            weight = ops.add(weight, float_(1))
        return ops.multiply(ops.multiply(x, _inverse_rms(x, encoder.epsilon)), weight)

    def layer_norm(self, x: Node, name: str, width: int, epsilon: float, *, bias: bool = True) -> Node:
        """The last axis less its mean, over its deviation; scaled and shifted."""
        weight = self.constant(name, "weight", width)
        scaled = ops.multiply(ops.mvn(x, ints(-1), True, epsilon, "inside_sqrt"), weight)
        return ops.add(scaled, self.constant(name, "bias", width)) if bias else scaled

    def _get(self, name: Name, kind: str, shape: tuple[int, ...]) -> Tensor:
        if not isinstance(name, Part):
            return self._weights.get(f"{self._prefix}{name}.{kind}", shape)
        rows, *others = shape
        whole = self._weights.get(f"{self._prefix}{name.name}.{kind}", (name.of * rows, *others))
        return Tensor(whole.dtype, whole.data[name.index * rows : (name.index + 1) * rows])


def _inverse_rms(x: Node, epsilon: float) -> Node:
    """1 / sqrt(mean(x ** 2) + epsilon). In these ops, which OpenVINO fuses into one."""
    mean = ops.reduce_mean(ops.power(x, float_(2)), ints(-1), True)
    return ops.divide(float_(1), ops.sqrt(ops.add(mean, float_(epsilon))))


def activate(x: Node, name: str) -> Node:
    if name == "gelu":
        return ops.gelu(x, "erf")
    if name == "gelu_tanh":
        return ops.gelu(x, "tanh")
    simple = {"relu": ops.relu, "silu": ops.swish, "tanh": ops.tanh, "identity": lambda same: same}
    return simple[name](x)


def _constant(tensor: Tensor) -> Node:
    """A tensor of the files, shared and not copied, as float32."""
    if tensor.dtype == "F32":
        return ops.constant(tensor.data, shared_memory=True)
    kind = ov.Type.bf16 if tensor.dtype == "BF16" else ov.Type.f16
    shared = ov.Tensor(tensor.data, ov.Shape(tensor.data.shape), kind)
    return ops.convert(ops.constant(shared, shared_memory=True), "f32")


def int_(value: int) -> Node:
    return ops.constant(np.int32(value))


def ints(*values: int) -> Node:
    return ops.constant(np.array(values, np.int32))


def float_(value: float) -> Node:
    return ops.constant(np.float32(value))


def reason(error: Exception) -> str:
    """Why OpenVINO failed: the last of the lines of its message, the others say where in its sources."""
    return str(error).strip().splitlines()[-1].strip(" -")[:200]
