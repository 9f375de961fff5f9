"""The encoder in the graph: from token ids to token vectors.

Linear layers, norms and activations work on the last axis only and do not notice that texts lie side by
side; what does is in `attention`.

Source of the arithmetic: "BERT" (Devlin et al., 2018), and its successors, as Hugging Face transformers 5
computes them.
"""

from __future__ import annotations

from openvino import opset15 as ops  # type: ignore[import-untyped]

from llmrs.models.architectures import Encoder, Layer, below
from llmrs.models.attention import Attention
from llmrs.models.nodes import Layers, Node, activate, float_, int_
from llmrs.models.weights import Weights


def encode(
    ids: Node, positions: Node, segments: Node, encoder: Encoder, weights: Weights, longest: int
) -> Node:
    """Token vectors, float32 [R, C, hidden].

    Args:
        ids, positions, segments: see packing.Inputs.
        longest: tokens of the longest text.

    Raises:
        ModelError: a tensor is missing, of another shape, or not known.
    """
    prefix = weights.prefix_of(f"{encoder.names.words}.weight", encoder.prefixes)
    block = Block(Layers(weights, prefix), encoder)
    attention = Attention(positions, segments, encoder, block.weights, longest)
    x = block.embed(ids, positions)
    for layer in encoder.layers:
        x = block.layer(x, attention, layer)
    x = block.norm(x, encoder.names.final_norm)
    weights.check_all_known(prefix)
    return x


class Block:
    """The parts of an encoder but its attention."""

    def __init__(self, weights: Layers, encoder: Encoder) -> None:
        self.weights = weights
        self._encoder = encoder

    def norm(self, x: Node, name: str | None, prefix: str = "") -> Node:
        """Normalized, where there is a norm."""
        return x if name is None else self.weights.norm(x, prefix + name, self._encoder.hidden, self._encoder)

    def embed(self, ids: Node, positions: Node) -> Node:
        """Words, token type 0 and positions where they have tables; normalized, widened."""
        encoder, names, weights = self._encoder, self._encoder.names, self.weights
        width = encoder.embedding
        x = ops.gather(weights.constant(names.words, "weight", encoder.vocabulary, width), ids, int_(0))
        if encoder.embedding_scale != 1:
            x = ops.multiply(x, float_(encoder.embedding_scale))
        if encoder.token_types:
            types = weights.constant(names.types, "weight", encoder.token_types, width)
            x = ops.add(x, ops.gather(types, int_(0), int_(0)))
        if encoder.position_table:
            table = weights.constant(names.positions, "weight", encoder.positions, width)
            x = ops.add(x, ops.gather(table, positions, int_(0)))
        if names.embedding_norm is not None:
            x = weights.norm(x, names.embedding_norm, width, encoder)
        return x if names.projection is None else weights.linear(x, names.projection, width, encoder.hidden)

    def layer(self, x: Node, attention: Attention, layer: Layer) -> Node:
        """Both branches, each added to what went past it."""
        encoder, names, prefix = self._encoder, self._encoder.names, layer.prefix
        inner = self.norm(x, names.attention_input_norm, prefix) if layer.input_norm else x
        width = encoder.heads * encoder.head_width
        inner = self.weights.linear(
            attention(inner, layer),
            prefix + names.attention_output,
            width,
            encoder.hidden,
            bias=encoder.attention_bias,
        )
        inner = self.norm(inner, names.attention_branch_norm, prefix)
        x = self.norm(ops.add(inner, x), names.attention_norm, prefix)
        inner = self._feed_forward(self.norm(x, names.feed_forward_input_norm, prefix), prefix)
        inner = self.norm(inner, names.feed_forward_branch_norm, prefix)
        return self.norm(ops.add(inner, x), names.output_norm, prefix)

    def _feed_forward(self, x: Node, prefix: str) -> Node:
        """Two linear layers; a gate, where there is one, takes the activation."""
        encoder, names, weights = self._encoder, self._encoder.names, self.weights
        narrow, wide = encoder.hidden, encoder.intermediate
        inner = weights.linear(x, below(prefix, names.up), narrow, wide, bias=encoder.up_bias)
        if names.gate is None:
            inner = activate(inner, encoder.activation)
        else:
            gate = weights.linear(x, below(prefix, names.gate), narrow, wide, bias=encoder.up_bias)
            inner = ops.multiply(activate(gate, encoder.activation), inner)
        return weights.linear(inner, prefix + names.down, wide, narrow, bias=encoder.down_bias)
