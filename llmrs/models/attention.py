"""Attention in the graph: who sees whom, how far apart they are, and where they stand.

Texts lie side by side in rows, each in one piece. So the distance of two tokens of a text is that of
their columns, the same for all rows, and one mask keeps each text from seeing its neighbours.

What belongs to a position or a distance is looked up in tables made here in float64: computing it in
the graph would lose far positions where the graph computes in bfloat16.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from openvino import opset15 as ops  # type: ignore[import-untyped]

from llmrs.models.architectures import Encoder, Layer, Name, Rope, below
from llmrs.models.nodes import Layers, Node, float_, int_, ints

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[Any]

MASKED = -65504.0
"""Added to the score of a place that a token must not see: far below any score, and still finite as a
float16."""

BUCKETS = 32
BUCKETED_DISTANCE = 128
"""MPNet's: distances from here on share a bucket."""


class Attention:
    """What the layers of one encoder share: masks by reach, and rotations by rope.

    Args:
        positions, segments: see packing.Inputs.
        longest: tokens of the longest text.
    """

    def __init__(
        self, positions: Node, segments: Node, encoder: Encoder, weights: Layers, longest: int
    ) -> None:
        self._positions = positions
        self._encoder = encoder
        self._weights = weights
        self._longest = longest
        # Query by key: a token sees those of its own text. Padding sees padding, so no row is without any.
        self._strangers = ops.not_equal(ops.unsqueeze(segments, ints(2)), ops.unsqueeze(segments, ints(1)))
        columns = ops.squeeze(ops.slice(ops.shape_of(segments, "i32"), ints(1), ints(2), ints(1)), ints(0))
        order = ops.range(int_(0), columns, int_(1), "i32")
        self._queries, self._keys = ops.unsqueeze(order, ints(1)), ops.unsqueeze(order, ints(0))
        self._bias = self._distance_bias() if encoder.distance_bias else None
        self._masks: dict[int | None, Node] = {}
        self._rotations: dict[Rope, tuple[Node, Node]] = {}

    def __call__(self, x: Node, layer: Layer) -> Node:
        """The attention branch of a layer, [R, C, hidden] to [R, C, heads * head_width]."""
        encoder, names = self._encoder, self._encoder.names
        query = self._split(x, layer, names.query, encoder.heads, names.query_norm)
        key = self._split(x, layer, names.key, encoder.key_heads, names.key_norm)
        value = self._split(x, layer, names.value, encoder.key_heads, None)
        if layer.rope is not None:
            query, key = self._turn(query, layer.rope), self._turn(key, layer.rope)
        key, value = self._share(key), self._share(value)
        scale = () if encoder.score_scale is None else (float_(encoder.score_scale),)
        mixed = ops.scaled_dot_product_attention(query, key, value, self._mask(layer.reach), *scale)
        width = encoder.heads * encoder.head_width
        return ops.reshape(ops.transpose(mixed, ints(0, 2, 1, 3)), ints(0, 0, width), True)

    def _split(self, x: Node, layer: Layer, name: Name, heads: int, norm: str | None) -> Node:
        """Projected and split into heads, [R, heads, C, head_width]."""
        encoder, width = self._encoder, self._encoder.head_width
        part = below(layer.prefix, name)
        projected = self._weights.linear(x, part, encoder.hidden, heads * width, bias=encoder.attention_bias)
        split = ops.reshape(projected, ints(0, 0, heads, width), True)
        if norm is not None:
            split = self._weights.norm(split, layer.prefix + norm, width, encoder)
        return ops.transpose(split, ints(0, 2, 1, 3))

    def _share(self, x: Node) -> Node:
        """Keys or values repeated for the heads that share them."""
        encoder = self._encoder
        if encoder.key_heads == encoder.heads:
            return x
        sharers = encoder.heads // encoder.key_heads
        return ops.gather(x, ints(*(head // sharers for head in range(encoder.heads))), int_(1))

    # -- who sees whom --------------------------------------------------------------------------------

    def _mask(self, reach: int | None) -> Node:
        """What is added to scores: float32 [R, 1, C, C], or [R, heads, C, C] with a bias."""
        if reach not in self._masks:
            unseen = self._strangers
            if reach is not None:
                late = ops.greater(self._keys, ops.add(self._queries, int_(reach)))
                early = ops.less(self._keys, ops.subtract(self._queries, int_(reach)))
                unseen = ops.logical_or(unseen, ops.logical_or(late, early))
            if self._encoder.causal:
                unseen = ops.logical_or(unseen, ops.greater(self._keys, self._queries))
            mask = ops.multiply(ops.convert(unseen, "f32"), float_(MASKED))
            mask = ops.unsqueeze(mask, ints(1))
            self._masks[reach] = mask if self._bias is None else ops.add(mask, self._bias)
        return self._masks[reach]

    def _distance_bias(self) -> Node:
        """float32 [heads, C, C]."""
        encoder = self._encoder
        distances = np.arange(1 - self._longest, self._longest)
        if encoder.distance_bias == "alibi":
            table = ops.constant(_alibi(distances, encoder.heads))
        else:
            assert encoder.names.distance_bias is not None
            learned = self._weights.constant(encoder.names.distance_bias, "weight", BUCKETS, encoder.heads)
            table = ops.gather(learned, ops.constant(_buckets(distances)), int_(0))
        rows = ops.add(ops.subtract(self._keys, self._queries), int_(self._longest - 1))
        return ops.transpose(ops.gather(table, rows, int_(0)), ints(2, 0, 1))

    # -- rotary position embedding --------------------------------------------------------------------

    def _turn(self, x: Node, rope: Rope) -> Node:
        """Each head's numbers i and i + head_width / 2 turned as a pair."""
        cosines, sines = self._rotation(rope)
        half = self._encoder.head_width // 2
        # In these ops OpenVINO recognizes the whole and fuses it; with axis -1 it does not.
        first, second = ops.variadic_split(x, int_(3), ints(half, half)).outputs()
        turned = ops.concat([ops.multiply(second, float_(-1)), first], -1)
        return ops.add(ops.multiply(x, cosines), ops.multiply(turned, sines))

    def _rotation(self, rope: Rope) -> tuple[Node, Node]:
        """Cosines and sines of the angles at each place, float32 [R, 1, C, head_width]."""
        if rope not in self._rotations:
            angles = _angles(rope, self._longest, self._encoder.head_width)
            tables = [ops.constant(function(angles).astype(np.float32)) for function in (np.cos, np.sin)]
            cosines, sines = (
                ops.unsqueeze(ops.gather(table, self._positions, int_(0)), ints(1)) for table in tables
            )
            self._rotations[rope] = cosines, sines
        return self._rotations[rope]


def _angles(rope: Rope, positions: int, width: int) -> Floats:
    """[positions, width]; both numbers of a pair have the same."""
    speeds = rope.theta ** (-np.arange(0, width, 2) / width) / rope.factor
    angles: Floats = np.outer(np.arange(positions), speeds)
    return np.concatenate([angles, angles], axis=1)


def _alibi(distances: Ints, heads: int) -> NDArray[np.float32]:
    """ALiBi (Press et al., 2022), symmetric: float32 [distances, heads]."""
    bias: NDArray[np.float32] = (-np.abs(distances)[:, None] * np.array(_slopes(heads))).astype(np.float32)
    return bias


def _slopes(heads: int) -> list[float]:
    """A geometric series; numbers of heads that are no power of two take every other of the next ones."""
    power = 1 << (heads.bit_length() - 1)
    series = [2.0 ** (-8 * (head + 1) / power) for head in range(power)]
    between = [2.0 ** (-8 * (head + 1) / (2 * power)) for head in range(0, 2 * power, 2)]
    return series + between[: heads - power]


def _buckets(distances: Ints) -> Ints:
    """T5's buckets for both directions: a half each, its first half exact, the rest by logarithm.

    In float32 like the original, because rounding decides where the borders are.
    """
    half, exact = BUCKETS // 2, BUCKETS // 4
    away = np.abs(distances)
    with np.errstate(divide="ignore"):
        scaled = np.log(away.astype(np.float32) / np.float32(exact)) / np.float32(
            math.log(BUCKETED_DISTANCE / exact)
        )
    far = exact + np.maximum(scaled * np.float32(half - exact), 0).astype(np.int32)
    bucket = np.where(away < exact, away, np.minimum(far, half - 1))
    return np.where(distances > 0, bucket + half, bucket).astype(np.int32)
