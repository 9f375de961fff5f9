"""The encoders that can be built, as data: their sizes, and what their tensors are called.

One block diagram serves the whole BERT family; its members differ in names, in the first row of
the position table they use, and in whether they have token types. A new member is a row here.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmrs.errors import ModelError
from llmrs.models.settings import Settings

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""Names of `hidden_act` in Hugging Face configurations, by what they compute."""


@dataclass(frozen=True)
class Names:
    """What the tensors of one layer are called, below the layer's own prefix."""

    layer: str
    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    up: str
    down: str
    output_norm: str


BERT = Names(
    layer="encoder.layer.{}.",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    output_norm="output.LayerNorm",
)

DISTILBERT = Names(
    layer="transformer.layer.{}.",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    attention_output="attention.out_lin",
    attention_norm="sa_layer_norm",
    up="ffn.lin1",
    down="ffn.lin2",
    output_norm="output_layer_norm",
)


@dataclass(frozen=True)
class Encoder:
    """Sizes and names of an encoder.

    Attributes:
        layers, heads, hidden, intermediate: its dimensions.
        vocabulary: rows of the word table; token ids are below it.
        positions: rows of the position table.
        token_types: rows of the token type table, 0 for none. Only the first is used.
        padding_id: the id that fills padded places.
        positions_skip_padding: whether positions count from `padding_id` + 1, and only places
            that do not hold `padding_id` (RoBERTa, after fairseq), or simply from 0 (BERT).
        epsilon: what layer norms add to the variance.
        activation: `gelu` (by erf), `gelu_tanh`, `relu` or `silu`.
    """

    names: Names
    layers: int
    heads: int
    hidden: int
    intermediate: int
    vocabulary: int
    positions: int
    token_types: int
    padding_id: int
    positions_skip_padding: bool
    epsilon: float
    activation: str

    @property
    def max_tokens(self) -> int:
        """The longest input that has a position for each of its tokens."""
        return self.positions - (self.padding_id + 1 if self.positions_skip_padding else 0)


def read_encoder(config: Settings) -> Encoder:
    """The encoder that a Hugging Face `config.json` describes.

    Raises:
        ModelError: of a kind that cannot be built, or described incompletely.
    """
    kind = config.text("model_type")
    if kind == "bert":
        encoder = _bert(config, skip_padding=False)
    elif kind in ("roberta", "xlm-roberta", "camembert"):
        encoder = _bert(config, skip_padding=True)
    elif kind == "distilbert":
        encoder = _distilbert(config)
    else:
        raise ModelError(
            f"{config.path}: model_type {kind[:40]!r} is not supported; use a bert, roberta, xlm-roberta, "
            "camembert or distilbert model, or serve this one elsewhere and set BACKEND_URL"
        )
    if encoder.hidden % encoder.heads:
        raise ModelError(f"{config.path}: {encoder.heads} heads do not divide {encoder.hidden} dimensions")
    if encoder.max_tokens < 1:
        raise ModelError(f"{config.path}: {encoder.positions} positions leave no room for a token")
    return encoder


def _bert(config: Settings, *, skip_padding: bool) -> Encoder:
    if config.text("position_embedding_type", default="absolute") != "absolute":
        raise ModelError(f"{config.path}: only absolute position embeddings are supported")
    if config.flag("is_decoder", default=False):
        raise ModelError(f"{config.path}: the model is a decoder, only encoders are supported")
    return Encoder(
        names=BERT,
        layers=config.integer("num_hidden_layers"),
        heads=config.integer("num_attention_heads"),
        hidden=config.integer("hidden_size"),
        intermediate=config.integer("intermediate_size"),
        vocabulary=config.integer("vocab_size"),
        positions=config.integer("max_position_embeddings"),
        token_types=config.integer("type_vocab_size", default=2, minimum=0),
        padding_id=config.integer("pad_token_id", default=1 if skip_padding else 0, minimum=0),
        positions_skip_padding=skip_padding,
        epsilon=config.number("layer_norm_eps", default=1e-12),
        activation=_activation(config, "hidden_act"),
    )


def _distilbert(config: Settings) -> Encoder:
    return Encoder(
        names=DISTILBERT,
        layers=config.integer("n_layers", "num_hidden_layers"),
        heads=config.integer("n_heads", "num_attention_heads"),
        hidden=config.integer("dim", "hidden_size"),
        intermediate=config.integer("hidden_dim", "intermediate_size"),
        vocabulary=config.integer("vocab_size"),
        # Sinusoidal tables are stored in the weights like learned ones.
        positions=config.integer("max_position_embeddings"),
        token_types=0,
        padding_id=config.integer("pad_token_id", default=0, minimum=0),
        positions_skip_padding=False,
        # Fixed in DistilBERT's code, not in its configuration.
        epsilon=1e-12,
        activation=_activation(config, "activation"),
    )


def _activation(config: Settings, name: str) -> str:
    value = config.text(name, default="gelu")
    if value not in ACTIVATIONS:
        raise ModelError(
            f"{config.path}: {name} {value[:40]!r} is not supported, only {', '.join(sorted(ACTIVATIONS))}"
        )
    return ACTIVATIONS[value]
