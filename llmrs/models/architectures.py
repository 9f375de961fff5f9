"""What an encoder can be made of, as data: sizes, options, and what its tensors are called.

One block diagram serves all families; they differ in names, sizes and in which of its parts they use.
`names` has the names, `families` and `rotary` read these values from Hugging Face configurations, and
`encoder` and `attention` build the graph that they describe.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

MASK_BYTES = 1 << 30
"""The most that one attention mask may take. Every token of a text is compared with every other, so a
mask grows with the square of the length: a text of 16,384 tokens takes this much, and with a bias for
each of 12 heads one of 4,729."""


def longest_input(positions: int, *, masks: int) -> int:
    """The longest input, in tokens, of a model with so many positions, whose masks are of bounded size."""
    return min(positions, math.isqrt(MASK_BYTES // (4 * masks)))


@dataclass(frozen=True)
class Part:
    """One of `of` equal parts, by rows, of a tensor that holds several side by side."""

    name: str
    index: int
    of: int


Name: TypeAlias = str | Part


def below(prefix: str, name: Name) -> Name:
    """The name with a prefix before it."""
    return Part(prefix + name.name, name.index, name.of) if isinstance(name, Part) else prefix + name


@dataclass(frozen=True)
class Names:
    """What tensors are called, without `.weight` and `.bias`; those of a layer below its prefix.

    Each of the two branches of a layer, attention and feed-forward, may have three norms: of what goes
    into the branch, of what comes out of it, and of the sum with what went past it. None is a norm
    (or projection) that is not there; that alone tells layers that normalize first from those that
    normalize last.
    """

    query: Name
    key: Name
    value: Name
    attention_output: str
    up: Name
    down: str
    gate: Name | None = None
    words: str = "embeddings.word_embeddings"
    types: str = "embeddings.token_type_embeddings"
    positions: str = "embeddings.position_embeddings"
    embedding_norm: str | None = "embeddings.LayerNorm"
    projection: str | None = None
    attention_input_norm: str | None = None
    attention_branch_norm: str | None = None
    attention_norm: str | None = None
    feed_forward_input_norm: str | None = None
    feed_forward_branch_norm: str | None = None
    output_norm: str | None = None
    query_norm: str | None = None
    key_norm: str | None = None
    final_norm: str | None = None
    distance_bias: str | None = None


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding (Su et al., 2021): queries and keys turned by their positions.

    Pair i of a head's w numbers is turned by position / (theta ** (2 i / w) * factor).
    """

    theta: float
    factor: float = 1.0


@dataclass(frozen=True)
class Layer:
    """What may differ from layer to layer.

    Attributes:
        prefix: what stands before the names of its tensors.
        rope: how its queries and keys are turned; None for not at all.
        reach: how far a token sees to either side; None for the whole text.
        input_norm: False for a layer without the norm before its attention that the others have.
    """

    prefix: str
    rope: Rope | None = None
    reach: int | None = None
    input_norm: bool = True


@dataclass(frozen=True)
class Encoder:
    """Sizes, options and names of an encoder.

    Attributes:
        layers: in order; two may share their tensors.
        prefixes: one of these may stand before all names.
        heads, key_heads, head_width: of the attention; several heads may share keys and values.
        hidden, intermediate, embedding: widths of the residual stream, of the feed-forward layers and
            of the embedding tables.
        vocabulary: rows of the word table; token ids are below it.
        positions: how many positions the model has.
        position_table: whether they are rows of a table.
        token_types: rows of the token type table, 0 for none. Only the first is used.
        padding_id: the id that fills padded places.
        positions_skip_padding: whether positions count from `padding_id` + 1, and only places
            that do not hold `padding_id` (RoBERTa, after fairseq), or simply from 0 (BERT).
        distance_bias: what is added to a score for how far two tokens are apart: `buckets` learned
            for ranges of distances (MPNet, after T5), or `alibi`, a slope for each head.
        causal: whether a token sees none after it.
        norm: `layer`, or `rms` without subtracting the mean; `rms_plus_one` stores its weights
            less 1 (Gemma).
        epsilon: what norms add to the variance.
        activation: `gelu` (by erf), `gelu_tanh`, `relu` or `silu`; of the gate where there is one.
        attention_bias, up_bias, down_bias, norm_bias: which layers have a bias; `up_bias` is the
            gate's, too.
        embedding_scale: what word vectors are multiplied with.
        score_scale: what attention scores are multiplied with; None for 1 / sqrt(head_width).
    """

    names: Names
    layers: tuple[Layer, ...]
    heads: int
    key_heads: int
    head_width: int
    hidden: int
    intermediate: int
    embedding: int
    vocabulary: int
    positions: int
    padding_id: int
    epsilon: float
    activation: str
    position_table: bool = False
    token_types: int = 0
    positions_skip_padding: bool = False
    distance_bias: Literal["buckets", "alibi"] | None = None
    causal: bool = False
    norm: Literal["layer", "rms", "rms_plus_one"] = "layer"
    attention_bias: bool = True
    up_bias: bool = True
    down_bias: bool = True
    norm_bias: bool = True
    embedding_scale: float = 1.0
    score_scale: float | None = None
    prefixes: tuple[str, ...] = ()

    @property
    def max_tokens(self) -> int:
        """The longest input that has a position for each of its tokens, and a mask of bounded size."""
        positions = self.positions - (self.padding_id + 1 if self.positions_skip_padding else 0)
        return longest_input(positions, masks=self.heads if self.distance_bias else 1)

    @property
    def multiplications(self) -> int:
        """Of all linear layers, for one token."""
        attention = 2 * (self.heads + self.key_heads) * self.head_width
        feed_forward = (3 if self.names.gate else 2) * self.intermediate
        return len(self.layers) * self.hidden * (attention + feed_forward)
